"""The legacy counters: sums of one UTC day, which never fall within it, and begin each day at 0."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from otel_openai_usage.domain.endpoints import LEGACY
from otel_openai_usage.domain.model import Amounts, Dims, Rows
from otel_openai_usage.domain.reconciliation import Row

Labels: TypeAlias = tuple[str, str, str, str]
"""organization_id, organization_name, operation, snapshot_id; '' where the record has none."""
Sums: TypeAlias = tuple[int, int, int]
"""Requests, context tokens, generated tokens."""

LABELS = ("organization_id", "organization_name", "operation", "snapshot_id")
COUNTERS = (
    "chatgpt_api_usage.requests",
    "chatgpt_api_usage.context_tokens",
    "chatgpt_api_usage.generated_tokens",
)
NOTHING: Sums = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Shown:
    """The sums that are shown. `day` is the Unix time at which their day began."""

    day: int
    sums: Mapping[Labels, Sums] = field(default_factory=dict)


def sums(hours: Mapping[int, Rows]) -> dict[Labels, Sums]:
    """The sums of a day's rows."""
    found: dict[Labels, Sums] = {}
    for rows in hours.values():
        for dims, amounts in rows.items():
            labels = _labels(dims)
            requests, context, generated = (int(amount) for amount in amounts[:3])
            found[labels] = plus(found.get(labels, NOTHING), (requests, context, generated))
    return found


def _labels(dims: Dims) -> Labels:
    named = dict(zip(LEGACY.dimensions, dims, strict=True))
    return (
        named["organization_id"] or "",
        named["organization_name"] or "",
        named["operation"] or "",
        named["model"] or "",
    )


def with_absent(hours: Mapping[int, Rows], stored: Iterable[Row]) -> Mapping[int, Rows]:
    """A reading by user, with the stored rows of users that it lacks.

    OpenAI no longer reports users who left, but their usage stays.
    """
    user = LEGACY.dimensions.index("user_id")
    reported: set[str | None] = {None}
    for rows in hours.values():
        reported |= {dims[user] for dims in rows}
    found: dict[int, dict[Dims, Amounts]] = {start: dict(rows) for start, rows in hours.items()}
    for row in stored:
        if row.dims[user] not in reported:
            found.setdefault(row.start, {})[row.dims] = row.amounts
    return found


def frame(
    shown: Shown | None, day: int, said: Mapping[Labels, Sums], held: Collection[Labels]
) -> Shown:
    """The sums to show after a day was read. Series in `held` keep their values, because
    they are shown as 0 for a while first.

    Within a day nothing falls. On a new day every known series begins at 0.
    """
    known: Mapping[Labels, Sums] = shown.sums if shown is not None else {}
    is_same_day = shown is not None and shown.day == day
    found: dict[Labels, Sums] = {}
    for labels in (*known, *said):
        old = known.get(labels, NOTHING) if is_same_day else NOTHING
        new = old if labels in held else said.get(labels, NOTHING)
        found[labels] = _highest(old, new)
    return Shown(day, found)


def plus(one: Sums, other: Sums) -> Sums:
    """The sum, measure by measure."""
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


def minus(one: Sums, other: Sums) -> Sums:
    """The difference, at least 0, measure by measure."""
    return max(0, one[0] - other[0]), max(0, one[1] - other[1]), max(0, one[2] - other[2])


def _highest(one: Sums, other: Sums) -> Sums:
    return max(one[0], other[0]), max(one[1], other[1]), max(one[2], other[2])
