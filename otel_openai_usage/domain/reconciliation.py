"""What a reading changes. Decides; touches nothing.

Every row that is stored belongs to one bucket of one width, and a total is the sum of all rows
since the epoch. So a reading that comes twice, late, out of order or after a crash can only ever
set rows to what they should be.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from otel_openai_usage.domain.exact import EXACT
from otel_openai_usage.domain.model import Amount, Amounts, Dims, Rows, Width

CONFIRM_AFTER = 3600
"""Seconds between the two equal lower readings that make a coarse bucket fall (CONTRACT section
4.3).
"""

LAGS = {300: "5m", 3600: "1h", 10800: "3h", 86400: "1d", 604800: "7d"}
"""Upper bounds of lateness in seconds, and how they are called; what is later still counts as the
last.
"""


class Row(NamedTuple):
    """What one bucket says of one attribute set."""

    width: int
    start: int
    dims: Dims
    amounts: Amounts


class PendingDecrease(NamedTuple):
    """A coarse reading that is lower than what is booked, and when it was first seen (Unix
    seconds).
    """

    amounts: Amounts
    since: int


class Move(NamedTuple):
    """By how much a row of an attribute set moved; `end` is that of its bucket, `counts` is false
    before the epoch.
    """

    end: int
    dims: Dims
    moved: Amounts
    counts: bool


@dataclass(slots=True)
class Change:
    """What to write, and by how much the totals move. `drops` are rows (width, start, dims) that
    are no more.

    `suspects` sets (or, with None, clears) suspicions by (width, start, dims). `growth` names every
    attribute set that the reading spoke of, also where nothing moved; `before_epoch` those with
    rows that do not count. `superseded` is what rows of other widths held of the same usage.
    """

    writes: list[Row] = field(default_factory=list)
    drops: list[tuple[int, int, Dims]] = field(default_factory=list)
    pending_decreases: dict[tuple[int, int, Dims], PendingDecrease | None] = field(
        default_factory=dict
    )
    growth: dict[Dims, Amounts] = field(default_factory=dict)
    before_epoch: set[Dims] = field(default_factory=set)
    superseded: dict[Dims, Amounts] = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)

    def move(self, end: int, dims: Dims, before: Amounts, after: Amounts, *, counts: bool) -> None:
        """Let the total of `dims` follow its row; `counts` is false for buckets before the epoch."""
        moved = difference(after, before)
        if any(moved):
            self.moves.append(Move(end, dims, moved, counts))
        if not counts:
            self.before_epoch.add(dims)
        else:
            held = self.growth.get(dims)
            self.growth[dims] = moved if held is None else total(held, moved)

    def supersede(self, row: Row, left: Amounts, *, counts: bool) -> None:
        """Lower a row of another width to `left`, or drop it if nothing is left.

        Other rows hold the same usage now, so what they hold is not new.
        """
        self.set_row(row, left)
        self.move(row.start + row.width, row.dims, row.amounts, left, counts=counts)
        if counts:
            taken = difference(row.amounts, left)
            known = self.superseded.get(row.dims)
            self.superseded[row.dims] = taken if known is None else total(known, taken)

    def set_row(self, row: Row, amounts: Amounts) -> None:
        """Write the row with other amounts. A row of nothing is dropped, except for money."""
        if any(amounts) or isinstance(amounts[0], Decimal):
            self.writes.append(row._replace(amounts=amounts))
        else:
            self.drops.append((row.width, row.start, row.dims))

    def grown(self) -> list[tuple[int, Amounts]]:
        """What was added and is new, with the end of its bucket."""
        known = dict(self.superseded)
        found = []
        for end, dims, moved, counts in self.moves:
            if not counts or not any(amount > 0 for amount in moved):
                continue
            new = moved
            if dims in known:
                again = tuple([max(0, min(a, b)) for a, b in zip(moved, known[dims], strict=True)])
                known[dims] = difference(known[dims], again)
                new = difference(moved, again)
            found.append((end, new))
        return found


def total(one: Amounts, other: Amounts) -> Amounts:
    """The sum, measure by measure."""
    return tuple(
        [
            a + b if type(a) is int and type(b) is int else EXACT.add(a, b)
            for a, b in zip(one, other, strict=True)
        ]
    )


def difference(one: Amounts, other: Amounts) -> Amounts:
    """`one` minus `other`, measure by measure."""
    return tuple(
        [
            a - b if type(a) is int and type(b) is int else EXACT.subtract(a, b)
            for a, b in zip(one, other, strict=True)
        ]
    )


def highest(one: Amounts, other: Amounts) -> Amounts:
    """The greater, measure by measure."""
    return tuple(map(max, one, other))


def replace(
    width: Width,
    reading: Mapping[int, Rows],
    stored: Iterable[Row],
    epoch: int,
    zero: Amounts,
) -> Change:
    """Book a fine reading: it is right, whatever was stored.

    `reading` has the rows of each bucket that was read, by its start. `stored` has the rows of
    those buckets and every row of another width that the reading covers in full: those are
    superseded.
    """
    change = Change()
    same: dict[int, dict[Dims, Amounts]] = {start: {} for start in reading}
    for row in stored:
        if row.width == width and row.start in same:
            same[row.start][row.dims] = row.amounts
        else:
            change.supersede(row, zero, counts=row.start >= epoch)
    for start, rows in reading.items():
        _replace_bucket(change, width, start, rows, same[start], start >= epoch, zero)
    return change


def _replace_bucket(
    change: Change,
    width: int,
    start: int,
    rows: Rows,
    before: Mapping[Dims, Amounts],
    counts: bool,
    zero: Amounts,
) -> None:
    for dims, amounts in rows.items():
        old = before.get(dims)
        if old != amounts:
            # Money is kept at zero too: a day that costs nothing is said, where usage of nothing is
            # not.
            if any(amounts) or old is not None or isinstance(amounts[0], Decimal):
                change.writes.append(Row(width, start, dims, amounts))
            change.move(start + width, dims, old or zero, amounts, counts=counts)
    for dims, old in before.items():
        if dims not in rows:
            change.drops.append((width, start, dims))
            change.move(start + width, dims, old, zero, counts=counts)


def _added_up(
    width: Width, reading: Iterable[int], stored: Iterable[Row], zero: Amounts
) -> dict[int, dict[Dims, Amounts]]:
    """What the buckets of a coarse reading hold, their finer rows included."""
    found: dict[int, dict[Dims, Amounts]] = {start: {} for start in reading}
    for row in stored:
        bucket = found[row.start - row.start % width]
        bucket[row.dims] = total(bucket.get(row.dims, zero), row.amounts)
    return found


def reconcile(
    width: Width,
    reading: Mapping[int, Rows],
    stored: Sequence[Row],
    pending_decreases: Mapping[tuple[int, int, Dims], PendingDecrease],
    now: int,
    epoch: int,
    zero: Amounts,
) -> Change:
    """Book a coarse reading: what it has more is booked at once, what it has less when it is
    confirmed.

    `stored` has every row of `width` or finer in the buckets that were read; a bucket's value is
    their sum. The difference goes into the bucket's own row.
    """
    change = Change()
    held = _added_up(width, reading, stored, zero)
    own = {(row.start, row.dims): row.amounts for row in stored if row.width == width}
    for start, rows in reading.items():
        for dims in rows.keys() | held[start].keys():
            have = held[start].get(dims, zero)
            said = rows.get(dims, zero)
            key = (int(width), start, dims)
            value = _agreed(change, key, have, said, pending_decreases.get(key), now)
            if value != have:
                before = own.get((start, dims), zero)
                after = total(before, difference(value, have))
                change.set_row(Row(width, start, dims, before), after)
            change.move(start + width, dims, have, value, counts=start >= epoch)
    return change


def draw_down(change: Change, wider: Iterable[Row], epoch: int) -> None:
    """Let rows of wider buckets, which hold buckets of a reading, give up what those hold now.

    A coarse row holds what its bucket has beyond its parts, or all of it while its parts are not
    known. When a part grows, the same usage must not stand in both: the coarse row falls by as
    much, down to nothing. A coarse row below zero (a confirmed lower reading) rises the same way
    when a part falls. What a coarse reading says of the sum later is not touched by this.
    """
    narrow_first = sorted(wider, key=lambda row: row.width)
    if not narrow_first:
        return
    moves: dict[Dims, list[Move]] = {row.dims: [] for row in narrow_first}
    for move in change.moves:
        if move.dims in moves:
            moves[move.dims].append(move)
    for row in narrow_first:
        end = row.start + row.width
        if row.start < epoch < end:
            continue  # a part of the bucket does not count: the row does not hold what counts
        inside = [move.moved for move in moves[row.dims] if row.start < move.end <= end]
        if not inside:
            continue
        left = _without(row.amounts, functools.reduce(total, inside))
        if left != row.amounts:
            change.supersede(row, left, counts=row.start >= epoch)
            moved = difference(left, row.amounts)
            moves[row.dims].append(Move(end, row.dims, moved, row.start >= epoch))


def _without(amounts: Amounts, moved: Amounts) -> Amounts:
    """The amounts nearer to zero by what moved in their direction."""
    left: list[Amount] = []
    for amount, by in zip(amounts, moved, strict=True):
        if amount > 0 and by > 0:
            left.append(amount - min(amount, by))
        elif amount < 0 and by < 0:
            left.append(amount - max(amount, by))
        else:
            left.append(amount)
    return tuple(left)


def _agreed(
    change: Change,
    key: tuple[int, int, Dims],
    have: Amounts,
    said: Amounts,
    pending_decrease: PendingDecrease | None,
    now: int,
) -> Amounts:
    """The value of a bucket after a coarse reading `said` what it said."""
    if not any(new < old for new, old in zip(said, have, strict=True)):
        if pending_decrease:
            change.pending_decreases[key] = None
        return said
    if (
        pending_decrease
        and pending_decrease.amounts == said
        and now - pending_decrease.since >= CONFIRM_AFTER
    ):
        change.pending_decreases[key] = None
        return said
    # One from the future was seen by a clock that was wrong: it would wait for that time.
    known = (
        pending_decrease is not None
        and pending_decrease.amounts == said
        and pending_decrease.since <= now
    )
    change.pending_decreases[key] = pending_decrease if known else PendingDecrease(said, now)
    return highest(said, have)


def disagreeing(
    width: Width, reading: Mapping[int, Rows], stored: Iterable[Row], zero: Amounts
) -> list[int]:
    """The starts of the buckets whose reading is not what is stored: worth a finer look."""
    held = _added_up(width, reading, stored, zero)
    return [
        start
        for start, rows in reading.items()
        if any(
            rows.get(dims, zero) != held[start].get(dims, zero)
            for dims in rows.keys() | held[start].keys()
        )
    ]


def late(
    grown: Iterable[tuple[int, Amounts]],
    measures: Sequence[int],
    now: int,
    lags: Mapping[int, str] = LAGS,
) -> dict[str, int]:
    """How much was first seen how long after its bucket ended; `measures` are the indices that are
    added up.
    """
    found: dict[str, int] = {}
    for end, moved in grown:
        if end > now:
            continue  # a bucket that still runs
        amount = sum(int(moved[index]) for index in measures if moved[index] > 0)
        if amount:
            name = _lag(now - end, lags)
            found[name] = found.get(name, 0) + amount
    return found


def _lag(seconds: int, lags: Mapping[int, str]) -> str:
    return next((name for bound, name in lags.items() if seconds <= bound), lags[max(lags)])


def latest(reading: Mapping[int, Rows]) -> dict[Dims, tuple[int, Amounts]]:
    """For a level: of each attribute set the newest bucket that speaks of it, and what it says."""
    found: dict[Dims, tuple[int, Amounts]] = {}
    for start in sorted(reading):
        for dims, amounts in reading[start].items():
            found[dims] = (start, amounts)
    return found
