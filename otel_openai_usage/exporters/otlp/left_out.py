"""What OTLP cannot hold. It is left out and counted, so that it stops no other point."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NOT_ENCODABLE = (struct.error, ValueError, TypeError, ArithmeticError)
"""Raised for a number out of range, text that is not Unicode, or a Decimal that is not a number."""

_INTEGER_LIMIT = 2**63


@dataclass(slots=True)
class LeftOut:
    """Points that could not be encoded: how many, and why the first could not."""

    points: int = 0
    reason: str = ""

    def add(self, points: int, error: Exception) -> None:
        """Count points that `error` excluded."""
        self.points += points
        if not self.reason:
            self.reason = f"{type(error).__name__}: {error}"


def require_encodable(attributes: Mapping[str, Any]) -> None:
    """Raise one of `NOT_ENCODABLE` if a key or a value does not fit into OTLP."""
    for key, value in attributes.items():
        # Raises for half of a surrogate pair, which JSON may contain and UTF-8 cannot.
        key.encode()
        items = value if isinstance(value, list | tuple) else (value,)
        for item in items:
            _require_encodable_value(item)


def _require_encodable_value(value: Any) -> None:
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, int):
        if not -_INTEGER_LIMIT <= value < _INTEGER_LIMIT:
            raise ValueError("an integer does not fit into 64 bits")
    elif value != value:  # noqa: PLR0124  # true for NaN only, float or Decimal
        raise ValueError("the value is not a number")
