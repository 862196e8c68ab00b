"""Opens what is read: everything, or what no other replica owns."""

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from otel_openai_usage.composition.part_factory import PartFactory, scopes
from otel_openai_usage.composition.replica import OwnedParts
from otel_openai_usage.config import Settings, needs_key
from otel_openai_usage.engine.ownership import Ownership
from otel_openai_usage.engine.state_watch import read_again
from otel_openai_usage.storage.ports import SharedState

if TYPE_CHECKING:
    from otel_openai_usage.composition.app import Exporter

HAND_OVER_SHUTDOWN = 1.0
"""Seconds that the last export may take where another replica waits to go on."""


async def open_all(
    exporter: "Exporter", settings: Settings, stack: AsyncExitStack, factory: PartFactory
) -> None:
    """Open everything that is read: no other process shares the state. Raises ExporterError."""
    for scope in scopes(settings):
        part = await factory.open(scope)
        stack.push_async_callback(part.connections.aclose)
        exporter.loops += part.loops
        exporter.names += part.names
        exporter.histories += part.histories
        exporter.recorder.source_states += part.source_states
    exporter.polled += [one.name for one in settings.organizations if needs_key(settings)]
    read_again(exporter.store, exporter.reread, int(exporter.recorder.clock.now()))


async def share(
    exporter: "Exporter",
    settings: Settings,
    stack: AsyncExitStack,
    factory: PartFactory,
    shared: SharedState,
    *,
    once: bool,
) -> None:
    """Take what no other replica owns, and show it. Raises StateError."""
    exporter.owned = OwnedParts(
        exporter.recorder,
        shared,
        exporter.self_metrics,
        factory.open,
        [organization.name for organization in settings.organizations],
        exporter.loops,
        exporter.names,
        exporter.polled,
        exporter.publish,
    )
    exporter.owned.maintenance = exporter.maintenance
    exporter.owned.figures = exporter.figures
    exporter.recorder.before_snapshot.append(exporter.owned.count_events)
    may_own = () if settings.state.standby else scopes(settings)
    exporter.ownership = Ownership(shared, may_own, exporter.owned)
    stack.push_async_callback(exporter.ownership.end)
    await exporter.ownership.begin()
    exporter.prometheus.may_show = exporter.ownership.may_show
    if once:
        await exporter.ownership.take_all()


async def hand_over(exporter: "Exporter") -> None:
    """Send once more what is owned, then give it to the others, before anything else ends."""
    # Events that are still taken are counted, and not left to the next owner.
    if exporter.ingest:
        await exporter.ingest.stop()
    if exporter.sender:
        await asyncio.to_thread(exporter.sender.shutdown, HAND_OVER_SHUTDOWN)
    if exporter.ownership:
        await exporter.ownership.end()
