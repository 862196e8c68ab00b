"""Which attributes are shown as keyed hashes, as configured."""

from collections.abc import Callable

from otel_openai_usage.config import Settings
from otel_openai_usage.domain.pseudonyms import NO_PSEUDONYMS, Pseudonyms


def pseudonyms(settings: Settings, key: Callable[[], bytes]) -> Pseudonyms:
    """What `attributes.hash` says. `key` gives the state's key, and is asked only if it is needed.

    Raises StateError.
    """
    hashed = frozenset(settings.attributes.hash)
    return Pseudonyms(hashed, key()) if hashed else NO_PSEUDONYMS
