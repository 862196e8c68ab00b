"""Whether two sets of data are of one organization. Decides; asks nobody."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """What a comparison of two identities says."""

    SAME = "same"
    OTHER = "other"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Identity:
    """What is known of an organization, or what an answer says of it.

    `ids` are organization ids (one, unless a state was mixed up before this was checked). `alias` is
    the name in the header `openai-organization`, where that is no id. `members` are ids of projects
    and API keys.
    """

    ids: frozenset[str] = frozenset()
    alias: str | None = None
    members: frozenset[str] = frozenset()

    def __or__(self, other: "Identity") -> "Identity":
        return Identity(
            self.ids | other.ids, self.alias or other.alias, self.members | other.members
        )

    @property
    def name(self) -> str:
        """How a sentence calls it."""
        return ", ".join(sorted(self.ids)) or self.alias or "an organization that tells no id"


def mark(instance_id: str, base_url: str, secret: str) -> str:
    """What stands for a key and the base URL that it is used with. The key can't be found from it."""
    text = f"{base_url.rstrip('/')}\n{secret}".encode()
    return hashlib.blake2b(text, key=instance_id.encode()[:64], digest_size=16).hexdigest()


def from_header(value: str | None) -> Identity:
    """What the header `openai-organization` says: an id, or the organization's name."""
    text = (value or "").strip()[:200]
    if not text:
        return Identity()
    return Identity(ids=frozenset({text})) if text.startswith("org-") else Identity(alias=text)


def compare(known: Identity, seen: Identity) -> Verdict:
    """Whether both are one organization: by id where both say one, else by a common project or key.

    An alias may change when the organization is renamed, so a different one decides only where
    there is nothing else.
    """
    if known.ids and seen.ids:
        return Verdict.SAME if known.ids & seen.ids else Verdict.OTHER
    if known.alias is not None and known.alias == seen.alias:
        return Verdict.SAME
    if known.members & seen.members:
        return Verdict.SAME
    if known.members and seen.members:
        return Verdict.OTHER
    if known.alias is not None and seen.alias is not None:
        return Verdict.OTHER
    return Verdict.UNKNOWN


@dataclass(frozen=True, slots=True)
class Owner:
    """What a state knows of the organization whose data it has.

    `marks` stand for the keys and base URLs that were found to be of this organization. `counted`
    says whether it has data. `newest` has the sources that have some and the end of their newest
    bucket (Unix seconds), the newest first.
    """

    identity: Identity = Identity()
    marks: tuple[str, ...] = ()
    counted: bool = False
    newest: Sequence[tuple[str, int]] = ()

    @property
    def is_open(self) -> bool:
        """Whether any organization's data may come: there is nothing that it could be mixed with."""
        return not self.counted and not self.identity.ids and self.identity.alias is None
