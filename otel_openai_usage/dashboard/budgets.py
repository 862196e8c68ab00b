"""The budgets of an organization: what is spent, what the period will have cost, when it is reached."""

from collections.abc import Sequence
from typing import Any

from dash import html

from otel_openai_usage.dashboard import cards, units
from otel_openai_usage.domain.budgets import BudgetState


def card(states: Sequence[BudgetState], now: float) -> Any:
    """A table of the budgets, the most used ones first."""
    ordered = sorted(states, key=lambda state: state.used or 0, reverse=True)
    heads = ("Budget", "Period", "Amount", "Spent", "Used", "Forecast", "Reached")
    head = html.Thead(html.Tr([html.Th(text, scope="col") for text in heads]))
    rows = [_row(state, now) for state in ordered]
    caption = html.Caption("Budgets and OpenAI's spend limits", className="unseen")
    table = html.Table([caption, head, html.Tbody(rows)])
    note = "Spent counts the bill, and the estimate of days that OpenAI has not billed yet."
    return cards.card("Budgets", [table], size="full", note=note, name="budgets")


def _row(state: BudgetState, now: float) -> Any:
    budget = state.budget
    spent = None if state.spent is None else float(state.spent)
    expected = state.forecast.median if state.forecast else None
    used = None if state.used is None else float(state.used)
    used_text = "some days are still to be read" if used is None else units.percent(used)
    cells = [
        budget.period,
        units.money(float(budget.amount), budget.currency),
        units.money(spent, budget.currency),
        used_text,
        units.money(expected, budget.currency),
        _reached(state, now),
    ]
    kind = "over" if used is not None and used >= 1 else ""
    name = html.Th(budget.name, scope="row")
    return html.Tr([name, *[html.Td(cell) for cell in cells]], className=kind)


def _reached(state: BudgetState, now: float) -> str:
    """When the budget is used up at the forecast's pace."""
    if state.spent is None:
        return units.NONE
    amount = float(state.budget.amount)
    spent = float(state.spent)
    if spent >= amount:
        return "reached"
    if state.forecast is None:
        return units.NONE
    rest = state.forecast.median - spent
    if state.forecast.median < amount or rest <= 0:
        return "not in this period"
    when = now + (amount - spent) / rest * (state.window.end - now)
    return f"about {units.day(when)}"
