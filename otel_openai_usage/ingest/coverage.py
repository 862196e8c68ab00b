"""Compares today's usage as OpenAI reports it with the usage that events report."""

from collections.abc import Sequence

from otel_openai_usage.domain.metered import Share
from otel_openai_usage.domain.model import Width, floor
from otel_openai_usage.engine.recorder import Recorder
from otel_openai_usage.storage.ports import Writer


class CoveragePoll:
    """Compares the usage of the current UTC day with its events, by model."""

    def __init__(self, recorder: Recorder, store: Writer) -> None:
        self._recorder = recorder
        self._store = store

    async def poll(self) -> None:
        """Compare once. Raises StateError."""
        await self._recorder.do(self._compare)

    def _compare(self) -> None:
        today = floor(int(self._recorder.latest()), Width.DAY)
        shares: Sequence[Share] = self._store.shares(today)
        if self._store.shared is not None:
            owned = {source.organization for source in self._recorder.source_states}
            shares = [share for share in shares if share.organization in owned]
        self._recorder.snapshot_builder.apply_shares(shares)
