"""What is remembered of single series across restarts: which overflowed, and what must not fall."""

from dataclasses import dataclass
from typing import TypeAlias

from otel_openai_usage.domain.model import Amount
from otel_openai_usage.domain.snapshot import AttributeValue

Attributes: TypeAlias = dict[str, AttributeValue]


Key: TypeAlias = tuple[AttributeValue, ...]


@dataclass(frozen=True, slots=True)
class HighWaterMark:
    """What a series showed when a name took something of it away: it never shows less. To be
    remembered in the store.
    """

    instrument: str
    key: Key
    amount: Amount


@dataclass(frozen=True, slots=True)
class OverflowMember:
    """Leaves that from now on belong to an instrument's overflow series; to be remembered in the
    store.
    """

    instrument: str
    stored_series: int
