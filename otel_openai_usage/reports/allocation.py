"""Divides stored bills among customers, day by day, by what is stored of that day.

Nothing of it is stored: a bill that changes is allocated again by the next report.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property

from otel_openai_usage.domain.allocation import SHARED, Day, Metered, Part, Shares, Use, divided
from otel_openai_usage.domain.endpoints import USAGE_ENDPOINTS
from otel_openai_usage.domain.metered import METERED
from otel_openai_usage.domain.model import Width
from otel_openai_usage.storage.ports import Queries
from otel_openai_usage.storage.results import UsageRow

_BY = ("organization", "project_id", "model", "batch", "service_tier")
_TOKENS = tuple(
    measure.name
    for measure in USAGE_ENDPOINTS["completions"].measures
    if measure.token_type is not None
)


@dataclass(frozen=True, slots=True)
class Allocated:
    """A row of the bill in parts. `quantities` has the quantity of each part, by customer."""

    parts: list[Part]
    quantities: Mapping[str, Decimal]
    is_shared: bool

    def renamed(self, name: Callable[[str], str]) -> "Allocated":
        """The same with other names of the customers."""
        parts = [part._replace(customer=name(part.customer)) for part in self.parts]
        quantities = {name(customer): amount for customer, amount in self.quantities.items()}
        return Allocated(parts, quantities, self.is_shared)


@dataclass
class Allocation:
    """The allocation of one UTC day that begins at `start`. Its methods raise StateError.

    An organization for which no exporter ever took events has no allocation.
    """

    history: Queries
    start: int
    _days: dict[str, Day] = field(default_factory=dict)

    def of(
        self,
        organization: str,
        project: str | None,
        line_item: str | None,
        cost: Decimal,
        quantity: Decimal | None = None,
    ) -> Allocated | None:
        """The parts of one row of the bill; None if the organization has no allocation."""
        if organization not in self._metering:
            return None
        shares = self._shares(organization, project, line_item)
        quantities = {}
        if quantity is not None:
            quantities = {part.customer: part.amount for part in divided(quantity, shares)}
        return Allocated(divided(cost, shares), quantities, shares.rest == SHARED)

    def _shares(self, organization: str, project: str | None, line_item: str | None) -> Shares:
        if organization not in self._days:
            self._days[organization] = Day(
                self._uses.get(organization, ()), self._metered(organization)
            )
        return self._days[organization].shares(project, line_item)

    @cached_property
    def _metering(self) -> frozenset[str]:
        """The organizations for which events were ever taken."""
        return frozenset(
            source.organization for source in self.history.sources() if source.endpoint is METERED
        )

    @cached_property
    def _uses(self) -> Mapping[str, list[Use]]:
        """OpenAI's tokens of the day by organization."""
        found: dict[str, list[Use]] = {}
        for row in self.history.usage(self.start, self.start + Width.DAY, by=_BY):
            organization, project, model, batch, tier = row.group
            use = Use(project, model, tier_of(batch, tier), _tokens(row))
            found.setdefault(organization or "", []).append(use)
        return found

    def _metered(self, organization: str) -> Iterator[Metered]:
        """The customers' tokens of the day."""
        for dims, inputs, outputs, cached in self.history.metered_tokens(organization, self.start):
            tokens = {"input": inputs, "output": outputs, "input_cached": cached}
            tier = tier_of(dims.get("batch"), dims.get("service_tier"))
            yield Metered(
                dims.get("subject", ""), dims.get("project_id"), dims.get("model"), tier, tokens
            )


def tier_of(batch: str | None, service_tier: str | None) -> str | None:
    """The tier of usage; None if neither is known."""
    if batch == "true":
        return "batch"
    if service_tier is not None:
        return service_tier
    return None if batch is None else "standard"


def _tokens(row: UsageRow) -> Mapping[str, int]:
    return {name: getattr(row, name) for name in _TOKENS}
