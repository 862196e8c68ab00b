"""Reads the budgets of an organization from the store."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from otel_openai_usage.dashboard.cube import DAY
from otel_openai_usage.domain.budgets import (
    Budget,
    BudgetState,
    CostLine,
    basis_of,
    of_limit,
    period,
    state_of,
    with_names,
)
from otel_openai_usage.domain.model import Limit, Names, floor
from otel_openai_usage.domain.month_costs import ESTIMATED_FOR
from otel_openai_usage.storage.ports import Queries

_LEARNS_FROM = 60 * DAY
"""Seconds before a period of which the forecast learns."""


@dataclass(frozen=True, slots=True)
class BudgetPlan:
    """The configured budgets. `bills` says whether costs are read, `bills_keys` whether by API key."""

    budgets: Sequence[Budget] = ()
    organizations: Sequence[str] = ()
    bills: bool = True
    bills_keys: bool = False


NO_BUDGETS = BudgetPlan()


@dataclass(frozen=True, slots=True)
class _Reader:
    queries: Queries
    plan: BudgetPlan
    now: float
    first: int | None
    names: dict[str, Names] = field(default_factory=dict)

    def state(self, budget: Budget, organizations: Iterable[str]) -> BudgetState:
        basis = basis_of(budget, bills=self.plan.bills, bills_keys=self.plan.bills_keys)
        window = period(budget.period, self.now)
        end = floor(int(self.now), DAY) + DAY
        start = window.start - _LEARNS_FROM
        new_days = end - ESTIMATED_FOR - 2 * DAY
        estimated_from = new_days if basis == "billed" else start
        by = sorted({name.replace("_name", "_id") for name in budget.match})
        billed: list[CostLine] = []
        estimated: list[CostLine] = []
        for organization in organizations:
            lines = self.queries.cost_lines(organization, start, end, estimated_from, by)
            names = self.names.setdefault(organization, self.queries.names(organization))
            billed += with_names(lines[0], names)
            estimated += with_names(lines[1], names)
        known_from = end if self.first is None else self.first
        return state_of(budget, basis, billed, estimated, self.now, lambda day: day < known_from)


def read(
    queries: Queries,
    organization: str,
    limits: Iterable[Limit],
    plan: BudgetPlan,
    now: float,
    first: int | None,
) -> list[BudgetState]:
    """The states of the budgets that are about an organization, OpenAI's limits last.

    Days before `first` are not in the store. Raises StateError.
    """
    reader = _Reader(queries, plan, now, first)
    found = []
    for budget in plan.budgets:
        if budget.organization not in (None, organization):
            continue
        about = [budget.organization] if budget.organization else plan.organizations
        found.append(reader.state(budget, about or [organization]))
    names = queries.names(organization)
    of_openai = [of_limit(organization, limit, names) for limit in limits if limit.amount > 0]
    return found + [reader.state(budget, [organization]) for budget in of_openai]
