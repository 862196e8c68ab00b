"""The simulated organization's past, put into a store as a finished backfill would: for the demo,
tests and benchmarks.
"""

from collections.abc import Sequence
from decimal import Decimal

from otel_openai_usage.domain.endpoints import ENDPOINTS, Endpoint
from otel_openai_usage.domain.model import Limit, Names, Width, Window
from otel_openai_usage.domain.pricing import PriceList
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.engine import recording
from otel_openai_usage.simulator.world import World
from otel_openai_usage.storage.ports import Writer

GROUP_BY = ("project_id", "user_id", "api_key_id", "model", "batch", "line_item")
COSTS_GROUP_BY = ("project_id", "line_item")


def fill(
    store: Writer,
    world: World,
    organization: str,
    start: int,
    end: int,
    prices: PriceList | None = None,
) -> list[SourceState]:
    """Store what was used and billed on the UTC days in [start, end), before a count that begins at
    `end`; and the names.

    `start` and `end` are UTC midnights, Unix seconds. Returns the source states in the order of
    `ENDPOINTS`.
    """
    store.set_names(organization, names(world))
    states = []
    for endpoint in ENDPOINTS.values():
        # A backfill reads no levels: they do not add up over the past.
        if endpoint.level:
            continue
        state = _fill(store, world, organization, endpoint, start, end, prices)
        states.append(state)
    return states


def _fill(
    store: Writer,
    world: World,
    organization: str,
    endpoint: Endpoint,
    start: int,
    end: int,
    prices: PriceList | None,
) -> SourceState:
    wanted = COSTS_GROUP_BY if endpoint.money else GROUP_BY
    grouping = endpoint.grouping(wanted)
    source_state = store.source_state(organization, endpoint, end, grouping)
    days = {}
    for day in range(start, end, Width.DAY):
        window = Window(day, day + Width.DAY)
        days[day] = world.totals(endpoint.name, window, grouping)
    window = Window(start, end)
    recording.record_range(store, source_state, window, Width.DAY, days, end, prices)
    return source_state


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
    # The organization's own limit has no project.
    cents: list[tuple[str | None, int | None]] = [(None, company.limit_cents)]
    cents += [(project.id, project.limit_cents) for project in company.projects]
    found = []
    for project_id, amount in cents:
        if amount is None:
            continue
        dollars = Decimal(amount) / 100
        found.append(Limit(project_id, dollars, "usd", enforcing=False))
    return found
