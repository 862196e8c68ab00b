"""Decides which rows a reading changes, and by how much totals move. Pure: no I/O.

Every stored row belongs to one bucket of one width, and a total is the sum of all rows since the
epoch, which is when counting began. So a reading that comes twice, late, out of order or after a
crash sets the same rows.

A *fine* reading is of the newest buckets, and replaces rows. A *coarse* reading is of older hours
or days, and is compared with the sum of the rows in its buckets. A *coarse row* is a row of an hour
or day that has what this sum lacked.
"""

import functools
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NamedTuple

from otel_openai_usage.domain.exact import EXACT
from otel_openai_usage.domain.model import Amount, Amounts, Dims, Rows, Width

CONFIRM_AFTER = 3600
"""Seconds between the two equal readings that lower a coarse bucket."""

LAGS = {300: "5m", 3600: "1h", 10800: "3h", 86400: "1d", 604800: "7d"}
"""Upper bounds of lateness in seconds, and their names. Usage that is later gets the last name."""


class Row(NamedTuple):
    """The amounts of one attribute set in one bucket."""

    width: int
    start: int
    dims: Dims
    amounts: Amounts


class PendingDecrease(NamedTuple):
    """A coarse reading that is lower than what is stored. `since` is when it was first seen, in
    Unix seconds.
    """

    amounts: Amounts
    since: int


class Move(NamedTuple):
    """By how much a row moved. `end` is that of its bucket; `counts` is false before the epoch."""

    end: int
    dims: Dims
    moved: Amounts
    counts: bool


@dataclass(slots=True)
class Change:
    """The rows to write and to drop, and by how much the totals move.

    `drops` and `pending_decreases` are by width, start and dims; None ends a pending decrease.
    `growth` has every attribute set of the reading, also one whose total does not move.
    `before_epoch` has those with rows that do not count. `superseded` are the amounts that rows of
    other widths lost because rows of this reading contain the same usage.
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
        """Move the total of `dims` as its row moves. `counts` is false before the epoch."""
        moved = difference(after, before)
        if any(moved):
            self.moves.append(Move(end, dims, moved, counts))
        if not counts:
            self.before_epoch.add(dims)
            return
        before_growth = self.growth.get(dims)
        self.growth[dims] = moved if before_growth is None else total(before_growth, moved)

    def supersede(self, row: Row, left: Amounts, *, counts: bool) -> None:
        """Set a row of another width to the amounts that are left, or drop it.

        Rows of this reading contain the rest of its usage, so that usage is not new.
        """
        self.set_row(row, left)
        self.move(row.start + row.width, row.dims, row.amounts, left, counts=counts)
        if counts:
            taken = difference(row.amounts, left)
            before = self.superseded.get(row.dims)
            self.superseded[row.dims] = taken if before is None else total(before, taken)

    def set_row(self, row: Row, amounts: Amounts) -> None:
        """Write the row with other amounts. A row of zeros is dropped, except for money."""
        # OpenAI reports a day that costs nothing, but no usage of 0.
        if any(amounts) or isinstance(amounts[0], Decimal):
            self.writes.append(row._replace(amounts=amounts))
        else:
            self.drops.append((row.width, row.start, row.dims))

    def grown(self) -> list[tuple[int, Amounts]]:
        """The new usage: amounts that no row contained before, each with the end of its bucket."""
        superseded = dict(self.superseded)
        found = []
        for end, dims, moved, counts in self.moves:
            has_grown = any(amount > 0 for amount in moved)
            if not counts or not has_grown:
                continue
            new = moved
            if dims in superseded:
                known = _common(moved, superseded[dims])
                superseded[dims] = difference(superseded[dims], known)
                new = difference(moved, known)
            found.append((end, new))
        return found


def _common(moved: Amounts, superseded: Amounts) -> Amounts:
    """The part of a growth that other rows contained before, measure by measure."""
    pairs = zip(moved, superseded, strict=True)
    return tuple([max(0, min(one, other)) for one, other in pairs])


def total(one: Amounts, other: Amounts) -> Amounts:
    """The sum, measure by measure."""
    # Python's `+` rounds a Decimal to 28 digits, but is exact for integers.
    if are_whole(one) and are_whole(other):
        return tuple(map(operator.add, one, other))
    return tuple(map(EXACT.add, one, other))


def difference(one: Amounts, other: Amounts) -> Amounts:
    """`one` minus `other`, measure by measure."""
    if are_whole(one) and are_whole(other):
        return tuple(map(operator.sub, one, other))
    return tuple(map(EXACT.subtract, one, other))


def are_whole(amounts: Amounts) -> bool:
    """Whether all amounts are integers. An endpoint has money only or none."""
    return type(amounts[0]) is int and type(amounts[-1]) is int


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
    """Replace stored rows by a fine reading. It is newer than they are, so it always wins.

    `reading` has the rows of each bucket by its start. `stored` has the rows of those buckets, and
    every row of another width that the reading covers in full: those are superseded.
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
        if old == amounts:
            continue
        # A zero row of money is stored: OpenAI reports a day that costs nothing, but no usage of 0.
        is_money = isinstance(amounts[0], Decimal)
        if any(amounts) or old is not None or is_money:
            change.writes.append(Row(width, start, dims, amounts))
        change.move(start + width, dims, old or zero, amounts, counts=counts)
    # A reading has the whole bucket: usage that is not in it was moved to other dims, or taken
    # back.
    for dims, old in before.items():
        if dims not in rows:
            change.drops.append((width, start, dims))
            change.move(start + width, dims, old, zero, counts=counts)


def _sums(
    width: Width, reading: Iterable[int], stored: Iterable[Row], zero: Amounts
) -> dict[int, dict[Dims, Amounts]]:
    """The stored amounts of each bucket of a coarse reading: its own row plus its finer rows."""
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
    """Reconcile stored rows with a coarse reading. More usage is recorded at once, less usage when
    a second reading confirms it.

    `stored` has every row of `width` or finer in the buckets that were read; a bucket's value is
    their sum. The difference goes into the bucket's own row.
    """
    change = Change()
    sums = _sums(width, reading, stored, zero)
    own_rows = {(row.start, row.dims): row.amounts for row in stored if row.width == width}
    for start, rows in reading.items():
        for dims in rows.keys() | sums[start].keys():
            before = sums[start].get(dims, zero)
            reported = rows.get(dims, zero)
            key = (int(width), start, dims)
            pending = pending_decreases.get(key)
            after = _agreed(change, key, before, reported, pending, now)
            if after != before:
                own = own_rows.get((start, dims), zero)
                difference_row = total(own, difference(after, before))
                change.set_row(Row(width, start, dims, own), difference_row)
            change.move(start + width, dims, before, after, counts=start >= epoch)
    return change


def draw_down(change: Change, wider: Iterable[Row], epoch: int) -> None:
    """Lower the rows of wider buckets by the growth of the buckets that they contain.

    A coarse row has the usage of its bucket that the finer rows in it lack; while there are none,
    that is all of it. When a finer row grows, both rows must not contain the same usage, so the
    coarse row falls by as much, at most to zero. A coarse row below zero (after a confirmed lower
    reading) rises in the same way when a finer row falls. A later coarse reading sets the sum
    again, whatever was done here.
    """
    # Hours before days: how an hour's row moves also changes the row of its day.
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
            # The bucket contains usage from before the epoch, so none of its row is in a total.
            continue
        inside = [move.moved for move in moves[row.dims] if row.start < move.end <= end]
        if not inside:
            continue
        left = _without(row.amounts, functools.reduce(total, inside))
        if left != row.amounts:
            change.supersede(row, left, counts=row.start >= epoch)
            moved = difference(left, row.amounts)
            moves[row.dims].append(Move(end, row.dims, moved, row.start >= epoch))


def _without(amounts: Amounts, moved: Amounts) -> Amounts:
    """The amounts, each brought nearer to zero by `moved` if both have the same sign."""
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
    before: Amounts,
    reported: Amounts,
    pending: PendingDecrease | None,
    now: int,
) -> Amounts:
    """The value of a bucket after a coarse reading. Notes in `change` if a decrease must wait."""
    is_lower = any(new < old for new, old in zip(reported, before, strict=True))
    if not is_lower:
        if pending:
            change.pending_decreases[key] = None
        return reported
    # One low answer may be incomplete, so only a second equal one lowers the row.
    if pending is None or pending.amounts != reported:
        change.pending_decreases[key] = PendingDecrease(reported, now)
        return highest(reported, before)
    if now - pending.since >= CONFIRM_AFTER:
        change.pending_decreases[key] = None
        return reported
    # A time in the future is from a clock that was wrong: the decrease would wait until then.
    since = min(pending.since, now)
    change.pending_decreases[key] = PendingDecrease(reported, since)
    return highest(reported, before)


def disagreeing(
    width: Width, reading: Mapping[int, Rows], stored: Iterable[Row], zero: Amounts
) -> list[int]:
    """The starts of the buckets whose reading differs from what is stored."""
    sums = _sums(width, reading, stored, zero)
    found = []
    for start, rows in reading.items():
        all_dims = rows.keys() | sums[start].keys()
        if any(rows.get(dims, zero) != sums[start].get(dims, zero) for dims in all_dims):
            found.append(start)
    return found


def late(
    grown: Iterable[tuple[int, Amounts]],
    measures: Sequence[int],
    now: int,
    lags: Mapping[int, str] = LAGS,
) -> dict[str, int]:
    """Amounts by how late they were first seen, counted from the end of their bucket.

    `measures` are the indices of the measures that are added up.
    """
    found: dict[str, int] = {}
    for end, moved in grown:
        if end > now:
            continue  # The bucket is not over.
        amount = sum(int(moved[index]) for index in measures if moved[index] > 0)
        if amount:
            name = _lag(now - end, lags)
            found[name] = found.get(name, 0) + amount
    return found


def _lag(seconds: int, lags: Mapping[int, str]) -> str:
    """The name of the first bound that is not exceeded, else of the last bound."""
    for bound, name in lags.items():
        if seconds <= bound:
            return name
    return lags[max(lags)]


def latest(reading: Mapping[int, Rows]) -> dict[Dims, tuple[int, Amounts]]:
    """The newest bucket of each attribute set, and its amounts there. For levels."""
    found: dict[Dims, tuple[int, Amounts]] = {}
    for start in sorted(reading):
        for dims, amounts in reading[start].items():
            found[dims] = (start, amounts)
    return found
