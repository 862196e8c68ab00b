"""Records the events of many requests together, in few transactions."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, Protocol, TypeAlias

from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.metered import METERED, Event, metered
from otel_openai_usage.domain.pricing import PriceList
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.engine import polling, recording
from otel_openai_usage.engine.recorder import Recorder
from otel_openai_usage.engine.recording import RecordedEvents
from otel_openai_usage.errors import Busy
from otel_openai_usage.storage.ports import Writer

MAX_WAITING = 20_000
"""Events that may wait for the disk. Further requests are refused with Busy."""
MAX_PER_COMMIT = 5_000
"""Events of one transaction at most, so that polls get their turn between two."""
PARTS = 256
"""In how many parts old identities are purged, all in a day, so that no transaction is long."""
_DAY = 86400

_Request: TypeAlias = tuple[Sequence[Event], asyncio.Future[None]]
"""The events of one request, and a future that is done when they are stored."""


def metered_sources(
    store: Writer, organizations: Iterable[str], attributes: Iterable[str], now: int
) -> dict[str, SourceState]:
    """The sources of metered events by organization, all of one endpoint. New ones count from now.

    Raises StateError.
    """
    endpoint = metered_endpoint(store, attributes)
    source_states = {
        name: store.source_state(name, endpoint, now, endpoint.group_by) for name in organizations
    }
    for source_state in source_states.values():
        if not source_state.progress.complete:
            # No event was counted before and nothing polls this source, so every series begins at
            # 0.
            progress = replace(source_state.progress, complete=True)
            polling.write_progress(store, source_state, progress, now)
    return source_states


def metered_endpoint(store: Writer, attributes: Iterable[str]) -> Endpoint:
    """The endpoint with the attributes of recorded events and those of the configuration.

    Raises StateError.
    """
    return metered(dict.fromkeys([*store.event_attributes(), *attributes]))


class Counts(Protocol):
    """Counts events by outcome."""

    def event(
        self, outcome: Literal["accepted", "duplicate", "conflicting", "refused"], count: int = 1
    ) -> None: ...


class Intake:
    """Records events. `source_states` has one source per organization; it is empty where several
    replicas share the state, and `endpoint` says what is stored.

    An event whose identity was seen less than `dedupe` seconds ago is a duplicate.
    """

    def __init__(
        self,
        recorder: Recorder,
        store: Writer,
        source_states: Mapping[str, SourceState],
        counts: Counts,
        *,
        dedupe: int,
        prices: PriceList | None = None,
        endpoint: Endpoint = METERED,
        organizations: Sequence[str] = (),
    ) -> None:
        self._prices = prices
        self._endpoint = endpoint
        self._organizations = organizations
        self._recorder = recorder
        self._store = store
        self._source_states = source_states
        self._counts = counts
        self._dedupe = dedupe
        self._waiting: list[_Request] = []
        self._waiting_events = 0
        self._worker: asyncio.Task[None] | None = None
        self._next_part = 0
        self._purged_at = recorder.clock.mono()

    async def take(self, events: Sequence[Event]) -> None:
        """Return when all events are stored. Raises Busy or StateError; no event is stored then."""
        if not events:
            return
        waiting = self._waiting_events
        if waiting and waiting + len(events) > MAX_WAITING:
            raise Busy(f"{waiting} events wait for the disk; send this again in a second")
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((events, future))
        self._waiting_events += len(events)
        if self._worker is None:
            self._worker = asyncio.create_task(self._record_all())
        await future

    async def _record_all(self) -> None:
        try:
            while self._waiting:
                await self._record_some()
        finally:
            self._worker = None

    async def _record_some(self) -> None:
        requests = self._next_requests()
        events = [event for some, _ in requests for event in some]
        error: BaseException | None = None
        try:
            recorded = await self._recorder.do(lambda: self._record(events))
            self._report(recorded)
        except Exception as failure:  # noqa: BLE001 - a bug must not strand the requests that wait
            error = failure
        except BaseException as cancelled:
            error = cancelled
            raise
        finally:
            # Whatever happened, no request may wait forever.
            self._waiting_events -= len(events)
            for _, future in requests:
                if future.done():
                    continue
                if error:
                    future.set_exception(error)
                else:
                    future.set_result(None)

    def _next_requests(self) -> list[_Request]:
        """Take the requests of the next transaction: as many as fit, but at least one."""
        events = 0
        requests = 0
        for some, _ in self._waiting:
            events += len(some)
            if requests and events > MAX_PER_COMMIT:
                break
            requests += 1
        taken = self._waiting[:requests]
        self._waiting = self._waiting[requests:]
        return taken

    def _record(self, events: Sequence[Event]) -> RecordedEvents:
        clock = self._recorder.clock
        recorder = self._recorder
        # If a wrong clock purged identities too early, repeated events would be counted twice.
        now = int(recorder.stamp())
        if self._prices:
            self._prices.refresh(clock.now())
        since = int(recorder.earliest()) - self._dedupe
        until = int(recorder.latest())
        shared = self._store.shared
        if shared is None:
            recorded = recording.record_events(
                self._store,
                self._source_states,
                events,
                now,
                now - since,
                until=until,
                prices=self._prices,
            )
        else:
            recorded = recording.queue_events(
                shared,
                self._endpoint,
                self._organizations,
                events,
                now,
                now - since,
                until=until,
                prices=self._prices,
            )
        for delta in recorded.deltas:
            recorder.apply(delta)
        if clock.mono() - self._purged_at >= _DAY / PARTS:
            self._store.purge_events(self._next_part, since)
            self._next_part = (self._next_part + 1) % PARTS
            self._purged_at = clock.mono()
        return recorded

    def _report(self, recorded: RecordedEvents) -> None:
        self._counts.event("accepted", recorded.accepted)
        self._counts.event("duplicate", recorded.duplicates)
        self._counts.event("conflicting", recorded.conflicts)
        if recorded.deltas:
            self._recorder.notify()
