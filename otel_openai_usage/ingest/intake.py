"""Takes events from any number of requests and books what waits in one transaction."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, Protocol

from otel_openai_usage.domain.metered import Event, metered
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.engine import recording
from otel_openai_usage.engine.recorder import Recorder
from otel_openai_usage.engine.recording import RecordedEvents
from otel_openai_usage.errors import Busy, StateError
from otel_openai_usage.storage.ports import Writer

WAITING = 20_000
"""Events that may wait for the disk; who comes then is sent away."""
AT_ONCE = 5_000
"""Events of one transaction at the most, so that polling gets its turns."""
PARTS = 256
"""Identities are forgotten in so many parts, one after the other, all of them in a day."""
_DAY = 86400


def metered_sources(
    store: Writer, organizations: Iterable[str], attributes: Iterable[str], now: int
) -> dict[str, SourceState]:
    """The books of metered events, by organization, all with one kind; new ones begin to count now."""
    endpoint = metered(dict.fromkeys([*store.event_attributes(), *attributes]))
    source_states = {
        name: store.source_state(name, endpoint, now, endpoint.group_by) for name in organizations
    }
    for source_state in source_states.values():
        if (
            not source_state.progress.complete
        ):  # nothing was there before us: every series may begin at 0
            source_state.progress = replace(source_state.progress, complete=True)
            recording.keep(store, source_state, now)
    return source_states


class Counts(Protocol):
    """Whom to tell what became of events."""

    def event(
        self, outcome: Literal["accepted", "duplicate", "conflicting", "refused"], count: int = 1
    ) -> None: ...


class Intake:
    """Books events into `books`, one of each organization. Identities are known for `dedupe`
    seconds.
    """

    def __init__(
        self,
        recorder: Recorder,
        store: Writer,
        source_states: Mapping[str, SourceState],
        counts: Counts,
        *,
        dedupe: int,
    ) -> None:
        self._recorder = recorder
        self._store = store
        self._source_states = source_states
        self._counts = counts
        self._dedupe = dedupe
        self._waiting: list[tuple[Sequence[Event], asyncio.Future[None]]] = []
        self._count = 0
        self._worker: asyncio.Task[None] | None = None
        self._part = 0
        self._forgot = recorder.clock.mono()

    async def take(self, events: Sequence[Event]) -> None:
        """Returns when all of them are on the disk, or were before. Raises Busy or StateError;
        nothing was kept then.
        """
        if not events:
            return
        if self._count and self._count + len(events) > WAITING:
            raise Busy(f"{self._count} events wait for the disk; send this again in a second")
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((events, future))
        self._count += len(events)
        if self._worker is None:
            self._worker = asyncio.create_task(self._book_all())
        await future

    async def _book_all(self) -> None:
        try:
            while self._waiting:
                await self._book_some()
        finally:
            self._worker = None

    async def _book_some(self) -> None:
        taken = self._next()
        events = [event for some, _ in taken for event in some]
        error: BaseException | None = None
        try:
            booked = await self._recorder.do(lambda: self._source_state(events))
            self._tell(booked)
        except StateError as trouble:
            error = trouble
        except BaseException as bug:
            error = bug
            raise
        finally:
            self._count -= len(events)
            for _, future in taken:
                if not future.done():
                    future.set_exception(error) if error else future.set_result(None)

    def _next(self) -> list[tuple[Sequence[Event], asyncio.Future[None]]]:
        count = 0
        taken = 0
        while taken < len(self._waiting) and (
            not taken or count + len(self._waiting[taken][0]) <= AT_ONCE
        ):
            count += len(self._waiting[taken][0])
            taken += 1
        found = self._waiting[:taken]
        self._waiting = self._waiting[taken:]
        return found

    def _source_state(self, events: Sequence[Event]) -> RecordedEvents:
        clock = self._recorder.clock
        recorder = self._recorder
        # A wrong clock must not make an event look old: it would be counted a second time.
        now = int(recorder.stamp())
        since = int(recorder.earliest()) - self._dedupe
        booked = recording.record_events(
            self._store, self._source_states, events, now, now - since, until=int(recorder.latest())
        )
        for delta in booked.deltas:
            recorder.apply(delta)
        if clock.mono() - self._forgot >= _DAY / PARTS:
            self._store.purge_events(self._part, since)
            self._part = (self._part + 1) % PARTS
            self._forgot = clock.mono()
        return booked

    def _tell(self, booked: RecordedEvents) -> None:
        self._counts.event("accepted", booked.accepted)
        self._counts.event("duplicate", booked.duplicates)
        self._counts.event("conflicting", booked.conflicts)
        if booked.deltas:
            self._recorder.notify()
