"""The legacy counters: sums of one UTC day, that never fall within it and begin at 0 again with the
next.
"""

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
    """What is shown: the day, as the Unix time that it starts at, and its sums."""

    day: int
    sums: Mapping[Labels, Sums] = field(default_factory=dict)


def sums(hours: Mapping[int, Rows]) -> dict[Labels, Sums]:
    """What a day's rows add up to."""
    picked = [
        LEGACY.dimensions.index(name)
        for name in ("organization_id", "organization_name", "operation", "model")
    ]
    found: dict[Labels, Sums] = {}
    for rows in hours.values():
        for dims, amounts in rows.items():
            labels = tuple(dims[index] or "" for index in picked)
            requests, context, generated = (int(amount) for amount in amounts[:3])
            before = found.get(labels, NOTHING)  # type: ignore[arg-type]  # four of them
            found[labels] = (before[0] + requests, before[1] + context, before[2] + generated)  # type: ignore[index]
    return found


def with_absent(hours: Mapping[int, Rows], stored: Iterable[Row]) -> Mapping[int, Rows]:
    """A reading by user, and what was stored of users of whom it has nothing: who leaves takes
    nothing along.
    """
    user = LEGACY.dimensions.index("user_id")
    told = {dims[user] for rows in hours.values() for dims in rows} | {None}
    found: dict[int, dict[Dims, Amounts]] = {start: dict(rows) for start, rows in hours.items()}
    for row in stored:
        if row.dims[user] not in told:
            found.setdefault(row.start, {})[row.dims] = row.amounts
    return found


def frame(
    shown: Shown | None, day: int, said: Mapping[Labels, Sums], held: Collection[Labels]
) -> Shown:
    """What to show of a day after it was read; series in `held` stay where they are.

    Within a day nothing falls. On a new day every known series begins at 0.
    """
    before = shown.sums if shown is not None and shown.day == day else {}
    known = (*(shown.sums if shown is not None else ()), *said)
    found: dict[Labels, Sums] = {}
    for labels in known:
        old = before.get(labels, NOTHING)
        found[labels] = old if labels in held else _highest(old, said.get(labels, NOTHING))
    return Shown(day, found)


def plus(one: Sums, other: Sums) -> Sums:
    """The sum, measure by measure."""
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


def minus(one: Sums, other: Sums) -> Sums:
    """What one has more than the other, measure by measure."""
    return max(0, one[0] - other[0]), max(0, one[1] - other[1]), max(0, one[2] - other[2])


def _highest(one: Sums, other: Sums) -> Sums:
    return max(one[0], other[0]), max(one[1], other[1]), max(one[2], other[2])
