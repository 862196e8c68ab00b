"""History as CSV, JSON lines and FOCUS: a line for each UTC day or hour and attribute set, fixed
columns, money as it was billed.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from otel_openai_usage.domain.metered import METERED
from otel_openai_usage.domain.model import Names, Width, midnight, utc
from otel_openai_usage.domain.pricing import CURRENCY
from otel_openai_usage.domain.spreadsheet import row, safe, safe_json
from otel_openai_usage.reports import focus
from otel_openai_usage.reports.focus import Cell, Line
from otel_openai_usage.storage.sqlite.history import (
    COST_DIMENSIONS,
    USAGE_DIMENSIONS,
    History,
    Record,
    UsageRow,
    history,
)

By: TypeAlias = Literal["day", "hour"]

USED = (
    "requests",
    "input",
    "output",
    "input_cached",
    "input_audio",
    "output_audio",
    "input_cache_write",
    "images",
    "characters",
    "audio",
    "sessions",
    "searches",
)
_LATER = ("bytes", "reasoning")
_RARER = (
    "organization_id",
    "organization_name",
    "size",
    "source",
    "vector_store_id",
    "context_level",
    "api_source",
    "subject",
    "type",
    "estimated",
)
COLUMNS = (
    "record", "date", "organization", "operation", "project_id", "project_name", "api_key_id", "api_key_name", "user_id", "user_name",
    "model", "batch", "service_tier", "line_item", *USED, "estimated_cost", "unpriced_tokens", "cost", "quantity", "currency",
    "start", "width", *_LATER, *_RARER, "attributes",
)  # fmt: skip
"""Of CSV and JSON lines. What a record does not have is empty (null). New columns come last."""

RECORDS: tuple[Record, ...] = ("usage", "legacy_usage", "metered", "vector_store")
"""Values of `record`; `cost` is another."""
_OF: dict[Record, Collection[str]] = {
    "metered": ("requests", "input", "output", "input_cached", "reasoning"),
    "vector_store": ("bytes",),
}
"""What a record counts, where that is not `USED`."""


class Stretch(NamedTuple):
    """What a line is of: so long a time, and the rows of these widths in it."""

    start: int
    length: Width
    widths: Collection[Width]


def lines(
    path: Path,
    since: date,
    until: date,
    form: str,
    by: By = "day",
    ids: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """The text of the days from `since` to `until`, both included, stretch by stretch. Raises
    StateError.

    `ids` are OpenAI's ids of organizations by name, where the configuration has them.
    """
    columns: Sequence[str] = focus.COLUMNS if form == "focus" else COLUMNS
    write = _json if form == "json" else _csv
    with history(path) as past:
        names = _Names(past)
        accounts = focus.accounts(past, ids or {})
        if form != "json":
            yield _row(columns)
        for day in _days(past, since, until):
            for line in (
                focus.lines(past, day, names.of, accounts)
                if form == "focus"
                else _records(past, day, by, names)
            ):
                yield write(columns, line)


def _days(past: History, since: date, until: date) -> Iterator[date]:
    """Those of the days that may have something, so that all time can be asked for."""
    first, last = (utc(start).date() for start in past.span() or (1, 0))
    for offset in range((min(until, last) - max(since, first)).days + 1):
        yield max(since, first) + timedelta(offset)


def _json(columns: Sequence[str], line: Line) -> str:
    """Money is text: a JSON number would be read as a float."""
    cells = {
        name: format(cell, "f") if isinstance(cell := line.get(name), Decimal) else cell
        for name in columns
    }
    return json.dumps(cells, ensure_ascii=False) + "\n"


def _csv(columns: Sequence[str], line: Line) -> str:
    return _row([_text(line.get(name)) for name in columns])


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, Decimal):
        return format(cell, "f")  # never an exponent; a minus is a number here, no formula
    if isinstance(cell, Mapping):
        return safe_json(cell)
    return safe(cell) if isinstance(cell, str) else str(cell)


def _row(cells: Sequence[str]) -> str:
    return row(cells, "\n")


def _records(past: History, day: date, by: By, names: "_Names") -> Iterator[Line]:
    day_start = midnight(day)
    for stretch in _stretches(day_start, by):
        when = {
            "date": f"{day}",
            "start": focus.instant(stretch.start),
            "width": stretch.length.text,
        }
        for record in RECORDS:
            for line in _used(past, record, stretch, names, priced=by == "day"):
                yield {"record": record, **when, **line}
    for spent in past.costs(day_start, day_start + Width.DAY, by=COST_DIMENSIONS):
        dims = names.of(dict(zip(COST_DIMENSIONS, spent.group, strict=True)))
        amounts = {"cost": spent.cost, "quantity": spent.quantity, "currency": spent.currency}
        yield {
            "record": "cost",
            "date": f"{day}",
            "start": focus.instant(day_start),
            "width": Width.DAY.text,
            **dims,
            **amounts,
        }


def _stretches(day_start: int, by: By) -> list[Stretch]:
    """By the hour, a day that is not kept in hours is a line of its own width: nothing is added to
    an hour that it may not be of.
    """
    if by == "day":
        return [Stretch(day_start, Width.DAY, tuple(Width))]
    hours = range(day_start, day_start + Width.DAY, Width.HOUR)
    return [
        Stretch(day_start, Width.DAY, (Width.DAY,)),
        *(Stretch(hour, Width.HOUR, (Width.MINUTE, Width.HOUR)) for hour in hours),
    ]


def _used(
    past: History, record: Record, stretch: Stretch, names: "_Names", *, priced: bool
) -> Iterator[Line]:
    end = stretch.start + stretch.length
    for used in past.usage(
        stretch.start, end, by=USAGE_DIMENSIONS, record=record, widths=stretch.widths
    ):
        dims = names.of(dict(zip(USAGE_DIMENSIONS, used.group, strict=True)))
        line: dict[str, Cell] = {
            **dims,
            **{name: getattr(used, name) for name in _OF.get(record, USED)},
        }
        if record == "metered":
            line["attributes"] = _self_metrics(str(dims["key"]))
        elif record != "vector_store" and priced:
            line |= _priced(used)
        yield line


def _self_metrics(key: str) -> dict[str, str] | None:
    """The attributes of events that the configuration names."""
    return {
        name: value for name, value in json.loads(key).items() if name not in METERED.dimensions
    } or None


def _priced(used: UsageRow) -> dict[str, Cell]:
    currency = CURRENCY if used.estimate is not None else None
    return {"estimated_cost": used.estimate, "unpriced_tokens": used.unpriced, "currency": currency}


class _Names:
    """Names beside ids; an id without one has none."""

    def __init__(self, past: History) -> None:
        self._known: dict[str, Names] = {}
        self._ask: Callable[[str], Names] = past.names

    def of(self, dims: dict[str, str | None]) -> dict[str, str | None]:
        """The dimensions with the names of project, API key and user."""
        organization = dims["organization"] or ""
        if organization not in self._known:
            self._known[organization] = self._ask(organization)
        names = self._known[organization]
        return {
            **dims,
            "project_name": names.projects.get(dims.get("project_id") or ""),
            "api_key_name": names.api_keys.get(dims.get("api_key_id") or ""),
            "user_name": names.users.get(dims.get("user_id") or ""),
        }
