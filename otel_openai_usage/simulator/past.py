"""The simulated organization's past, put into a store as a finished backfill would: for the demo,
tests and benchmarks.
"""

from collections.abc import Sequence
from decimal import Decimal

from otel_openai_usage.core import ledger
from otel_openai_usage.core.book import Book, Commit, accept, leaves_after
from otel_openai_usage.core.estimate import Estimate, PriceBook, estimate
from otel_openai_usage.core.kinds import KINDS, Kind
from otel_openai_usage.core.model import Limit, Names, Width, Window
from otel_openai_usage.core.ports import Store
from otel_openai_usage.simulator.world import World

GROUP_BY = ("project_id", "user_id", "api_key_id", "model", "batch", "line_item")
COSTS_GROUP_BY = ("project_id", "line_item")


def fill(
    store: Store,
    world: World,
    organization: str,
    start: int,
    end: int,
    prices: PriceBook | None = None,
) -> list[Book]:
    """Keep what was used and billed on the UTC days in [start, end), before a count that begins at
    `end`; and the names.

    `start` and `end` are UTC midnights, Unix seconds. The books, by the order of `KINDS`.
    """
    store.keep_names(organization, names(world))
    return [
        _fill(store, world, organization, kind, start, end, prices)
        for kind in KINDS.values()
        if not kind.level
    ]


def _fill(
    store: Store,
    world: World,
    organization: str,
    kind: Kind,
    start: int,
    end: int,
    prices: PriceBook | None,
) -> Book:
    grouping = kind.grouping(COSTS_GROUP_BY if kind.name == "costs" else GROUP_BY)
    book = store.book(organization, kind, end, grouping)
    days = {
        day: world.totals(kind.name, Window(day, day + Width.DAY), grouping)
        for day in range(start, end, Width.DAY)
    }
    change = ledger.replace(Width.DAY, days, (), end, kind.zero)
    new, moved = leaves_after(book, change, end)
    found = (
        estimate(kind, organization, change.moves, prices)
        if prices and kind.name != "costs"
        else Estimate()
    )
    store.commit(book, Commit(book.progress, change, new, moved, estimates=found.days))
    accept(book, new, moved)
    return book


def names(world: World) -> Names:
    """What everything is called; a deleted key is in no list."""
    company = world.company
    return Names(
        {project.id: project.name for project in company.projects},
        {key.id: key.name for key in company.keys if not key.deleted},
        {person.id: person.name for person in company.people},
    )


def limits(world: World) -> Sequence[Limit]:
    """The monthly spend limits, as OpenAI would say them."""
    company = world.company
    cents = [
        (None, company.limit_cents),
        *((project.id, project.limit_cents) for project in company.projects),
    ]
    return [
        Limit(project, Decimal(amount) / 100, "usd", enforcing=False)
        for project, amount in cents
        if amount is not None
    ]
