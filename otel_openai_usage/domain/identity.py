"""Decides whether two sets of data belong to one organization. Pure: no I/O."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """The result of a comparison of two identities."""

    SAME = "same"
    OTHER = "other"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Identity:
    """What identifies an organization, in the state or in an answer.

    `ids` are organization ids: usually one; a state of an old version may have data of several.
    `alias` is the name in the header `openai-organization`, if that is no id. `members` are ids of
    projects and API keys.
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
        """The name of the organization for a message."""
        ids = ", ".join(sorted(self.ids))
        return ids or self.alias or "an organization without a known id"


def mark(instance_id: str, base_url: str, secret: str) -> str:
    """A keyed hash of a key and its base URL. The key cannot be found from it."""
    text = f"{base_url.rstrip('/')}\n{secret}".encode()
    return hashlib.blake2b(text, key=instance_id.encode()[:64], digest_size=16).hexdigest()


def from_header(value: str | None) -> Identity:
    """The identity in the header `openai-organization`: an id, or the organization's name."""
    text = (value or "").strip()[:200]
    if not text:
        return Identity()
    if text.startswith("org-"):
        return Identity(ids=frozenset({text}))
    return Identity(alias=text)


def compare(known: Identity, seen: Identity) -> Verdict:
    """Compare ids if both have one, else look for a common alias, project or key.

    An alias changes when the organization is renamed, so a different alias decides only if there
    is nothing else.
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
    """The organization whose data a state has.

    `marks` are hashes of keys and base URLs that belong to this organization. `counted` says
    whether the state has data. `newest` has the sources with data and the end of their newest
    bucket (Unix seconds), the newest first.
    """

    identity: Identity = Identity()
    marks: tuple[str, ...] = ()
    counted: bool = False
    newest: Sequence[tuple[str, int]] = ()

    @property
    def is_open(self) -> bool:
        """Whether data of any organization may be recorded, because there is no other data."""
        return not self.counted and not self.identity.ids and self.identity.alias is None
