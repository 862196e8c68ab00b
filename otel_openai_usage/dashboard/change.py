"""Why the cost changed against the period before: the card, and the cells that it is made from."""

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from dash import html

from otel_openai_usage.dashboard import cards, units
from otel_openai_usage.dashboard.controls import number_cell
from otel_openai_usage.dashboard.cube import DAY, Cube, Mask
from otel_openai_usage.dashboard.queries import Report
from otel_openai_usage.dashboard.view import Span
from otel_openai_usage.domain.allocation import whole_class
from otel_openai_usage.domain.cost_change import Cell, Change, Spent, explain, summed
from otel_openai_usage.domain.line_item import LineItem, billed_tokens

ROWS = 12
"""So many cells are shown, those that changed most."""
_LEAST_CHANGE = Decimal("0.005")
_TITLE = "Why did it change?"
_REASONS = {
    "usage": "Usage",
    "price": "Price",
    "mix": "Mix",
    "unreported": "No usage reported",
}
_TOKENS = ("input", "output", "input_cached", "input_cache_write")
_OTHERS = ("images", "characters", "audio", "sessions", "searches", "requests")
"""What a line item without tokens is counted by: the first that was used."""


def changes(report: Report) -> list[Change] | None:
    """By how much each project, key, model and kind of charge cost more, and why.

    None if there is nothing to compare, and for customers: the bill says nothing of their prices.
    """
    if report.compared is None or not report.priced or report.shows_events:
        return None
    after, before = report.compared
    return explain(_spent(report, before), _spent(report, after))


def _spent(report: Report, span: Span) -> dict[Cell, Spent]:
    if report.basis == "estimated":
        return _estimated(report, span)
    return _billed(report, span)


def _billed(report: Report, span: Span) -> dict[Cell, Spent]:
    """What was billed, with the usage that OpenAI reports for it."""
    has_keys = report.data.bills("key")
    used = _usage(report, span, has_keys=has_keys)
    costs = report.data.costs
    found: dict[Cell, Spent] = {}
    for value, amounts in _rows(costs, span, ["cost"], costs.where(report.view.filters)):
        key = value("key") if has_keys else None
        model = value("model")
        charged = value("charged") or ""
        cell = Cell(value("project"), key, model, None if charged == model else charged)
        tokens = used.get((cell.project, key, model), {})
        known = found.get(cell, Spent(_quantity(model, charged, tokens), Decimal(0)))
        found[cell] = known._replace(cost=known.cost + _money(amounts["cost"]))
    return found


def _quantity(model: str | None, charged: str, used: dict[str, int]) -> int:
    """How much of what a line item charges was used."""
    name = None if model == charged else LineItem(model, charged).token_class
    if name is not None:
        return billed_tokens(whole_class(name), used)
    return next((used[measure] for measure in _OTHERS if used.get(measure)), 0)


def _estimated(report: Report, span: Span) -> dict[Cell, Spent]:
    """What usage costs by the price list."""
    usage = report.data.usage
    mask = usage.where(report.view.filters)
    found: dict[Cell, Spent] = {}
    for value, amounts in _rows(usage, span, ["estimate", "input", "output", *_OTHERS], mask):
        cell = Cell(value("project"), value("key"), value("model"))
        quantity = int(amounts["input"] + amounts["output"])
        if not quantity:
            quantity = int(next((amounts[name] for name in _OTHERS if amounts[name]), 0))
        known = found.get(cell, Spent(0, Decimal(0)))
        found[cell] = Spent(known.quantity + quantity, known.cost + _money(amounts["estimate"]))
    return found


def _usage(
    report: Report, span: Span, *, has_keys: bool
) -> dict[tuple[str | None, str | None, str | None], dict[str, int]]:
    """OpenAI's counts by project, key (if the bill knows keys) and model."""
    usage = report.data.usage
    found: dict[tuple[str | None, str | None, str | None], dict[str, int]] = {}
    for value, amounts in _rows(usage, span, [*_TOKENS, *_OTHERS], None):
        place = (value("project"), value("key") if has_keys else None, value("model"))
        sums = found.setdefault(place, {})
        for name, amount in amounts.items():
            sums[name] = sums.get(name, 0) + int(amount)
    return found


def _rows(
    cube: Cube, span: Span, measures: list[str], mask: Mask | None
) -> Iterator[tuple[Callable[[str], str | None], dict[str, float]]]:
    """For each attribute set with an amount in the span: its values by dimension, and the sums."""
    first = max(0, (span.start - cube.start) // DAY)
    end = max(first, (span.end - cube.start) // DAY)
    sums = {
        name: cube.amounts[name][:, first:end].sum(axis=1)
        for name in measures
        if name in cube.amounts
    }
    for index in range(cube.size):
        if mask is not None and not mask[index]:
            continue
        amounts = {name: float(sums[name][index]) if name in sums else 0.0 for name in measures}
        if not any(amounts.values()):
            continue

        def value(name: str, at: int = index) -> str | None:
            column = cube.columns[name]
            found: str | None = column.values[column.codes[at]]
            return found

        yield value, amounts


def _money(amount: float) -> Decimal:
    """A float of the cubes, which is exact to far below a cent."""
    return Decimal(repr(round(amount, 9)))


def card(report: Report) -> list[Any]:
    """Usage, price and mix of the change; no card if nothing can be compared or nothing changed."""
    found = changes(report)
    if found is None or report.compared is None:
        return []
    whole = summed(found, ())
    moved = summed(found, ["project", "key", "model", "charged"])
    moved = [change for change in moved if _is_seen(change)][:ROWS]
    if not moved:
        return []
    after, before = report.compared
    note = (
        f"{after.text}, against {before.text}. Usage: all had grown alike. Price: the same usage costs"
        " more. Mix: usage moved to other models, keys or projects. No usage reported: OpenAI"
        " bills it without reporting any."
    )
    rows = [_row(report, change, "All") for change in whole]
    rows += [_row(report, change, _label(report, change.cell)) for change in moved]
    head = html.Thead(html.Tr([html.Th("Where", className="name"), *_heads()]))
    table = html.Table([head, html.Tbody(rows)])
    scroll = html.Div(table, className="scroll")
    return [cards.card(_TITLE, [scroll], size="full", name="change", note=note)]


def _is_seen(change: Change) -> bool:
    reasons = (change.total, *(getattr(change, name) for name in _REASONS))
    return any(abs(amount) >= _LEAST_CHANGE for amount in reasons)


def _heads() -> list[Any]:
    return [html.Th(title) for title in (*_REASONS.values(), "Change")]


def _label(report: Report, cell: Cell) -> str:
    """The names of a cell."""
    label = report.data.label
    parts = [label("project", cell.project)]
    if cell.key is not None:
        parts.append(label("key", cell.key))
    parts.append(label("model", cell.model))
    if cell.charged:
        parts.append(cell.charged)
    return " · ".join(parts)


def _row(report: Report, change: Change, label: str) -> Any:
    """The reasons of a change, in money."""
    cells = [html.Td(label, className="name", title=label)]
    for amount in (*(getattr(change, name) for name in _REASONS), change.total):
        text = units.NONE
        if abs(amount) >= _LEAST_CHANGE:
            text = units.change(float(amount), report.data.currency)
        cells.append(number_cell(text, str(amount)))
    return html.Tr(cells)
