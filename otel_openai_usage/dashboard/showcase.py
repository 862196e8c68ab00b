"""What the demo shows: a simulated company's last months in a store, and the dashboard over it."""

from pathlib import Path

from otel_openai_usage.core.book import Commit, leaves_after
from otel_openai_usage.core.ledger import replace
from otel_openai_usage.core.metered import METERED
from otel_openai_usage.core.model import Width, Window, floor
from otel_openai_usage.pricing import Prices
from otel_openai_usage.simulator import customers, past
from otel_openai_usage.simulator.world import World
from otel_openai_usage.state.sqlite import Store


def fill(path: Path, world: World, organization: str, now: float, days: int = 90) -> None:
    """Keep the last days before today in a new store at `path`, events of today, too; counting
    begins with today. Raises StateError.
    """
    today = floor(int(now), Width.DAY)
    store = Store(path)
    try:
        past.fill(store, world, organization, today - days * Width.DAY, today, Prices())
        store.keep_limits(organization, past.limits(world))
        _meter(
            store, world, organization, today - days * Width.DAY, floor(int(now), Width.HOUR), today
        )
    finally:
        store.close()


def _meter(store: Store, world: World, organization: str, start: int, end: int, epoch: int) -> None:
    book = store.book(organization, METERED, epoch, ())
    hours = {
        hour: customers.metered(world, Window(hour, hour + Width.HOUR))
        for hour in range(start, end, Width.HOUR)
    }
    change = replace(Width.HOUR, hours, (), epoch, METERED.zero)
    store.commit(book, Commit(book.progress, change, *leaves_after(book, change, epoch)))
