"""What a page shows is the query of its URL: whoever gets the URL sees the same page."""

import calendar
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import date, timedelta
from typing import Any, Self
from urllib.parse import parse_qs, urlencode

from otel_openai_usage.domain.model import Width, floor, midnight, utc

DAY = int(Width.DAY)

GROUPS = {
    "model": "Model",
    "project": "Project",
    "key": "API key",
    "user": "User",
    "customer": "Customer",
}
PERIODS = {
    "7d": "7 days",
    "30d": "30 days",
    "month": "This month",
    "last-month": "Last month",
    "90d": "90 days",
    "12m": "12 months",
}
COSTS = {"billed": "Billed", "estimated": "Estimated"}
FILTERS = ("project", "model", "key", "user", "operation", "customer")
COLUMNS = ("name", "cost", "change", "estimated", "requests", "input", "cached", "output")

_LENGTHS = {"7d": 7, "30d": 30, "90d": 90, "12m": 365}
"""Days of the periods that end today and have a fixed length."""
_MAX_LENGTH = timedelta(days=3660)
_FIRST_YEAR = 2015
_TEXTS = ("organization", "period", "by", "cost", "sort", "rows")
"""Parameters with one value; the filters may have several."""
_SORTS = [sign + column for column in COLUMNS for sign in ("", "-")]
_ALLOWED: dict[str, list[str]] = {
    "by": list(GROUPS),
    "cost": list(COSTS),
    "rows": ["all"],
    "sort": _SORTS,
}
"""Values by parameter, where not all texts are allowed."""


@dataclass(frozen=True, slots=True)
class Span:
    """Whole UTC days: [start, end), Unix seconds. `live` says that today is one of them."""

    start: int
    end: int
    live: bool = False

    @property
    def days(self) -> int:
        """The number of days."""
        return (self.end - self.start) // DAY

    @property
    def text(self) -> str:
        """24 Oct – 22 Nov 2026."""
        first = utc(self.start).date()
        last = utc(self.end - DAY).date()
        last_text = _long(last)
        if first == last:
            return last_text
        first_text = _long(first)
        if first.year == last.year:
            first_text = f"{first.day} {first:%b}"
        return f"{first_text} – {last_text}"

    @property
    def brief(self) -> str:
        """24 Oct – 22 Nov: without the year if it is the same."""
        text = self.text
        has_two_years = text.count(" 20") > 1
        return text if has_two_years else text.rpartition(" ")[0]


def _long(day: date) -> str:
    """22 Nov 2026."""
    return f"{day.day} {day:%b %Y}"


@dataclass(frozen=True, slots=True)
class View:
    """One page. `period` is a key of PERIODS or `YYYY-MM-DD..YYYY-MM-DD`, both days included.

    `cost` is empty for the bill, or else the estimate. `sort` is a column, with `-` before it for the
    highest first. `rows` is `all` or empty.
    """

    organization: str = ""
    period: str = "30d"
    by: str = "model"
    cost: str = ""
    sort: str = ""
    rows: str = ""
    project: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    user: tuple[str, ...] = ()
    operation: tuple[str, ...] = ()
    customer: tuple[str, ...] = ()

    @classmethod
    def parse(cls, query: str | None) -> Self:
        """The view of a query string. What is missing or wrong in it is as by default."""
        asked = parse_qs((query or "").lstrip("?"))
        values: dict[str, Any] = {}
        for name, texts in asked.items():
            if name in FILTERS:
                values[name] = _in_order(texts)
            # Of several values the last one counts.
            elif name in _TEXTS and _is_allowed(name, texts[-1]):
                values[name] = texts[-1]
        return cls(**values)

    @property
    def query(self) -> str:
        """The query string, `?` included; empty for the default view."""
        pairs: list[tuple[str, str]] = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value == field.default:
                continue
            texts = value if isinstance(value, tuple) else (value,)
            pairs += [(field.name, text) for text in texts]
        return "?" + urlencode(pairs) if pairs else ""

    def but(self, **changes: str | Iterable[str]) -> "View":
        """This view with changes."""
        values: dict[str, Any] = {}
        for name, value in changes.items():
            values[name] = value if isinstance(value, str) else _in_order(value)
        return replace(self, **values)

    @property
    def filters(self) -> dict[str, tuple[str, ...]]:
        """The wanted values, by dimension that is filtered by."""
        values = {name: getattr(self, name) for name in FILTERS}
        return {name: wanted for name, wanted in values.items() if wanted}

    def span(self, now: float) -> Span:
        """The days that it is about."""
        today = floor(int(now), DAY)
        days = _days(self.period)
        if days is not None:
            first = midnight(days[0])
            last = midnight(days[1])
            return Span(first, last + DAY, live=first <= today <= last)
        month = month_start(today)
        if self.period == "month":
            return Span(month, today + DAY, live=True)
        if self.period == "last-month":
            return Span(month_start(month - DAY), month)
        end = today + DAY
        start = end - _LENGTHS[self.period] * DAY
        return Span(start, end, live=True)


def _in_order(values: Iterable[str]) -> tuple[str, ...]:
    """Distinct values, so that equal views have equal queries."""
    return tuple(sorted(set(values)))


def _is_allowed(name: str, value: str) -> bool:
    """Whether a parameter may have this value."""
    if name == "period":
        return value in PERIODS or _days(value) is not None
    return name not in _ALLOWED or value in _ALLOWED[name]


def problems(query: str) -> list[str]:
    """What is unknown in a query string, as sentences that say what is known."""
    asked = parse_qs(query.lstrip("?"), keep_blank_values=True)
    known = [field.name for field in fields(View)]
    unknown = [name for name in asked if name not in known]
    sentences = [f"{name}: unknown; known here are {', '.join(known)}." for name in unknown]
    for name, values in asked.items():
        # An empty value is as none.
        wrong = [value for value in values if value and not _is_allowed(name, value)]
        sentences += [f"{name}: expected {_expected(name)}; got {value!r}." for value in wrong]
    return sentences


def _expected(name: str) -> str:
    """The allowed values of a parameter in words."""
    if name == "period":
        periods = ", ".join(PERIODS)
        return f"one of {periods}, or two days such as 2026-11-01..2026-11-30"
    values = ", ".join(_ALLOWED[name])
    return f"one of {values}"


def month_start(day: int) -> int:
    """The first day of the month of a day."""
    days_before = utc(day).day - 1
    return day - days_before * DAY


def month_end(day: int) -> int:
    """The end of the month of a day."""
    when = utc(day)
    _, days = calendar.monthrange(when.year, when.month)
    return month_start(day) + days * DAY


def _days(text: str) -> tuple[date, date] | None:
    """The first and the last day of `YYYY-MM-DD..YYYY-MM-DD`; None for another text.

    The limits keep a page from being asked for a million days.
    """
    first_text, dots, last_text = text.partition("..")
    if not dots:
        return None
    try:
        first = date.fromisoformat(first_text)
        last = date.fromisoformat(last_text)
    except ValueError:
        return None
    is_ordered = first <= last < first + _MAX_LENGTH
    if not is_ordered or first.year < _FIRST_YEAR:
        return None
    return first, last
