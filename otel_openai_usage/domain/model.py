"""The nouns. Times at the surface are aware and UTC; bucket starts are Unix seconds, as OpenAI's
are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import IntEnum
from typing import TypeAlias

Dims: TypeAlias = tuple[str | None, ...]
"""Values of a kind's `dimensions`, in that order; None where null or not grouped. `batch` is "true"
or "false".
"""

Amount: TypeAlias = int | Decimal
Amounts: TypeAlias = tuple[Amount, ...]
"""Values of a kind's `measures`, in that order. Money is Decimal, all else int."""

Rows: TypeAlias = Mapping[Dims, Amounts]
"""What one bucket says; several results of one key are summed."""


class Width(IntEnum):
    """A bucket width in seconds."""

    MINUTE = 60
    HOUR = 3600
    DAY = 86400

    @property
    def text(self) -> str:
        """As OpenAI's `bucket_width` spells it."""
        return {60: "1m", 3600: "1h", 86400: "1d"}[self]

    @classmethod
    def parse(cls, text: str) -> "Width":
        """The width that OpenAI spells so; ValueError for others."""
        for width in cls:
            if width.text == text:
                return width
        raise ValueError(f"bucket_width: expected 1m, 1h or 1d, got {text!r}")


def seconds(time: datetime) -> int:
    """Unix seconds, floored. A naive datetime raises ValueError."""
    if time.tzinfo is None:
        raise ValueError(f"{time!r} has no time zone")
    return int((time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1))


def utc(unix: float) -> datetime:
    """The aware UTC datetime of Unix seconds."""
    return datetime.fromtimestamp(unix, UTC)


def midnight(day: date) -> int:
    """Unix seconds of the start of a UTC day."""
    return seconds(datetime(day.year, day.month, day.day, tzinfo=UTC))


def floor(unix: int, width: int) -> int:
    """The start of the bucket of `width` seconds that holds `unix`."""
    return unix - unix % width


def ceil(unix: int, width: int) -> int:
    """The first start of a bucket of `width` seconds that is not before `unix`."""
    return -(-unix // width) * width


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A stretch of time that we ask for: [start, end), Unix seconds."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise ValueError(f"a window must not be empty: {self.start}..{self.end}")

    def __str__(self) -> str:
        return f"{utc(self.start):%Y-%m-%dT%H:%MZ}/{utc(self.end):%Y-%m-%dT%H:%MZ}"

    def __contains__(self, unix: int) -> bool:
        return self.start <= unix < self.end


@dataclass(frozen=True, slots=True)
class Limit:
    """A monthly spend limit, in currency units. `project_id` is None for the organization's."""

    project_id: str | None
    amount: Decimal
    currency: str
    enforcing: bool


@dataclass(frozen=True, slots=True)
class Names:
    """Ids to names. An id whose value is None is known to be unresolvable, at least for a while."""

    projects: Mapping[str, str | None]
    api_keys: Mapping[str, str | None]
    users: Mapping[str, str | None]


NO_NAMES = Names({}, {}, {})
