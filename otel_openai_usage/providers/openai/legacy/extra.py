"""The legacy usage endpoint as an extra source. Its rows belong to the first organization."""

import logging
import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import partial
from urllib.parse import quote

from otel_openai_usage.config import Settings
from otel_openai_usage.domain.endpoints import LEGACY
from otel_openai_usage.domain.identity import mark
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.engine.failure_log import FailureLog
from otel_openai_usage.engine.loop import Loop
from otel_openai_usage.providers.extra import BackfillRun, Run
from otel_openai_usage.providers.openai.legacy import backfill
from otel_openai_usage.providers.openai.legacy.owner import LegacyOwner
from otel_openai_usage.providers.openai.legacy.poll import LegacyPoll, Pace
from otel_openai_usage.providers.openai.legacy.source import LegacySource, legacy_client
from otel_openai_usage.storage.ports import Writer

log = logging.getLogger(__name__)


class LegacyUsage:
    """Implements ExtraSource."""

    name = "legacy"
    warning = "reads an endpoint that OpenAI does not document; it may change or end at any time"

    def is_enabled(self, settings: Settings) -> bool:
        """Whether the settings ask for this source."""
        return settings.reads_legacy

    def source_state(self, settings: Settings, store: Writer) -> SourceState:
        """The state of this source. Raises StateError."""
        return store.source_state(settings.organizations[0].name, LEGACY, 0, ())

    def open(
        self, settings: Settings, run: Run
    ) -> tuple[AbstractAsyncContextManager[object], Loop]:
        """The client, to be entered, and the loop that polls. Raises StateError."""
        first = settings.organizations[0]
        client = legacy_client(
            settings,
            partial(run.telemetry.request, first.name),
            budget=run.budget,
            odd=partial(run.telemetry.odd_values, first.name),
        )
        pace = Pace(
            run.store, settings.legacy.requests_per_minute, run.recorder.clock, run.recorder.do
        )
        source = LegacySource(client, pace.turn, settings.legacy.user_public_ids, first.id)
        source_state = self.source_state(settings, run.store)
        zero_hold = settings.attributes.zero_hold.total_seconds()
        poll = LegacyPoll(
            run.recorder,
            run.store,
            source,
            source_state,
            run.telemetry,
            # With `run --once`, a new series has its value in the next run.
            hold=math.inf if run.once else zero_hold,
            prices=run.prices,
        )
        poll.admit = _owner(settings, run.store, source_state).admit
        run.telemetry.expect(first.name, [self.name])
        loop = Loop(
            self.name,
            settings.legacy.interval.total_seconds(),
            poll.poll,
            run.recorder,
            poll.status,
            FailureLog(first.name),
        )
        poll.answered = loop.answered
        return client, loop

    async def probe(self, settings: Settings) -> str:
        """Ask the endpoint once, as a poll would. Return its path. Raises SourceError."""
        users = settings.legacy.user_public_ids
        path = "usage"
        params = [("date", datetime.now(UTC).date().isoformat())]
        if users == ("*",):
            organization_id = settings.organizations[0].id or ""
            path = f"organizations/{quote(organization_id, safe='')}/users"
            params = []
        elif users:
            params.append(("user_public_id", users[0]))
        async with legacy_client(settings) as client:
            await client.get(path, params, endpoint=path)
        return path

    async def backfill(self, settings: Settings, run: BackfillRun) -> int:
        """Read past days. Return the number of rows. Raises SourceError or StateError."""
        first = settings.organizations[0]
        source_state = self.source_state(settings, run.store)
        wanted = backfill.days(run.start, run.end, run.store.backfilled(source_state))
        report = _counter(run, f"{first.name} {self.name}", len(wanted))

        async def do(work: Callable[[], float]) -> float:
            # A backfill has one thread, which may use the state.
            return work()

        pace = Pace(run.store, settings.legacy.requests_per_minute, run.clock, do)
        async with legacy_client(settings) as client:
            source = LegacySource(client, pace.turn, settings.legacy.user_public_ids, first.id)
            return await backfill.read(
                run.store,
                source_state,
                source,
                wanted,
                run.now,
                report,
                run.prices,
                run.clock.sleep,
                _owner(settings, run.store, source_state).admit,
            )


def _counter(run: BackfillRun, name: str, total: int) -> Callable[[int], None]:
    """Report that no call was made yet. Return a function that reports one call more."""
    made = 0
    run.report(name, 0, total)

    def report(_: int) -> None:
        nonlocal made
        made += 1
        run.report(name, made, total)

    return report


def _owner(settings: Settings, store: Writer, source_state: SourceState) -> LegacyOwner:
    """Refuses records of another organization than the state's."""
    secret = ""
    if settings.legacy.api_key:
        secret = settings.legacy.api_key.get_secret_value()
    base_url = str(settings.legacy.base_url or settings.organizations[0].base_url)
    return LegacyOwner(store, source_state, mark(store.instance_id, base_url, secret))
