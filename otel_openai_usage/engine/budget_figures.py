"""Keeps budgets and balances up to date, as `cost_figures` does for the month."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from otel_openai_usage.domain.budgets import (
    Balance,
    Basis,
    Budget,
    BudgetState,
    CostLine,
    Credit,
    balance,
    basis_of,
    of_limit,
    period,
    spent_by_day,
    state_of,
    with_names,
)
from otel_openai_usage.domain.model import Names, Width, floor
from otel_openai_usage.domain.month_costs import ESTIMATED_FOR
from otel_openai_usage.domain.ownership import BUDGETS_SCOPE, organization_scope
from otel_openai_usage.engine.cost_figures import INTERVAL, PAUSE_FACTOR, CostFigures
from otel_openai_usage.engine.recorder import Recorder
from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.ports import Writer

log = logging.getLogger(__name__)

_LEARNS_FROM = 60 * int(Width.DAY)
"""Seconds before a period of which the forecast learns."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is configured. `bills` says whether costs are read, `bills_keys` whether by API key."""

    organizations: Sequence[str]
    budgets: Sequence[Budget]
    credits: Sequence[Credit]
    bills: bool
    bills_keys: bool


class BudgetFigures:
    """All budgets, OpenAI's spend limits included, and the balance of each organization.

    `changed` is called with the states of all budgets each time that they were computed. `owns`
    says which scopes this process shows.
    """

    def __init__(
        self,
        recorder: Recorder,
        store: Writer,
        plan: Plan,
        costs: CostFigures,
        changed: Callable[[Sequence[BudgetState]], None],
        *,
        owns: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._recorder = recorder
        self._store = store
        self._plan = plan
        self._costs = costs
        self._changed = changed
        self._owns = owns
        self._next = float("-inf")
        self._day = -1

    def reset(self) -> None:
        """Compute the figures again before the next snapshot."""
        self._next = float("-inf")

    def refresh(self, now: float, mono: float) -> None:
        """Compute the figures again if it is time. In the recorder's thread."""
        day = floor(int(now), Width.DAY)
        if mono < self._next and day == self._day:
            return
        began = time.perf_counter()
        try:
            states = [self._state(budget, now) for budget in self._budgets()]
            balances = list(self._balances(now))
        except StateError as error:
            # The last figures stay; the next round tries again.
            log.debug(
                "the budgets were not computed",
                extra={"event": "budgets_failed", "error": str(error)},
            )
            return
        self._recorder.snapshot_builder.apply_budgets(states, balances)
        self._changed(states)
        self._day = day
        self._next = mono + max(INTERVAL, PAUSE_FACTOR * (time.perf_counter() - began))

    def _budgets(self) -> Iterable[Budget]:
        for budget in self._plan.budgets:
            if self._is_own(budget.organization):
                yield budget
        builder = self._recorder.snapshot_builder
        for organization in self._plan.organizations:
            names = builder.names_of(organization)
            for limit in builder.limits_of(organization) or ():
                if limit.amount > 0:
                    yield of_limit(organization, limit, names)

    def _is_own(self, organization: str | None) -> bool:
        if organization is None:
            return self._owns(BUDGETS_SCOPE)
        return self._owns(organization_scope(organization))

    def _names(self, organization: str) -> Names:
        if self._owns(organization_scope(organization)):
            return self._recorder.snapshot_builder.names_of(organization)
        return self._store.names(organization)

    def _state(self, budget: Budget, now: float) -> BudgetState:
        basis = basis_of(budget, bills=self._plan.bills, bills_keys=self._plan.bills_keys)
        window = period(budget.period, now)
        end = floor(int(now), Width.DAY) + Width.DAY
        billed: list[CostLine] = []
        estimated: list[CostLine] = []
        unread: set[int] = set()
        for organization in self._organizations(budget):
            lines = self._lines(organization, budget, basis, window.start - _LEARNS_FROM, end)
            names = self._names(organization)
            billed += with_names(lines[0], names)
            estimated += with_names(lines[1], names)
            bills = basis == "billed"
            unread |= self._costs.unread(organization, window.start, end, bills=bills)
        return state_of(budget, basis, billed, estimated, now, unread.__contains__)

    def _organizations(self, budget: Budget) -> Sequence[str]:
        if budget.organization is not None:
            return [budget.organization]
        return self._plan.organizations

    def _lines(
        self, organization: str, budget: Budget, basis: Basis, start: int, end: int
    ) -> tuple[list[CostLine], list[CostLine]]:
        by = {name.replace("_name", "_id") for name in budget.match}
        estimated_from = start
        if basis == "billed":
            estimated_from = end - ESTIMATED_FOR - 2 * Width.DAY
        return self._store.cost_lines(organization, start, end, estimated_from, sorted(by))

    def _balances(self, now: float) -> Iterable[Balance]:
        end = floor(int(now), Width.DAY) + Width.DAY
        groups: dict[tuple[str, str], list[Credit]] = {}
        for credit in self._plan.credits:
            groups.setdefault((credit.organization, credit.currency), []).append(credit)
        for (organization, currency), bought in groups.items():
            if not self._is_own(organization):
                continue
            start = min(credit.date for credit in bought)
            if start >= end or self._costs.unread(organization, start, end, bills=self._plan.bills):
                continue
            everything = Budget("", bought[0].amount, currency)
            basis = basis_of(everything, bills=self._plan.bills, bills_keys=False)
            lines = self._lines(organization, everything, basis, start, end)
            spent = spent_by_day(everything, basis, *lines, now)
            found = balance(bought, spent, now)
            if found is not None:
                yield found
