"""The composition root: settings in, a running exporter out. Wires; decides nothing."""

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from uuid import uuid4

from opentelemetry.sdk.resources import Resource

import otel_openai_usage
from otel_openai_usage import stopping
from otel_openai_usage.composition import parts
from otel_openai_usage.composition.budgets import estimated_instead, plan, webhook_url
from otel_openai_usage.composition.part_factory import PartFactory
from otel_openai_usage.composition.privacy import pseudonyms
from otel_openai_usage.composition.replica import OwnedParts, have_polled
from otel_openai_usage.composition.sharing import hand_over, open_all, share
from otel_openai_usage.composition.stores import open_shared
from otel_openai_usage.config import Settings, metric_exporters, state_location
from otel_openai_usage.descriptors import ExhaustionHandler, raise_limit
from otel_openai_usage.domain.budgets import BudgetState
from otel_openai_usage.domain.metered import METERED
from otel_openai_usage.domain.model import Width
from otel_openai_usage.domain.pricing import PriceList
from otel_openai_usage.domain.pseudonyms import NO_PSEUDONYMS, Pseudonyms
from otel_openai_usage.domain.snapshot import Board, GatedBoard
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.engine.budget_figures import BudgetFigures
from otel_openai_usage.engine.cost_figures import CostFigures
from otel_openai_usage.engine.failure_log import FailureLog
from otel_openai_usage.engine.first_history import FirstHistory
from otel_openai_usage.engine.loop import Loop
from otel_openai_usage.engine.maintenance import Maintenance
from otel_openai_usage.engine.names_poll import NamesPoll
from otel_openai_usage.engine.ownership import Ownership
from otel_openai_usage.engine.recorder import Clock, Recorder
from otel_openai_usage.engine.state_watch import StateCare, report
from otel_openai_usage.engine.unusual_figures import UnusualFigures
from otel_openai_usage.engine.webhook import Webhook
from otel_openai_usage.errors import ExporterError, StateError
from otel_openai_usage.exporters.otlp.exporter import exporter as otlp_exporter
from otel_openai_usage.exporters.otlp.sender import Sender
from otel_openai_usage.exporters.prometheus.reader import PrometheusReader
from otel_openai_usage.exporters.resource import resource
from otel_openai_usage.exporters.sdk.providers import SdkExporters, sdk_exporters
from otel_openai_usage.exporters.self_metrics import SelfMetrics
from otel_openai_usage.exporters.webhook import WebhookSender
from otel_openai_usage.http.server import Server
from otel_openai_usage.ingest.coverage import CoveragePoll
from otel_openai_usage.ingest.intake import Intake, metered_endpoint
from otel_openai_usage.ingest.listener import Ingest
from otel_openai_usage.ingest.parser import Parser
from otel_openai_usage.ingest.tokens import Tokens
from otel_openai_usage.memory import Shelf, tune_allocator
from otel_openai_usage.providers.budget import Budget
from otel_openai_usage.sockets import bind
from otel_openai_usage.storage.ports import Writer
from otel_openai_usage.view.attributes import AttributePolicy
from otel_openai_usage.view.snapshot_builder import SnapshotBuilder

log = logging.getLogger(__name__)

COMPARED_EVERY = 10.0
"""Seconds between two comparisons of the day's usage with its events, at the least; else as often
as usage is read.
"""
OTLP_SHUTDOWN = 5.0
"""Seconds that the last export may take; stopping may take 10 in all."""
SDK_SHUTDOWN = 3.0
"""Seconds that the last export of other packages' exporters may take."""
FORGET = timedelta(days=14)
"""How long a series may be silent before it is let go, at the least; it returns with its kept
total.
"""


@dataclass(slots=True)
class Exporter:
    """Everything that runs, wired."""

    store: Writer
    recorder: Recorder
    self_metrics: SelfMetrics
    board: Board
    prometheus: PrometheusReader
    loops: list[Loop]
    names: list[NamesPoll]
    server: Server | None = None
    prices: PriceList | None = None
    maintenance: Maintenance | None = None
    ingest: Ingest | None = None
    sender: Sender | None = None
    others: SdkExporters = field(default_factory=SdkExporters)
    """Exporters of other packages, in the OpenTelemetry SDK."""
    shelf: Shelf = field(default_factory=Shelf)
    webhook: Webhook | None = None
    histories: list[FirstHistory] = field(default_factory=list)
    reread: list[tuple[SourceState, int]] = field(default_factory=list)
    """Source states, and how many seconds of each can be read again."""
    polled: list[str] = field(default_factory=list)
    """The organizations that this process polls now."""
    figures: list[CostFigures | BudgetFigures | UnusualFigures] = field(default_factory=list)
    owned: OwnedParts | None = None
    ownership: Ownership | None = None
    """What this replica owns, and its leases, where several replicas share the state."""

    def owns(self, scope: str) -> bool:
        """Whether this process polls and shows a scope of `domain.ownership`."""
        return self.owned is None or self.owned.owns(scope)

    @property
    def shown(self) -> Board:
        """The snapshot for readers in this process, empty while another replica may show it."""
        return GatedBoard(self.board, self.prometheus.may_show)

    @property
    def care(self) -> StateCare:
        """What looks after the state itself."""
        return StateCare(self.recorder, self.store)

    def not_ready(self) -> list[str]:
        """Why /readyz says no. Tries the disk: a poll with nothing new writes nothing, so it would
        not tell.
        """
        unwritable = self.store.why_unwritable()
        disk = [unwritable] if unwritable else []
        untried = []
        failing = []
        for loop in self.loops:
            name = f"{loop.organization} {loop.source}"
            if not loop.tried:
                untried.append(f"{name}: not polled yet")
            # Other failures may pass by themselves, and the totals stay right meanwhile.
            if loop.rejected or isinstance(loop.error, StateError):
                failing.append(f"{name}: {loop.error}")
        return disk + untried + failing

    def abandon(self) -> None:
        """End as a killed process does: nothing more is stored or sent. Taking the parts apart
        afterwards, as after an orderly end, does no harm.
        """
        if self.sender:
            self.sender.abandon()
        self.others.abandon()
        if self.ownership:
            self.ownership.abandon()
        self.recorder.abandon()
        self.store.abandon()

    async def publish(self) -> None:
        """Show what is new now."""
        await self.recorder.publish_once(self.render)

    def publish_and_wait(self) -> None:
        """As `publish`, for a caller that cannot await. Blocks for some milliseconds."""
        if self.recorder.do_and_wait(self.recorder.publish):
            self._render()

    async def render(self) -> None:
        """Make what is shown ready for scrapes."""
        await asyncio.to_thread(self._render)

    def _render(self) -> None:
        self.prometheus.refresh()
        points = self.board.current().points
        self.shelf.grew(sum(map(len, points.values())))


def to_stdout(page: bytes) -> None:
    """Print a page. Raises ExporterError; a reader that went away, as in `| head`, is no error."""
    try:
        sys.stdout.write(page.decode())
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer would be written at exit, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise ExporterError(
                f"printed the page to stdout: {error.strerror or error}; check what stdout is"
            ) from error


def run(
    settings: Settings,
    *,
    once: bool = False,
    write: Callable[[bytes], None] | None = to_stdout,
) -> int:
    """Run the exporter until SIGTERM, SIGINT or SIGHUP, or for one poll of everything. The exit
    code.

    `write` takes the page of that one poll; None: nobody does. Raises ExporterError.
    """
    tune_allocator()
    raise_limit()
    return asyncio.run(_run(settings, once=once, write=write))


async def _run(
    settings: Settings, *, once: bool, write: Callable[[bytes], None] | None = to_stdout
) -> int:
    asyncio.get_running_loop().set_exception_handler(ExhaustionHandler(time.monotonic))
    for warning in (*settings.warnings, *estimated_instead(settings)):
        log.warning(warning, extra={"event": "setting_warning"})
    async with AsyncExitStack() as stack:
        exporter = await wire(
            settings, stack, clock=Clock(time.time, time.monotonic), env=os.environ, once=once
        )
        if once:
            return await _once(exporter, write)
        return await forever(exporter)


async def _once(exporter: Exporter, write: Callable[[bytes], None] | None) -> int:
    """Poll everything, then export. A new series is 0 in that export, and released for the next run."""
    # Names come last: they are looked up for the ids that usage brought.
    last = [loop for loop in exporter.loops if loop.source in ("names", "coverage")]
    first = [loop for loop in exporter.loops if loop not in last]
    await asyncio.gather(*(loop.once() for loop in first))
    await asyncio.gather(*(loop.once() for loop in last))
    await asyncio.gather(*(names.try_look_up() for names in exporter.names))
    await exporter.publish()
    if write is not None:
        page = b"".join(await asyncio.to_thread(exporter.prometheus.page))
        await asyncio.to_thread(write, page)
    sent = exporter.sender is None or await asyncio.to_thread(exporter.sender.flush)
    sent = await asyncio.to_thread(exporter.others.flush) and sent
    # The zeros of new series are released only if somebody received them: the next run would else
    # begin with a total whose rise nobody saw.
    sends = exporter.sender is not None or bool(exporter.others.providers)
    is_received = write is not None or (sent and sends)
    if is_received:
        await exporter.recorder.do(exporter.recorder.release_zeros)
    failed = any(loop.error and not loop.is_expected for loop in exporter.loops)
    return 0 if sent and not failed else 1


async def forever(exporter: Exporter) -> int:
    """Poll and show until SIGTERM, SIGINT or SIGHUP. Raises ExporterError."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    with stopping.calling(lambda: loop.call_soon_threadsafe(_stopping, stop)):
        await run_loops(stop, exporter)
    log.info("stopped", extra={"event": "stopped"})
    return 0


async def run_loops(stop: asyncio.Event, exporter: Exporter) -> None:
    """Poll and publish until `stop` is set. Raises ExporterError."""
    try:
        await _until(stop, exporter)
    except BaseExceptionGroup as group:
        error = _first(group)
        raise error from (None if error is group else group)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to report when several tasks failed: the first that we expect, else all of them as
    a bug.
    """
    foreseen = group.subgroup(ExporterError)
    while foreseen is not None:
        error = foreseen.exceptions[0]
        if not isinstance(error, BaseExceptionGroup):
            return error
        foreseen = error
    return group


async def _until(stop: asyncio.Event, exporter: Exporter) -> None:
    async with asyncio.TaskGroup() as group:
        if exporter.owned and exporter.ownership:
            owned = exporter.owned
            loops = [loop for loop in exporter.loops if not owned.runs(loop)]
            tasks = [group.create_task(loop.forever()) for loop in loops]
            tasks.append(group.create_task(owned.forever()))
            tasks.append(group.create_task(exporter.ownership.forever()))
        else:
            tasks = [group.create_task(loop.forever()) for loop in exporter.loops]
            tasks += [
                group.create_task(history.forever(partial(have_polled, exporter.loops, history)))
                for history in exporter.histories
            ]
            tasks += [group.create_task(names.forever_look_up()) for names in exporter.names]
        tasks.append(group.create_task(exporter.recorder.publish_forever(exporter.render)))
        tasks.append(group.create_task(exporter.care.forever()))
        if exporter.webhook:
            tasks.append(group.create_task(exporter.webhook.forever()))
        if exporter.maintenance:
            tasks.append(group.create_task(exporter.maintenance.forever()))
        await stop.wait()
        for task in tasks:
            task.cancel()


def _stopping(stop: asyncio.Event) -> None:
    log.info("stopping", extra={"event": "stopping"})
    stop.set()


@dataclass(slots=True)
class _Listeners:
    """What listens before the state is read."""

    server: Server | None = None
    events: Sequence[socket.socket] = ()


async def wire(
    settings: Settings,
    stack: AsyncExitStack,
    *,
    clock: Clock,
    env: Mapping[str, str],
    once: bool = False,
) -> Exporter:
    """Make every part and join them; `stack` takes them apart again, last made first. Raises
    ExporterError.
    """
    board = Board()
    # A single poll ends before anybody could scrape it.
    listeners = await _listen(settings, stack, board) if not once else _Listeners()
    # A large state takes a while to read. That is done in threads, so that the listeners answer.
    store = await asyncio.to_thread(
        open_shared, state_location(settings, env), now=clock.now, strict=settings.state.strict
    )
    stack.callback(store.close)
    report(store)
    who = resource(store.instance_id, settings.attributes.resource)
    # Usage belongs to the state, whoever shows it; own health to the replica.
    own = who
    if store.shared is not None:
        own = resource(str(uuid4()), settings.attributes.resource)
    prometheus = PrometheusReader(board, created=settings.prometheus.created)
    sends = settings.otlp.on and not settings.sdk_disabled
    others = _sdk_exporters(settings, who)
    stack.callback(others.shutdown, 0.0)
    self_metrics = SelfMetrics(
        board,
        own,
        [prometheus],
        exporters=["otlp"] if sends else [],
        providers=others.providers,
        state_size=store.size,
        state_lost=lambda: store.lost_seconds,
        state_up=lambda: int(store.is_up),
        state_lost_commits=_lost_commits(store),
    )
    stack.callback(self_metrics.shutdown)
    seen = policy(settings, once=once, hashed=pseudonyms(settings, store.hash_key))
    snapshot_builder = SnapshotBuilder(
        seen,
        store.overflow_members(),
        store.high_water_marks(),
        cost_days=settings.costs.days,
        organization_ids=settings.organization_ids,
    )
    recorder = Recorder(store, snapshot_builder, board, clock, self_metrics, otlp=sends)
    others.report_to(recorder)
    prometheus.before_page = recorder.before_page
    stack.push_async_callback(recorder.close)
    prices = parts.prices(settings, clock.now(), self_metrics)
    exporter = Exporter(store, recorder, self_metrics, board, prometheus, [], [], prices=prices)
    exporter.others = others
    budget = Budget(settings.api.max_bytes)
    factory = PartFactory(exporter, settings, budget, once=once)
    if store.shared is None:
        await open_all(exporter, settings, stack, factory)
    ingest = None
    if settings.events.enabled:
        ingest = await asyncio.to_thread(_ingest, exporter, settings, store, listeners.events)
    exporter.maintenance = parts.maintenance(
        settings, recorder, store, self_metrics, exporter.prices
    )
    exporter.webhook = _webhook(settings, recorder, store)
    await asyncio.to_thread(_load, exporter, settings)
    if store.shared is not None:
        await share(exporter, settings, stack, factory, store.shared, once=once)
    await exporter.publish()
    others.show(exporter.shown)
    if sends:
        sender = _sender(exporter, settings, who)
        exporter.sender = sender
        if not once:
            sender.start()
        stack.push_async_callback(asyncio.to_thread, sender.shutdown, OTLP_SHUTDOWN)
    stack.push_async_callback(asyncio.to_thread, others.shutdown, SDK_SHUTDOWN)
    await _show(exporter, listeners, ingest if not once else None, stack)
    if exporter.ownership:
        stack.push_async_callback(hand_over, exporter)
    return exporter


async def _show(
    exporter: Exporter, listeners: _Listeners, ingest: Ingest | None, stack: AsyncExitStack
) -> None:
    """Answer scrapes with usage from now on, and take events."""
    if listeners.server:
        exporter.server = listeners.server
        exporter.server.show(exporter.prometheus, exporter.not_ready)
        stack.push_async_callback(exporter.server.stop)
    if ingest:
        await ingest.start()
        stack.push_async_callback(ingest.stop)
        log.info("listening for events", extra={"event": "listening", "url": ingest.url})
        exporter.ingest = ingest


def _sender(exporter: Exporter, settings: Settings, who: Resource) -> Sender:
    return Sender(
        otlp_exporter(settings.otlp),
        exporter.board,
        exporter.self_metrics,
        who,
        interval=settings.otlp.interval.total_seconds(),
        to_resource=_to_resource(settings),
        before_page=exporter.recorder.before_page,
        attempted=exporter.recorder.sent,
        may_show=exporter.prometheus.may_show,
    )


def _sdk_exporters(settings: Settings, who: Resource) -> SdkExporters:
    """The exporters that OTEL_METRICS_EXPORTER names beside ours. Raises ConfigError."""
    if settings.sdk_disabled or not settings.sdk_exporters:
        return SdkExporters()
    known = metric_exporters.installed()
    chosen = {name: known[name] for name in settings.sdk_exporters}
    return sdk_exporters(chosen, who, interval=settings.otlp.interval.total_seconds())


def _lost_commits(store: Writer) -> Callable[[], int] | None:
    shared = store.shared
    return None if shared is None else lambda: shared.lost_commits


def _to_resource(settings: Settings) -> list[str]:
    """The attributes that go to the OTLP resource, by the names that series have after renaming."""
    attributes = settings.attributes
    return [attributes.rename.get(key, key) for key in attributes.to_resource]


async def _listen(settings: Settings, stack: AsyncExitStack, board: Board) -> _Listeners:
    """Take every address, so that a taken one ends the start before the state is begun; then answer
    /healthz, and show our own health until the state is read. Raises ListenError.
    """
    listeners = _Listeners()
    if settings.prometheus.enabled and not settings.sdk_disabled:
        health = PrometheusReader(Board())
        self_metrics = SelfMetrics(board, resource(None, settings.attributes.resource), [health])
        stack.callback(self_metrics.shutdown)
        listeners.server = Server(
            health,
            board,
            lambda: ["the state is being read"],
            host=settings.prometheus.host,
            port=settings.prometheus.port,
            path=settings.prometheus.path,
            web_config_file=settings.prometheus.web_config_file,
            version=otel_openai_usage.__version__,
        )
        stack.push_async_callback(listeners.server.stop)
        await listeners.server.bind()
    if settings.events.enabled:
        listeners.events = await asyncio.to_thread(bind, settings.events.host, settings.events.port)
        for listening in listeners.events:
            stack.callback(listening.close)
    if listeners.server:
        await listeners.server.start()
        url = listeners.server.url + settings.prometheus.path
        log.info("listening", extra={"event": "listening", "url": url})
    return listeners


def _load(exporter: Exporter, settings: Settings) -> None:
    """Show what is stored, and the figures of the month that follow from it."""
    figures = CostFigures(
        exporter.recorder, exporter.store, exporter.polled, bills=settings.costs.enabled
    )
    budgets = BudgetFigures(
        exporter.recorder,
        exporter.store,
        plan(settings),
        figures,
        partial(_budgets_changed, exporter),
        owns=exporter.owns,
    )
    unusual = UnusualFigures(exporter.recorder, exporter.store, exporter.polled, exporter.owns)
    exporter.figures = [figures, budgets, unusual]
    exporter.recorder.before_snapshot += [each.refresh for each in exporter.figures]
    names = {
        organization.name: exporter.store.names(organization.name)
        for organization in settings.organizations
    }
    exporter.recorder.load(names)


def _webhook(settings: Settings, recorder: Recorder, store: Writer) -> Webhook | None:
    url = webhook_url(settings)
    if url is None:
        return None
    return Webhook(recorder, store, settings.budgets.webhook.thresholds, WebhookSender(url))


def _budgets_changed(exporter: Exporter, states: Sequence[BudgetState]) -> None:
    """Say which cost each budget counts, and which thresholds are reached."""
    for state in states:
        exporter.self_metrics.budget_basis(state.budget.name, state.basis)
    if exporter.webhook is not None:
        exporter.webhook.changed(states)


def _ingest(
    exporter: Exporter, settings: Settings, store: Writer, sockets: Sequence[socket.socket]
) -> Ingest:
    """The listener for events."""
    recorder = exporter.recorder
    self_metrics = exporter.self_metrics
    events = settings.events
    organizations = [organization.name for organization in settings.organizations]
    source_states = {
        source_state.organization: source_state
        for source_state in recorder.source_states
        if source_state.endpoint.name == METERED.name
    }
    # Every organization's events have the same dimensions, those of the configuration.
    endpoint = metered_endpoint(store, events.attributes)
    self_metrics.expect_events()
    intake = Intake(
        recorder,
        store,
        source_states,
        self_metrics,
        endpoint=endpoint,
        organizations=organizations,
        dedupe=int(events.dedupe.total_seconds()),
        prices=exporter.prices,
    )
    if settings.usage.enabled:
        compare = CoveragePoll(recorder, store).poll
        every = max(COMPARED_EVERY, settings.usage.interval.total_seconds())
        failure_log = FailureLog(organizations[0])
        loop = Loop("coverage", every, compare, recorder, lambda _: None, failure_log)
        exporter.loops.append(loop)
    tokens = [token.get_secret_value() for token in events.tokens]
    return Ingest(
        intake.take,
        lambda: self_metrics.event("refused"),
        parser=Parser(
            events.attributes,
            endpoint.dimensions,
            now=recorder.latest,
        ),
        tokens=Tokens(tokens, events.tokens_file),
        host=events.host,
        port=events.port,
        max_body=events.max_body,
        sockets=sockets,
    )


def policy(
    settings: Settings, *, once: bool = False, hashed: Pseudonyms = NO_PSEUDONYMS
) -> AttributePolicy:
    """How series look, as configured."""
    attributes = settings.attributes
    usage = settings.usage
    longest = max(usage.reconcile, usage.settle, settings.costs.reconcile)
    reconcile = longest.total_seconds()
    waits_for_names = settings.names.enabled and not once
    return AttributePolicy(
        rename=attributes.rename,
        drop=frozenset(attributes.drop),
        token_types=frozenset(usage.token_types),
        skip_zero=attributes.skip_zero,
        profile=attributes.profile,
        pseudonyms=hashed,
        user_names=settings.names.enabled and settings.names.users,
        zero_hold=attributes.zero_hold.total_seconds(),
        max_series=attributes.max_series,
        name_wait=30.0 if waits_for_names else 0.0,
        # A revision may come as late as `reconcile`; a series that is still read again is never let
        # go for good.
        forget=max(2 * reconcile, FORGET.total_seconds()),
        make_room=max(reconcile, Width.DAY),
    )
