"""What a page shows: the query of its URL, and nothing else. A URL that is sent shows the same."""

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


@dataclass(frozen=True, slots=True)
class Span:
    """Whole UTC days: [start, end), Unix seconds. `live` tells that its last day is today."""

    start: int
    end: int
    live: bool = False

    @property
    def days(self) -> int:
        """How many."""
        return (self.end - self.start) // DAY

    @property
    def text(self) -> str:
        """24 Oct – 22 Nov 2026."""
        first = utc(self.start).date()
        last = utc(self.end - DAY).date()
        if first == last:
            return f"{last.day} {last:%b %Y}"
        head = (
            f"{first.day} {first:%b}" if first.year == last.year else f"{first.day} {first:%b %Y}"
        )
        return f"{head} – {last.day} {last:%b %Y}"

    @property
    def brief(self) -> str:
        """24 Oct – 22 Nov, where the year goes without saying."""
        text = self.text
        return text if text.count(" 20") > 1 else text.rpartition(" ")[0]


@dataclass(frozen=True, slots=True)
class View:
    """One page. `period` is a key of PERIODS or `YYYY-MM-DD..YYYY-MM-DD`, both days included.

    `cost` is empty for what fits best. `sort` is a column, with `-` before it for the highest
    first. `rows` is `all` or empty.
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
        """The view of a query string; what it does not know stays as it is by default."""
        given = parse_qs((query or "").lstrip("?"))
        single = {
            name: given[name][-1]
            for name in ("organization", "period", "by", "cost", "sort", "rows")
            if name in given
        }
        allowed = {"by": GROUPS, "cost": COSTS, "rows": ("all",)}
        kept = {
            name: value for name, value in single.items() if value in allowed.get(name, (value,))
        }
        if not (kept.get("period") in PERIODS or _days(kept.get("period", ""))):
            kept.pop("period", None)
        if kept.get("sort", "").removeprefix("-") not in COLUMNS:
            kept.pop("sort", None)
        values: dict[str, Any] = {str(name): value for name, value in kept.items()}
        values |= {name: tuple(sorted(set(given[name]))) for name in FILTERS if name in given}
        return cls(**values)

    @property
    def query(self) -> str:
        """The query string, `?` included; empty for the default view."""
        pairs: list[tuple[str, str]] = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                pairs += [
                    (field.name, each) for each in (value if isinstance(value, tuple) else (value,))
                ]
        return "?" + urlencode(pairs) if pairs else ""

    def but(self, **changes: str | Iterable[str]) -> "View":
        """This view with changes."""
        made = {
            name: value if isinstance(value, str) else tuple(sorted(set(value)))
            for name, value in changes.items()
        }
        return replace(self, **made)  # type: ignore[arg-type]  # names and values are checked by `parse` in the end

    @property
    def filters(self) -> dict[str, tuple[str, ...]]:
        """Dimension to the values that are wanted; without those that want everything."""
        return {name: getattr(self, name) for name in FILTERS if getattr(self, name)}

    def span(self, now: float) -> Span:
        """The days that it is about."""
        today = floor(int(now), DAY)
        if days := _days(self.period):
            first, last = (midnight(day) for day in days)
            return Span(first, last + DAY, first <= today <= last)
        month = month_start(today)
        if self.period == "month":
            return Span(month, today + DAY, live=True)
        if self.period == "last-month":
            return Span(month_start(month - DAY), month)
        length = {"7d": 7, "30d": 30, "90d": 90, "12m": 365}[self.period]
        return Span(today - (length - 1) * DAY, today + DAY, live=True)


def problems(query: str) -> list[str]:
    """What of a query string is not known, in sentences that say what is."""
    given = parse_qs(query.lstrip("?"), keep_blank_values=True)
    known = [field.name for field in fields(View)]
    wrong = [
        f"{name}: unknown; known here are {', '.join(known)}."
        for name in given
        if name not in known
    ]
    allowed: dict[str, Iterable[str]] = {
        "by": GROUPS,
        "cost": COSTS,
        "rows": ("all",),
        "sort": [sign + column for column in COLUMNS for sign in ("", "-")],
    }
    for name, values in given.items():
        for value in filter(None, values):
            if name in allowed and value not in allowed[name]:
                wrong.append(f"{name}: expected one of {', '.join(allowed[name])}; got {value!r}.")
            if name == "period" and value not in PERIODS and not _days(value):
                days = "two days such as 2026-11-01..2026-11-30"
                wrong.append(
                    f"period: expected one of {', '.join(PERIODS)}, or {days}; got {value!r}."
                )
    return wrong


def month_start(day: int) -> int:
    """The first day of the month of a day."""
    return day - (utc(day).day - 1) * DAY


def month_end(day: int) -> int:
    """The end of the month of a day."""
    when = utc(day)
    return month_start(day) + calendar.monthrange(when.year, when.month)[1] * DAY


def _days(text: str) -> tuple[date, date] | None:
    first, dots, last = text.partition("..")
    try:
        days = date.fromisoformat(first), date.fromisoformat(last)
    except ValueError:
        return None
    return (
        days
        if dots and days[0] <= days[1] < days[0] + timedelta(days=3660) and days[0].year >= 2015
        else None
    )
