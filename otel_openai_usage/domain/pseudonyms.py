"""Keyed hashes in place of ids: the same everywhere, and of no use without the key. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

from otel_openai_usage.domain.allocation import FORGOTTEN, OTHERS, SHARED, UNMETERED

_OURS = frozenset({FORGOTTEN, OTHERS, SHARED, UNMETERED})
_BYTES = 8
NAMES: Mapping[str, str] = {
    "project_id": "project_name",
    "api_key_id": "api_key_name",
    "user_id": "user_name",
}
"""The attributes that would say who is behind a hashed one."""


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """The attributes whose values are hashed, and the key, which never leaves the state."""

    hashed: frozenset[str] = frozenset()
    key: bytes = b""

    def of(self, name: str, value: str) -> str:
        """What is shown for the value of an attribute: 16 hexadecimal digits, if it is hashed."""
        if name not in self.hashed or value in _OURS:
            return value
        return blake2b(value.encode(errors="replace"), key=self.key, digest_size=_BYTES).hexdigest()

    def hides(self, name: str) -> bool:
        """Whether an attribute is left out, because it names what another one hashes."""
        return any(NAMES.get(hashed) == name for hashed in self.hashed)


NO_PSEUDONYMS = Pseudonyms()
