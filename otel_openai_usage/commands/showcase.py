"""What the demo shows: a simulated company's last months in a store, and the dashboard over it."""

from otel_openai_usage.composition.stores import open_writer
from otel_openai_usage.config import Location
from otel_openai_usage.domain.metered import METERED
from otel_openai_usage.domain.metered_cost import HourlyPrices
from otel_openai_usage.domain.model import Width, Window, floor
from otel_openai_usage.engine import recording
from otel_openai_usage.providers.openai.prices import Prices
from otel_openai_usage.simulator import customers, past
from otel_openai_usage.simulator.world import World
from otel_openai_usage.storage.ports import Writer


def fill(path: Location, world: World, organization: str, now: float, days: int = 90) -> None:
    """Keep the last days before today in a new store at `path`, events of today, too; counting
    begins with today. Raises StateError.
    """
    today = floor(int(now), Width.DAY)
    first_day = today - days * Width.DAY
    this_hour = floor(int(now), Width.HOUR)
    store = open_writer(path)
    try:
        past.fill(store, world, organization, first_day, today, Prices())
        store.set_limits(organization, past.limits(world))
        _meter(store, world, organization, first_day, this_hour, today)
    finally:
        store.close()


def _meter(
    store: Writer, world: World, organization: str, start: int, end: int, epoch: int
) -> None:
    source_state = store.source_state(organization, METERED, epoch, ())
    hours = {}
    for hour in range(start, end, Width.HOUR):
        window = Window(hour, hour + Width.HOUR)
        hours[hour] = customers.metered(world, window)
    recording.record_range(
        store,
        source_state,
        Window(start, end),
        Width.HOUR,
        hours,
        epoch,
        prices=HourlyPrices(Prices()),
    )
