"""What the store remembers of exported series: overflow members and high-water marks."""

from dataclasses import dataclass
from typing import TypeAlias

from otel_openai_usage.domain.model import Amount
from otel_openai_usage.domain.snapshot import AttributeValue

Attributes: TypeAlias = dict[str, AttributeValue]
"""Attributes of a series, by name."""

Key: TypeAlias = tuple[AttributeValue, ...]
"""What identifies a series of an instrument: names and values of its attributes in turn."""


@dataclass(frozen=True, slots=True)
class HighWaterMark:
    """What a series showed when a rename took members from it. It never shows less."""

    instrument: str
    key: Key
    amount: Amount


@dataclass(frozen=True, slots=True)
class OverflowMember:
    """A stored series, by id, that is a member of the overflow series of an instrument."""

    instrument: str
    stored_series: int
