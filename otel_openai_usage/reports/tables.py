"""What table formats have in common: the store that they read, and cells as text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias

from otel_openai_usage.domain.endpoints import LEGACY
from otel_openai_usage.domain.model import Names, utc
from otel_openai_usage.domain.pseudonyms import NO_PSEUDONYMS, Pseudonyms
from otel_openai_usage.domain.spreadsheet import row, safe, safe_json

if TYPE_CHECKING:
    from otel_openai_usage.reports.allocation import Allocated, Allocation
    from otel_openai_usage.storage.ports import Queries

By: TypeAlias = Literal["day", "hour"]
Cell: TypeAlias = str | int | Decimal | Mapping[str, str] | None
Line: TypeAlias = Mapping[str, Cell]
"""Cells by column. A column without a cell is empty."""
Dimensions: TypeAlias = dict[str, str | None]


@dataclass(eq=False)
class Export:
    """One export: the store, how much time a line covers, and what is looked up only once."""

    history: "Queries"
    by: By
    configured_ids: Mapping[str, str]
    """OpenAI's ids of organizations by name, where the configuration has them."""
    allocates: bool = True
    """Whether bills are divided among customers."""
    pseudonyms: Pseudonyms = NO_PSEUDONYMS
    """Which values are hashed."""
    _allocation: "Allocation | None" = None
    _names: dict[str, Names] = field(default_factory=dict)

    def dimensions(self, columns: Sequence[str], group: Sequence[str | None]) -> Dimensions:
        """The values of a group by column, and the names of its project, API key and user.

        Raises StateError.
        """
        dimensions: Dimensions = dict(zip(columns, group, strict=True))
        names = self._names_of(dimensions["organization"] or "")
        dimensions["project_name"] = names.projects.get(dimensions.get("project_id") or "")
        dimensions["api_key_name"] = names.api_keys.get(dimensions.get("api_key_id") or "")
        dimensions["user_name"] = names.users.get(dimensions.get("user_id") or "")
        return self._hashed(dimensions)

    def _hashed(self, dimensions: Dimensions) -> Dimensions:
        """The same, as the configuration shows it."""
        pseudonyms = self.pseudonyms
        if not pseudonyms.hashed:
            return dimensions
        found: Dimensions = {}
        for name, value in dimensions.items():
            if value is not None and not pseudonyms.hides(name):
                found[name] = pseudonyms.of(name, value)
            else:
                found[name] = None
        return found

    def allocated(
        self,
        day_start: int,
        group: Sequence[str | None],
        cost: Decimal,
        quantity: Decimal | None = None,
    ) -> "Allocated | None":
        """A row of a day's bill in parts; None if it is not to be divided. Raises StateError.

        `group` has the values of `COST_DIMENSIONS`.
        """
        from otel_openai_usage.reports.allocation import Allocation

        if not self.allocates:
            return None
        if self._allocation is None or self._allocation.start != day_start:
            self._allocation = Allocation(self.history, day_start)
        organization, project, line_item, *_ = group
        found = self._allocation.of(organization or "", project, line_item, cost, quantity)
        return None if found is None else found.renamed(self._customer)

    def _customer(self, customer: str) -> str:
        return self.pseudonyms.of("subject", customer)

    def _names_of(self, organization: str) -> Names:
        if organization not in self._names:
            self._names[organization] = self.history.names(organization)
        return self._names[organization]

    @cached_property
    def organization_ids(self) -> dict[str, str]:
        """OpenAI's ids of organizations by name: as OpenAI reported them, else as configured.

        Raises StateError.
        """
        ids = dict(self.configured_ids)
        for source in self.history.sources():
            if source.organization_id and source.endpoint is not LEGACY:
                ids[source.organization] = source.organization_id
        return ids

    @cached_property
    def quantity_units(self) -> dict[tuple[str, str], set[str]]:
        """OpenAI's units of quantities, by organization and line item. Raises StateError."""
        return self.history.quantity_units()

    def quantity_unit(self, dimensions: Dimensions) -> str | None:
        """OpenAI's unit of the quantity of a row of costs, None if it is not known.

        Raises LookupError if the line item was counted in several units, so that nobody knows.
        Raises StateError.
        """
        key = (dimensions["organization"] or "", dimensions["line_item"] or "")
        units = self.quantity_units.get(key, set())
        if len(units) > 1:
            raise LookupError(f"{key[1]} is counted in {', '.join(sorted(units))}")
        return next(iter(units), None)


def instant(unix: int) -> str:
    """A time in ISO 8601 and UTC, to the second."""
    return f"{utc(unix):%Y-%m-%dT%H:%M:%SZ}"


def json_line(columns: Sequence[str], line: Line) -> str:
    """A line as a JSON object. Money is text: a JSON number would be read as a float."""
    cells: dict[str, Cell] = {}
    for name in columns:
        cell = line.get(name)
        cells[name] = format(cell, "f") if isinstance(cell, Decimal) else cell
    return json.dumps(cells, ensure_ascii=False) + "\n"


def csv_line(columns: Sequence[str], line: Line) -> str:
    """A line as CSV, safe to open in a spreadsheet."""
    return csv_row([_csv_text(line.get(name)) for name in columns])


def csv_row(texts: Sequence[str]) -> str:
    """Texts as a line of CSV."""
    return row(texts, "\n")


def _csv_text(cell: Cell) -> str:
    """A cell as text that no spreadsheet runs as a formula."""
    if cell is None:
        return ""
    if isinstance(cell, Decimal):
        # Never an exponent. A minus sign needs no apostrophe: a number is no formula.
        return format(cell, "f")
    if isinstance(cell, Mapping):
        return safe_json(cell)
    if isinstance(cell, str):
        return safe(cell)
    return str(cell)
