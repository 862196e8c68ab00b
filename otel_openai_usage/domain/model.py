"""The basic types. Bucket starts are Unix seconds, as OpenAI's are; a datetime is aware, in UTC."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import IntEnum
from typing import TypeAlias

Dims: TypeAlias = tuple[str | None, ...]
"""Values of an endpoint's `dimensions`, in that order; None if null or not grouped. `batch` is
"true" or "false".
"""

Amount: TypeAlias = int | Decimal
Amounts: TypeAlias = tuple[Amount, ...]
"""Values of an endpoint's `measures`, in that order. Money is Decimal, all else is int."""

Rows: TypeAlias = Mapping[Dims, Amounts]
"""The rows of one bucket. Several results of one attribute set are added up."""


class Width(IntEnum):
    """A bucket width in seconds."""

    MINUTE = 60
    HOUR = 3600
    DAY = 86400

    @property
    def text(self) -> str:
        """The width as OpenAI writes it in `bucket_width`."""
        return {60: "1m", 3600: "1h", 86400: "1d"}[self]

    @classmethod
    def parse(cls, text: str) -> "Width":
        """The width for a `bucket_width` of OpenAI. Raises ValueError for another text."""
        for width in cls:
            if width.text == text:
                return width
        raise ValueError(f"bucket_width: expected 1m, 1h or 1d, got {text!r}")


def seconds(time: datetime) -> int:
    """Unix seconds, rounded down. Raises ValueError for a naive datetime."""
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
    """The start of the bucket of `width` seconds that contains `unix`."""
    return unix - unix % width


def ceil(unix: int, width: int) -> int:
    """The first start of a bucket of `width` seconds that is not before `unix`."""
    # Floor division of the negative number rounds up, without floats.
    return -(-unix // width) * width


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A time span that is requested: [start, end), Unix seconds. It is never empty."""

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
    """A monthly spend limit in currency units. `project_id` is None for the whole organization."""

    project_id: str | None
    amount: Decimal
    currency: str
    enforcing: bool


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What a project may ask of a model, such as `tokens_per_minute`."""

    project_id: str
    model: str
    limit: str
    value: int


@dataclass(frozen=True, slots=True)
class KeyTimes:
    """When an API key was created, was last used and expires, Unix seconds; None: not said."""

    project_id: str
    api_key_id: str
    created: int | None
    last_used: int | None
    expires: int | None


@dataclass(frozen=True, slots=True)
class Names:
    """Names by id. None means that the id has no name, at least for a while."""

    projects: Mapping[str, str | None]
    api_keys: Mapping[str, str | None]
    users: Mapping[str, str | None]


NO_NAMES = Names({}, {}, {})
