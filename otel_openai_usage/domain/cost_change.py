"""Says why a cost changed between two periods: usage, price, mix. Pure.

For each cell (a project, key, model, what was charged, an hour), with the quantity q and the unit
price p in the earlier (0) and the later period (1):

* price: q1 · (p1 - p0), what the same usage costs more
* usage: what the cell would cost more if all usage had grown alike
* mix: the rest, because usage moved to other cells
* unreported: what was billed although no usage was reported

The four sum to the change exactly.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import NamedTuple

from otel_openai_usage.domain.exact import EXACT
from otel_openai_usage.domain.pricing import add

_NOTHING = Decimal(0)
_STEP = Decimal("1E-12")
_ROUND = Context(prec=120, rounding=ROUND_HALF_EVEN)


class Cell(NamedTuple):
    """Where cost arises. `charged` also names the unit: quantities of two units are not compared.

    `hour` is in Unix seconds, None if the periods are not looked at by the hour.
    """

    project: str | None = None
    key: str | None = None
    model: str | None = None
    charged: str | None = None
    hour: int | None = None


class Spent(NamedTuple):
    """What a cell used and cost in a period."""

    quantity: int
    cost: Decimal


@dataclass(frozen=True, slots=True)
class Change:
    """By how much a cell cost more in the later period, by reason."""

    cell: Cell
    usage: Decimal = _NOTHING
    price: Decimal = _NOTHING
    mix: Decimal = _NOTHING
    unreported: Decimal = _NOTHING

    @property
    def total(self) -> Decimal:
        """The whole change."""
        return add(add(self.usage, self.price), add(self.mix, self.unreported))


def explain(before: Mapping[Cell, Spent], after: Mapping[Cell, Spent]) -> list[Change]:
    """The changes of all cells of two periods. A cell that is missing in one spent nothing then."""
    cells = dict.fromkeys([*before, *after])
    growth = _growth(before, after)
    zero = Spent(0, _NOTHING)
    return [
        _change(cell, before.get(cell, zero), after.get(cell, zero), growth[cell.charged])
        for cell in cells
    ]


class _Growth(NamedTuple):
    """The quantities of one unit in both periods."""

    before: int
    after: int


def _growth(before: Mapping[Cell, Spent], after: Mapping[Cell, Spent]) -> dict[str | None, _Growth]:
    """How all usage of a unit grew."""
    found: dict[str | None, _Growth] = {}
    for cell, spent in before.items():
        one, other = found.get(cell.charged, _Growth(0, 0))
        found[cell.charged] = _Growth(one + spent.quantity, other)
    for cell, spent in after.items():
        one, other = found.get(cell.charged, _Growth(0, 0))
        found[cell.charged] = _Growth(one, other + spent.quantity)
    return found


def _change(cell: Cell, before: Spent, after: Spent, growth: _Growth) -> Change:
    """The change of one cell."""
    # A cost without any usage has no unit price.
    cost_before, unreported_before = _reported(before)
    cost_after, unreported_after = _reported(after)
    unreported = EXACT.subtract(unreported_after, unreported_before)
    change = EXACT.subtract(cost_after, cost_before)
    price = _NOTHING
    if before.quantity and after.quantity:
        same_usage = _times(cost_before, after.quantity, before.quantity)
        price = EXACT.subtract(cost_after, same_usage)
    if growth.before:
        grown = _times(cost_before, growth.after, growth.before)
        usage = EXACT.subtract(grown, cost_before)
    else:
        # Nothing of this unit was used before: there is no mix to compare with.
        usage = change
    mix = EXACT.subtract(EXACT.subtract(change, price), usage)
    return Change(cell, usage, price, mix, unreported)


def _reported(spent: Spent) -> tuple[Decimal, Decimal]:
    """The cost with usage, and the cost without."""
    return (spent.cost, _NOTHING) if spent.quantity else (_NOTHING, spent.cost)


def _times(cost: Decimal, factor: int, divisor: int) -> Decimal:
    """A cost times a fraction, to twelve decimals."""
    return _ROUND.divide(EXACT.multiply(cost, Decimal(factor)), Decimal(divisor)).quantize(
        _STEP, context=_ROUND
    )


def summed(changes: Iterable[Change], names: Iterable[str]) -> list[Change]:
    """Changes added up by some fields of their cells, the largest first; other fields are None."""
    kept = list(names)
    found: dict[Cell, Change] = {}
    for change in changes:
        cell = Cell(**{name: getattr(change.cell, name) for name in kept})
        before = found.get(cell, Change(cell))
        found[cell] = Change(
            cell,
            add(before.usage, change.usage),
            add(before.price, change.price),
            add(before.mix, change.mix),
            add(before.unreported, change.unreported),
        )
    return sorted(found.values(), key=lambda change: (-abs(change.total), str(change.cell)))
