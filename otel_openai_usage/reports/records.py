"""Usage and cost history as records: a line for each UTC day or hour and attribute set, in fixed
columns, with money as it was billed.
"""

import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import date
from typing import NamedTuple

from otel_openai_usage.domain.model import Width, midnight
from otel_openai_usage.domain.pricing import CURRENCY
from otel_openai_usage.reports.tables import By, Cell, Export, Line, instant
from otel_openai_usage.storage.results import (
    COST_DIMENSIONS,
    USAGE_DIMENSIONS,
    CostRow,
    Record,
    UsageRow,
)

COUNTED = (
    "requests", "input", "output", "input_cached", "input_audio", "output_audio",
    "input_cache_write", "images", "characters", "audio", "sessions", "searches",
)  # fmt: skip
_ADDED_LATER = ("bytes", "reasoning")
FINER = (
    "input_text", "output_text", "input_image", "output_image", "input_cached_text",
    "input_cached_audio", "input_cached_image", "input_cache_write_30m", "input_cache_write_12h",
    "input_uncached",
)  # fmt: skip
"""Parts of the tokens in `COUNTED`."""
_RARE = (
    "organization_id", "organization_name", "size", "source", "vector_store_id", "context_level",
    "api_source", "subject", "type", "estimated",
)  # fmt: skip
COLUMNS = (
    "record", "date", "organization", "operation", "project_id", "project_name", "api_key_id",
    "api_key_name", "user_id", "user_name", "model", "batch", "service_tier", "line_item",
    *COUNTED, "estimated_cost", "unpriced_tokens", "cost", "quantity", "currency", "start",
    "width", *_ADDED_LATER, *_RARE, "attributes",
    *FINER, "quantity_unit", "allocated_cost",
)  # fmt: skip
"""New columns come last, because people read CSV by position."""

USAGE_RECORDS: tuple[Record, ...] = ("usage", "legacy_usage", "metered", "vector_store")
"""Values of `record`; `cost` and `allocated` are others."""
_COUNTED_BY: dict[Record, Collection[str]] = {
    "metered": ("requests", "input", "output", "input_cached", "reasoning"),
    "vector_store": ("bytes",),
}
"""What a record counts if that is not `COUNTED`."""


class _Span(NamedTuple):
    """The time that a line covers, and the widths of the rows in it."""

    start: int
    length: Width
    widths: Collection[Width]


def of_day(export: Export, day: date) -> Iterator[Line]:
    """The records of a UTC day: usage first, then costs. Raises StateError."""
    for span in _spans(midnight(day), export.by):
        for record in USAGE_RECORDS:
            yield from _usage(export, day, span, record)
    yield from _costs(export, day)


def _spans(day_start: int, by: By) -> list[_Span]:
    """The spans of a day that have lines of their own."""
    if by == "day":
        return [_Span(day_start, Width.DAY, tuple(Width))]
    # Rows that are stored by the day stay one line: nobody knows to which hour they belong.
    whole_day = _Span(day_start, Width.DAY, (Width.DAY,))
    starts = range(day_start, day_start + Width.DAY, Width.HOUR)
    hours = [_Span(start, Width.HOUR, (Width.MINUTE, Width.HOUR)) for start in starts]
    return [whole_day, *hours]


def _time_cells(day: date, start: int, length: Width) -> dict[str, Cell]:
    """The cells that say which time a line covers."""
    return {"date": f"{day}", "start": instant(start), "width": length.text}


def _usage(export: Export, day: date, span: _Span, record: Record) -> Iterator[Line]:
    """The usage records of one kind in a span."""
    end = span.start + span.length
    rows = export.history.usage(
        span.start, end, by=USAGE_DIMENSIONS, record=record, widths=span.widths
    )
    time_cells = _time_cells(day, span.start, span.length)
    # Estimates are stored by the day, so a line by the hour has none.
    is_priced = export.by == "day" and record not in ("metered", "vector_store")
    for row in rows:
        dimensions = export.dimensions(USAGE_DIMENSIONS, row.group)
        line: dict[str, Cell] = {"record": record, **time_cells, **dimensions}
        for name in _COUNTED_BY.get(record, (*COUNTED, *FINER)):
            line[name] = getattr(row, name)
        if record == "metered":
            attributes = _configured_attributes(str(dimensions["key"]))
            own = {name: attributes.pop(name) for name in _COMPARED if name in attributes}
            line |= export.dimensions(("organization", *own), (row.group[0], *own.values()))
            shown = {name: export.pseudonyms.of(name, text) for name, text in attributes.items()}
            line["attributes"] = shown or None
            if export.by == "day" and row.estimate is not None:
                line |= {"estimated_cost": row.estimate, "currency": CURRENCY}
        if is_priced:
            line |= _estimate(row)
        yield line


_COMPARED = ("project_id", "batch", "service_tier")
"""Attributes of events that have columns of their own, because usage has them, too."""


def _configured_attributes(key: str) -> dict[str, str]:
    """The attributes of events that the configuration names."""
    from otel_openai_usage.domain.metered import METERED

    attributes: dict[str, str] = json.loads(key)
    for name in METERED.dimensions:
        attributes.pop(name, None)
    return attributes


def _estimate(row: UsageRow) -> dict[str, Cell]:
    """The estimated cost of a row, and the tokens that are missing in it."""
    currency = CURRENCY if row.estimate is not None else None
    return {"estimated_cost": row.estimate, "unpriced_tokens": row.unpriced, "currency": currency}


def _costs(export: Export, day: date) -> Iterator[Line]:
    """The cost records of a day: what was billed, and each bill in parts by customer."""
    start = midnight(day)
    time_cells = _time_cells(day, start, Width.DAY)
    for row in export.history.costs(start, start + Width.DAY, by=COST_DIMENSIONS):
        dimensions = export.dimensions(COST_DIMENSIONS, row.group)
        amounts: Line = {"cost": row.cost, "quantity": row.quantity, "currency": row.currency}
        unit = None
        if row.quantity is not None:
            # Where the unit is not certain, the quantity is still OpenAI's.
            with suppress(LookupError):
                unit = export.quantity_unit(dimensions)
        yield {"record": "cost", **time_cells, **dimensions, **amounts, "quantity_unit": unit}
        yield from _allocated(export, start, row, {**time_cells, **dimensions})


def _allocated(export: Export, start: int, row: CostRow, cells: Line) -> Iterator[Line]:
    """The parts of a bill by customer. Their sum is the bill."""
    allocated = export.allocated(start, row.group, row.cost)
    for part in allocated.parts if allocated else ():
        yield {
            "record": "allocated",
            **cells,
            "subject": part.customer,
            "currency": row.currency,
            "allocated_cost": part.amount,
        }
