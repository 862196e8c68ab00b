"""What one of several replicas owns: opened when it takes a lease, closed when it gives it away."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from otel_openai_usage.domain.ownership import LEGACY_SCOPE, organization_scope
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.engine import polling, recording
from otel_openai_usage.engine.first_history import FirstHistory
from otel_openai_usage.engine.loop import Loop
from otel_openai_usage.engine.maintenance import Maintenance
from otel_openai_usage.engine.names_poll import NamesPoll
from otel_openai_usage.engine.recorder import Recorder
from otel_openai_usage.errors import StateError
from otel_openai_usage.exporters.self_metrics import SelfMetrics
from otel_openai_usage.storage.ports import SharedState

log = logging.getLogger(__name__)

COUNT_EVERY = 0.5
"""Seconds between two looks for events that other replicas stored."""


@dataclass(slots=True)
class Part:
    """What runs for one scope. `source_states` are shown; `also` are only maintained.

    `metered` counts the events of the organization, where events are taken.
    """

    loops: list[Loop] = field(default_factory=list)
    names: list[NamesPoll] = field(default_factory=list)
    histories: list[FirstHistory] = field(default_factory=list)
    source_states: list[SourceState] = field(default_factory=list)
    also: list[SourceState] = field(default_factory=list)
    metered: SourceState | None = None
    connections: AsyncExitStack = field(default_factory=AsyncExitStack)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class Figures(Protocol):
    """What is computed of everything that is owned."""

    def reset(self) -> None:
        """Compute it again before the next snapshot."""
        ...


class OwnedParts:
    """Opens and closes the parts of this replica. The port `Owned` of `engine.ownership`.

    `open_part` makes the part of a scope. `loops`, `names` and `polled` are the exporter's lists.
    """

    def __init__(
        self,
        recorder: Recorder,
        shared: SharedState,
        self_metrics: SelfMetrics,
        open_part: Callable[[str], Awaitable[Part]],
        organizations: Collection[str],
        loops: list[Loop],
        names: list[NamesPoll],
        polled: list[str],
        publish: Callable[[], Awaitable[None]],
    ) -> None:
        self._recorder = recorder
        self._shared = shared
        self._self_metrics = self_metrics
        self._open_part = open_part
        self._scopes = {organization_scope(name): name for name in organizations}
        self._loops = loops
        self._names = names
        self._polled = polled
        self._publish = publish
        self._parts: dict[str, Part] = {}
        self._runs = False
        self._failed: asyncio.Future[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self.maintenance: Maintenance | None = None
        self.figures: Sequence[Figures] = ()
        for name in organizations:
            self_metrics.owner(name, is_owner=False)

    def owns(self, scope: str) -> bool:
        """Whether this replica owns a scope."""
        return scope in self._parts

    def runs(self, loop: Loop) -> bool:
        """Whether `forever` polls this loop."""
        return any(loop in part.loops for part in self._parts.values())

    async def open(self, scopes: Sequence[str]) -> None:
        """Begin to poll and to show these scopes. Raises StateError."""
        for scope in scopes:
            part = await self._open_part(scope)
            self._parts[scope] = part
        parts = [self._parts[scope] for scope in scopes]
        sources = [source for part in parts for source in part.source_states]
        organizations = [self._scopes[scope] for scope in scopes if scope in self._scopes]

        def adopt() -> None:
            store = self._recorder.store
            self._recorder.adopt(sources, {name: store.names(name) for name in organizations})

        await self._recorder.do(adopt)
        for part in parts:
            self._loops += part.loops
            self._names += part.names
            if self._runs:
                self._start(part)
        self._assign()
        for name in organizations:
            self._self_metrics.owner(name, is_owner=True)
        self._recorder.notify()
        await self._publish()

    async def close(self, scopes: Sequence[str], *, is_owner: bool) -> None:
        """Poll and show these scopes no more. What is known is written first by an owner."""
        if is_owner:
            now = self._recorder.clock.now()
            await self._recorder.do(lambda: self.count_events(now, 0.0))
        parts = {scope: self._parts.pop(scope) for scope in scopes if scope in self._parts}
        tasks = [task for part in parts.values() for task in part.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        ended = [loop for part in parts.values() for loop in part.loops]
        self._loops[:] = [loop for loop in self._loops if loop not in ended]
        looked_up = [names for part in parts.values() for names in part.names]
        self._names[:] = [names for names in self._names if names not in looked_up]
        self._assign()
        sources = [source for part in parts.values() for source in part.source_states]
        await self._recorder.do(lambda: self._leave(scopes, sources, is_owner=is_owner))
        for scope in scopes:
            if scope in self._scopes:
                self._self_metrics.owner(self._scopes[scope], is_owner=False)
        try:
            await self._publish()
        except StateError as error:
            log.debug("publishing", extra={"event": "publish_failed", "error": str(error)})
        for part in parts.values():
            # Requests on their way to OpenAI may take a while to end.
            closing = asyncio.create_task(part.connections.aclose())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _leave(
        self, scopes: Sequence[str], sources: Sequence[SourceState], *, is_owner: bool
    ) -> None:
        recorder = self._recorder
        if is_owner:
            now = int(recorder.clock.now())
            for source in sources:
                try:
                    polling.write_progress(recorder.store, source, source.progress, now)
                except StateError as error:
                    facts = {"event": "progress_not_written", "error": str(error)}
                    log.warning("the progress of reading was not written", extra=facts)
                    break
        for scope in scopes:
            if scope == LEGACY_SCOPE:
                recorder.snapshot_builder.leave_out_legacy()
            elif scope in self._scopes:
                recorder.snapshot_builder.leave_out(self._scopes[scope])
        try:
            recorder.leave(sources)
        except StateError as error:
            log.debug("leaving", extra={"event": "leave_failed", "error": str(error)})

    def _assign(self) -> None:
        polled = [self._scopes[scope] for scope in self._parts if scope in self._scopes]
        self._polled[:] = [name for name in polled if self._is_polled(name)]
        for figures in self.figures:
            figures.reset()
        if self.maintenance is not None:
            self.maintenance.assign(
                list(self._polled),
                [source for part in self._parts.values() for source in part.also],
            )

    def _is_polled(self, organization: str) -> bool:
        part = self._parts[organization_scope(organization)]
        return any(source.endpoint.polled for source in part.source_states)

    # --- events

    def count_events(self, _now: float, _mono: float) -> None:
        """Count what waits for the owned organizations. In the recorder's thread."""
        try:
            self._count()
        except StateError as error:
            # All else is shown; what waits is not lost.
            facts = {"event": "events_not_counted", "error": str(error)}
            log.debug("events could not be counted", extra=facts)

    def _count(self) -> None:
        metered = self._metered()
        if not metered:
            return
        now = int(self._recorder.stamp())
        for name in self._shared.waiting_organizations():
            source = metered.get(name)
            while source is not None:
                delta = recording.count_queued(self._shared, source, now)
                if delta is None:
                    break
                self._recorder.apply(delta)

    def _metered(self) -> Mapping[str, SourceState]:
        return {
            self._scopes[scope]: part.metered
            for scope, part in list(self._parts.items())
            if part.metered is not None
        }

    def _events_wait(self) -> bool:
        metered = self._metered()
        return bool(metered) and any(
            name in metered for name in self._shared.waiting_organizations()
        )

    async def _count_forever(self) -> None:
        while True:
            await self._recorder.clock.sleep(COUNT_EVERY)
            try:
                if await self._recorder.do(self._events_wait):
                    self._recorder.notify()
            except StateError as error:
                facts = {"event": "events_not_counted", "error": str(error)}
                log.debug("events could not be counted", extra=facts)

    # --- running

    async def forever(self) -> None:
        """Poll what is owned, now and later. Raises ExporterError, or a bug, of any poll."""
        self._failed = asyncio.get_running_loop().create_future()
        self._runs = True
        for part in self._parts.values():
            self._start(part)
        counting = asyncio.create_task(self._count_forever())
        try:
            await self._failed
        finally:
            self._runs = False
            counting.cancel()
            tasks = [task for part in self._parts.values() for task in part.tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, part: Part) -> None:
        part.tasks = [asyncio.create_task(loop.forever()) for loop in part.loops]
        part.tasks += [asyncio.create_task(names.forever_look_up()) for names in part.names]
        part.tasks += [
            asyncio.create_task(history.forever(partial(have_polled, part.loops, history)))
            for history in part.histories
        ]
        for task in part.tasks:
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        failed = self._failed
        if task.cancelled() or failed is None or failed.done():
            return
        error = task.exception()
        if error is not None:
            failed.set_exception(error)


def have_polled(loops: Sequence[Loop], history: FirstHistory) -> bool:
    """Whether every source of an organization was polled once.

    A source that fails need not be waited for.
    """
    return all(loop.tried for loop in loops if loop.organization == history.organization)
