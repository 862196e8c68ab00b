"""What the demo shows: a simulated company's last months in a store, and the dashboard over it."""

from pathlib import Path

from otel_openai_usage.core.model import Width, floor
from otel_openai_usage.pricing import Prices
from otel_openai_usage.simulator import past
from otel_openai_usage.simulator.world import World
from otel_openai_usage.state.sqlite import Store


def fill(path: Path, world: World, organization: str, now: float, days: int = 90) -> None:
    """Keep the last days before today in a new store at `path`; counting begins with today. Raises StateError."""
    today = floor(int(now), Width.DAY)
    store = Store(path)
    try:
        past.fill(store, world, organization, today - days * Width.DAY, today, Prices())
        store.keep_limits(organization, past.limits(world))
    finally:
        store.close()
