"""Everything that is shown, gathered into one Snapshot."""

from collections.abc import Iterable, Mapping, Sequence

from otel_openai_usage.core.book import Book, Leaf, Status
from otel_openai_usage.core.daily import COUNTERS, Shown
from otel_openai_usage.core.gauges import (
    Table,
    daily_cost,
    days_shown,
    levels,
    of_day,
    spend_limits,
)
from otel_openai_usage.core.metered import COVERAGE, UNMETERED, Share, coverage
from otel_openai_usage.core.model import NO_NAMES, Limit, Names
from otel_openai_usage.core.shape import Attributes, Floor, Folded, Look, Shape
from otel_openai_usage.core.snapshot import Point, Snapshot


class Display:
    """The shape of the books, and the small tables beside it. `ids` are organization ids from the
    configuration.
    """

    def __init__(
        self,
        look: Look,
        folded: Iterable[Folded] = (),
        floors: Iterable[Floor] = (),
        *,
        cost_days: int = 2,
        ids: Mapping[str, str] | None = None,
    ) -> None:
        self.shape = Shape(look, folded, floors)
        self.names: dict[str, Names] = {}
        self.limits: dict[str, Sequence[Limit]] = {}
        self.shares: Sequence[Share] = ()
        self.statuses: list[Status] = []
        self.legacy: Shown | None = None
        self._books: list[Book] = []
        self._cost_days = cost_days
        self._ids = dict(ids or {})
        self._tables = {name: Table() for name in _TABLES}
        self._shown: dict[str, Sequence[Point]] = {}
        self._version = 0

    def load(
        self,
        books: Iterable[Book],
        names: Mapping[str, Names],
        now: float,
        mono: float | None = None,
    ) -> list[Folded]:
        """Begin anew with these books and names. What must be folded on the way is returned, to be
        kept first. `now` and `mono` as for Shape.
        """
        self._books = list(books)
        self.names = dict(names)
        return self.shape.load(self._books, self.names, now, mono)

    def took(
        self, book: Book, leaves: Iterable[Leaf], now: float, mono: float | None = None
    ) -> list[Folded]:
        """A reading made or moved these leaves."""
        return (
            [fold for leaf in leaves for fold in self.shape.add(book, leaf, now, mono)]
            if book.progress.complete
            else []
        )

    def named(
        self, organization: str, names: Names, now: float, mono: float | None = None
    ) -> tuple[list[Folded], list[Floor]]:
        """Names were read."""
        self.names[organization] = names
        return self.shape.renamed(self.names, now, mono)

    def snapshot(self, now: float, mono: float) -> Snapshot | None:
        """What is to be shown now; None if that is what already is. `mono` is a clock that never
        steps, in seconds.
        """
        points: dict[str, Sequence[Point]] = dict(self.shape.points(mono, self._version + 1))
        for name, rows in self._rows(int(now)).items():
            points[name] = self._tables[name].update(
                rows, self.legacy.day * _NANO if self.legacy and name in COUNTERS else 0
            )
        if points.keys() == self._shown.keys() and all(
            points[name] is self._shown[name] for name in points
        ):
            return None
        self._shown = points
        self._version = self._version + 1
        return Snapshot(self._version, int(now * 1_000_000_000), points)

    def _rows(self, now: int) -> dict[str, list[tuple[Attributes, int | float]]]:
        rows: dict[str, list[tuple[Attributes, int | float]]] = {name: [] for name in _TABLES}
        days = days_shown(now, self._cost_days)
        look = self.shape.look
        for book in self._books:
            names = self.names.get(book.organization, NO_NAMES)
            if book.days:
                shown = {day: book.days[day] for day in days if day in book.days}
                id_ = book.organization_id or self._ids.get(book.organization)
                rows["openai.api.daily_cost"] += daily_cost(book, shown, names, look, id_, now)
            if book.kind.level:
                rows[LEVEL] += levels(book, names, look, now)
        for organization, limits in self.limits.items():
            amounts, enforcing = spend_limits(
                organization, limits, self.names.get(organization, NO_NAMES), look
            )
            rows["openai.api.spend_limit"] += amounts
            rows["openai.api.spend_limit_enforcing"] += enforcing
        rows |= coverage(self.shares, look)
        self._add_statuses(rows)
        for instrument, pending in self.shape.restated_pending().items():
            rows[RESTATED] += [
                ({"instrument": instrument, **attributes}, float(value))
                for attributes, value in pending
            ]
        if self.legacy:
            rows |= of_day(self.legacy, look)
        return rows

    def _add_statuses(self, rows: dict[str, list[tuple[Attributes, int | float]]]) -> None:
        for status in (*(book.status for book in self._books), *self.statuses):
            who = self.shape.look.attributes(
                {"organization": status.organization, "source": status.source}
            )
            if status.up is not None:
                rows["openai.api.up"].append((who, int(status.up)))
                if status.source == "legacy":
                    rows[LEGACY_UP].append(({}, int(status.up)))
            if status.last_success:
                rows["openai.api.last_success"].append((who, float(status.last_success)))
            if status.newest_bucket:
                rows["openai.api.newest_bucket"].append((who, float(status.newest_bucket)))


_NANO = 1_000_000_000
LEGACY_UP = "chatgpt_api_usage.up"
RESTATED = "otel_openai_usage.restated_pending"
LEVEL = "openai.api.vector_store.usage"
_TABLES = (
    UNMETERED,
    COVERAGE,
    LEVEL,
    RESTATED,
    LEGACY_UP,
    *COUNTERS,
    "openai.api.daily_cost",
    "openai.api.spend_limit",
    "openai.api.spend_limit_enforcing",
    "openai.api.up",
    "openai.api.last_success",
    "openai.api.newest_bucket",
)
