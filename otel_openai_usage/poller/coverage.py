"""Who used the rest? What the organization used today beside what events explain of it."""

from typing import Protocol

from otel_openai_usage.core.metered import Share
from otel_openai_usage.core.model import Width, floor
from otel_openai_usage.poller.keeper import Keeper


class Shares(Protocol):
    """A store that can compare."""

    def shares(self, day: int) -> list[Share]: ...


class CoveragePoll:
    """Compares the current UTC day's usage with its events, by model. Raises StateError."""

    def __init__(self, keeper: Keeper, store: Shares) -> None:
        self._keeper = keeper
        self._store = store

    async def poll(self) -> None:
        """Compare once."""
        await self._keeper.do(self._compare)

    def _compare(self) -> None:
        today = floor(int(self._keeper.latest()), Width.DAY)
        self._keeper.display.shares = self._store.shares(today)
