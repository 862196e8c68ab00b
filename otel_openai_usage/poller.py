"""One loop per source: poll, book, wait. A known failure is told and waited out; a bug ends the run."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from otel_openai_usage import pipeline
from otel_openai_usage.core import windows
from otel_openai_usage.core.book import Book, Status
from otel_openai_usage.core.display import Display
from otel_openai_usage.core.kinds import LIMITS
from otel_openai_usage.core.model import NO_NAMES, Amounts, Bucket, Dims, Names, Width, Window
from otel_openai_usage.core.ports import LimitSource, NameSource, Source, Store
from otel_openai_usage.core.shape import Folded, dimensions, unnamed
from otel_openai_usage.core.snapshot import Board
from otel_openai_usage.errors import ExporterError, LookbackExceeded, MissingScope, NotOffered, Rejected, StateError
from otel_openai_usage.pipeline import Absorbed
from otel_openai_usage.core.windows import Plan, Step

log = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_AFTER = 60.0
"""Seconds until a source that failed is tried again, if its interval is longer."""
SAY_AGAIN_AFTER = 3600.0
"""Seconds after which a failure that goes on is said again."""
PUBLISH_GAP = 0.25
"""Seconds between two snapshots at the least, so that sources that end together are shown together."""
PUBLISH_ANYWAY = 15.0
"""Seconds after which the Board is looked over even if no source said anything: midnight comes by itself."""
DAYS_PER_HOURS = 4
"""Days are compared so many times less often than hours."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time comes from. `now` in Unix seconds; `mono` never steps."""

    now: Callable[[], float]
    mono: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Telemetry(Protocol):
    """Whom to tell how polling goes."""

    def polled(self, organization: str, source: str, seconds: float, rows: int, lag: float = 0.0) -> None: ...
    def late(self, organization: str, source: str, lag: str, tokens: int) -> None: ...
    def gap(self, organization: str, source: str, outcome: Literal["healed", "lost"], seconds: float) -> None: ...
    def series(self, instrument: str, live: int, folded: int) -> None: ...


class Keeper:
    """The one thread in which books, store and display are touched, and what is published out of it."""

    def __init__(self, store: Store, display: Display, board: Board, clock: Clock, telemetry: Telemetry, *, otlp: bool) -> None:
        self.store, self.display, self.board, self.clock, self.telemetry = store, display, board, clock, telemetry
        self.attempted: int | None = 0 if otlp else None
        self.changed = asyncio.Event()
        self.books: list[Book] = []
        self._thread = ThreadPoolExecutor(1, "keeper")

    async def do(self, work: Callable[[], T]) -> T:
        """Run `work` in the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def sent(self, version: int, ok: bool) -> None:  # noqa: FBT001 - the sender's callback
        """OTLP tried to send that version; whether it arrived does not matter here."""
        self.attempted = version

    def fold(self, folds: Sequence[Folded]) -> None:
        """Remember what was folded, before it is shown."""
        if folds:
            self.store.fold(folds)

    def publish(self) -> bool:
        """Put on the Board what is new. In the thread. True if anything was."""
        now, mono, shape = self.clock.now(), self.clock.mono(), self.display.shape
        self.fold(shape.resume(now))
        if released := shape.due(mono, self.attempted):
            self.store.release(released)
            shape.released(released)
        snapshot = self.display.snapshot(now, mono)
        if snapshot is None:
            return False
        self.board.publish(snapshot)
        for instrument, (live, folded) in shape.counts().items():
            self.telemetry.series(instrument, live, folded)
        return True

    async def publish_forever(self, render: Callable[[], Awaitable[None]]) -> None:
        """Publish what changes, soon after it did; `render` makes it ready for readers."""
        while True:
            try:
                if await self.do(self.publish):
                    await render()
            except StateError as error:
                log.error("publishing", extra={"error": str(error)})  # noqa: TRY400 - the sentence says it all
            await self.clock.sleep(PUBLISH_GAP)
            pause = PUBLISH_GAP if self.display.shape.waits else PUBLISH_ANYWAY
            try:
                await asyncio.wait_for(self.changed.wait(), pause)
            except TimeoutError:
                continue
            finally:
                self.changed.clear()

    async def close(self) -> None:
        """Write down how far reading has come, and end the thread after what it is doing."""
        await self.do(self._keep)
        await asyncio.to_thread(self._thread.shutdown)

    def _keep(self) -> None:
        for book in self.books:
            try:
                pipeline.keep(self.store, book, int(self.clock.now()))
            except StateError as error:
                log.warning("keeping how far reading has come", extra={"error": str(error)})


@dataclass(slots=True)
class Loop:
    """What every source has: an interval, a state, and a way of telling of trouble without flooding the log."""

    organization: str
    source: str
    interval: float
    poll: Callable[[], Awaitable[None]]
    keeper: Keeper
    status: Callable[[bool], None]
    tried: bool = False
    error: ExporterError | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    _said: tuple[str, float] = ("", 0.0)

    async def once(self) -> bool:
        """One poll. True if it succeeded; what went wrong is in `error`."""
        try:
            await self.poll()
            self.error = None
        except ExporterError as error:
            self.error = error
        self._say()
        self.tried = True
        up = self.error is None
        await self.keeper.do(lambda: self.status(up))
        self.keeper.changed.set()
        return up

    async def forever(self) -> None:
        """Poll every `interval`, on a schedule that does not drift."""
        clock = self.keeper.clock
        due = clock.mono()
        while True:
            up = await self.once()
            due = max(due + (self.interval if up else min(self.interval, RETRY_AFTER)), clock.mono())
            await self._wait(due - clock.mono())

    async def _wait(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        sleeping, woken = asyncio.ensure_future(self.keeper.clock.sleep(seconds)), asyncio.ensure_future(self.wake.wait())
        try:
            await asyncio.wait((sleeping, woken), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.wake.clear()
            sleeping.cancel()
            woken.cancel()

    def _say(self) -> None:
        text, mono = str(self.error or ""), self.keeper.clock.mono()
        facts = {"organization": self.organization, "source": self.source}
        if self.error is None:
            if self._said[0]:
                log.info("poll succeeded again", extra=facts)
            self._said = ("", mono)
        elif text != self._said[0] or mono - self._said[1] >= SAY_AGAIN_AFTER:
            log.log(logging.INFO if self.bearable else logging.WARNING, "poll failed", extra={**facts, "error": text})
            self._said = (text, mono)

    @property
    def bearable(self) -> bool:
        """Whether this failure is one that an operator may have chosen: no scope for names, an endpoint not offered."""
        return isinstance(self.error, NotOffered) or (isinstance(self.error, MissingScope) and self.source in ("names", "limits"))

    @property
    def rejected(self) -> bool:
        """Whether OpenAI refused the key."""
        return isinstance(self.error, Rejected) and not isinstance(self.error, MissingScope)


class UsagePoll:
    """Polls one usage endpoint, or costs, into its book."""

    def __init__(
        self, keeper: Keeper, source: Source, book: Book, rules: windows.Rules, reconcile_interval: float, *, cost_days: int = 0
    ) -> None:
        self._keeper, self._source, self.book, self._rules = keeper, source, book, rules
        self._every = {Width.HOUR: reconcile_interval, Width.DAY: reconcile_interval * DAYS_PER_HOURS}
        self._done: dict[Width, float] = {}
        self._cost_days = cost_days
        self._told_lookback = False

    async def poll(self) -> None:
        """Read every step that is due, freshest first. Raises SourceError or StateError."""
        clock, book = self._keeper.clock, self.book
        began, now = clock.mono(), int(clock.now())
        hours, days = (self._due(width, began) for width in (Width.HOUR, Width.DAY))
        plan = await self._keeper.do(lambda: pipeline.due(book, now, self._rules, hours=hours, days=days))
        self._tell_lost(plan)
        rows = 0
        for step in plan.steps:
            rows += await self._step(step, plan)
        if plan.gaps and book.progress.complete:
            self._tell_healed(plan)
        self._done |= {width: began for width, was in ((Width.HOUR, hours or bool(plan.gaps)), (Width.DAY, days)) if was}
        await self._keeper.do(lambda: self._finish(now))
        self._keeper.telemetry.polled(book.organization, book.kind.source, clock.mono() - began, rows)

    def _due(self, width: Width, mono: float) -> bool:
        last = self._done.get(width)
        return last is None or mono - last >= self._every[width]

    async def _step(self, step: Step, plan: Plan) -> int:
        try:
            buckets = await self._source.read(step.window, step.width, self.book.group_by(step.window.start))
        except LookbackExceeded as error:
            if not step.coarse:
                raise
            self._tell_lookback(step, error)
            return 0
        absorbed = await self._absorb(step, buckets, plan)
        rows = absorbed.rows
        if absorbed.finer:
            for window in _joined(absorbed.finer):
                rows += await self._step(Step(window, Width.HOUR, coarse=True), plan)
            rows += (await self._absorb(step, buckets, plan, drilled=True)).rows
        return rows

    async def _absorb(self, step: Step, buckets: Sequence[Bucket], plan: Plan, *, drilled: bool = False) -> Absorbed:
        keeper, book = self._keeper, self.book

        def work() -> Absorbed:
            now = keeper.clock.now()
            absorbed = pipeline.absorb(
                keeper.store, book, self._source.parse, step, buckets, int(now), fine_from=plan.fine_from, drilled=drilled
            )
            keeper.fold(keeper.display.took(book, absorbed.leaves, now))
            return absorbed

        absorbed = await keeper.do(work)
        for lag, tokens in absorbed.late.items():
            keeper.telemetry.late(book.organization, book.kind.source, lag, tokens)
        return absorbed

    def _finish(self, now: int) -> None:
        keeper, book = self._keeper, self.book
        if self._cost_days:
            load_days(keeper.store, book, now, self._cost_days)
        if pipeline.finish(keeper.store, book, now):
            keeper.fold(keeper.display.took(book, list(book.leaves.values()), keeper.clock.now()))

    def _tell_lost(self, plan: Plan) -> None:
        for window in plan.lost:
            facts = {"organization": self.book.organization, "source": self.book.kind.source, "window": str(window)}
            log.warning("usage lies further back than `reconcile`: it is not counted", extra=facts)
            self._keeper.telemetry.gap(self.book.organization, self.book.kind.source, "lost", window.end - window.start)

    def _tell_healed(self, plan: Plan) -> None:
        seconds = sum(window.end - window.start for window in plan.gaps)
        facts = {"organization": self.book.organization, "source": self.book.kind.source, "seconds": seconds}
        log.info("a gap was read", extra=facts)
        self._keeper.telemetry.gap(self.book.organization, self.book.kind.source, "healed", seconds)

    def _tell_lookback(self, step: Step, error: LookbackExceeded) -> None:
        if not self._told_lookback:
            self._told_lookback = True
            facts = {
                "organization": self.book.organization,
                "source": self.book.kind.source,
                "window": str(step.window),
                "error": str(error),
            }
            log.warning("OpenAI does not report that far back; lower usage.reconcile", extra=facts)


class NamesPoll:
    """Polls names, all of them every interval and single ones as they turn up."""

    def __init__(self, keeper: Keeper, source: NameSource, organization: str, books: Sequence[Book]) -> None:
        self._keeper, self._source, self._organization, self._books = keeper, source, organization, books
        self._status = Status(organization, "names")
        keeper.display.statuses.append(self._status)

    def status(self, up: bool) -> None:  # noqa: FBT001
        """Show how it went."""
        self._status.up = up
        if up:
            self._status.last_success = int(self._keeper.clock.now())

    async def poll(self) -> None:
        """Read all names, then those that usage speaks of and the lists lack. Raises SourceError or StateError."""
        try:
            await self._keep(await self._source.read())
        except MissingScope:
            # Nobody will name them: show them as unknown instead of waiting.
            projects, keys = await self._keeper.do(self._unnamed)
            await self._keep(Names(dict.fromkeys(projects), dict.fromkeys(key for _, key in keys), {}))
            raise
        await self.look_up()

    async def look_up(self) -> None:
        """Ask for single ids that have no name yet."""
        projects, keys = await self._keeper.do(self._unnamed)
        if projects or keys:
            await self._keep(await self._source.lookup(projects, keys))

    async def forever_look_up(self) -> None:
        """Look for unnamed ids every few seconds; asks OpenAI only when there are some."""
        while True:
            await self._keeper.clock.sleep(5.0)
            if self._status.up:
                try:
                    await self.look_up()
                except ExporterError as error:
                    log.debug("looking up names", extra={"organization": self._organization, "error": str(error)})

    def _unnamed(self) -> tuple[list[str], list[tuple[str, str]]]:
        names = self._keeper.display.names.get(self._organization, NO_NAMES)
        projects: dict[str, None] = {}
        keys: dict[tuple[str, str], None] = {}
        for book in self._books:
            for leaf in book.leaves.values():
                dims = dimensions(book, leaf)
                if unnamed(dims, names):
                    project, key = dims.get("project_id"), dims.get("api_key_id")
                    if project and project not in names.projects:
                        projects[project] = None
                    if key and project and key not in names.api_keys:
                        keys[project, key] = None
        return list(projects), list(keys)

    async def _keep(self, found: Names) -> None:
        keeper = self._keeper

        def work() -> None:
            before = keeper.display.names.get(self._organization, NO_NAMES)
            after = merged(before, found)
            if after != before:
                keeper.store.keep_names(self._organization, after)
                keeper.fold(keeper.display.named(self._organization, after, keeper.clock.now()))

        await keeper.do(work)
        keeper.changed.set()


class LimitsPoll:
    """Polls spend limits of the organization and of the projects whose names are known."""

    def __init__(self, keeper: Keeper, source: LimitSource, organization: str) -> None:
        self._keeper, self._source, self._organization = keeper, source, organization
        self._status = Status(organization, "limits")
        keeper.display.statuses.append(self._status)

    def status(self, up: bool) -> None:  # noqa: FBT001
        """Show how it went."""
        self._status.up = up
        if up:
            self._status.last_success = int(self._keeper.clock.now())

    async def poll(self) -> None:
        """Read the limits. Raises SourceError."""
        names = await self._keeper.do(lambda: self._keeper.display.names.get(self._organization, NO_NAMES))
        limits = await self._source.read(sorted(id_ for id_, name in names.projects.items() if name is not None))

        def work() -> None:
            self._keeper.display.limits[self._organization] = limits

        await self._keeper.do(work)


def load_days(store: Store, book: Book, now: int, days: int) -> None:
    """Have the last days' costs at hand, as they are stored."""
    end = now - now % Width.DAY + Width.DAY
    found: dict[int, dict[Dims, Amounts]] = {}
    for row in store.rows_within(book, (Width.DAY,), end - days * Width.DAY, end):
        found.setdefault(row.start, {})[row.dims] = row.amounts
    book.days = found


def merged(before: Names, found: Names) -> Names:
    """What was known and what was found; a name once known outlives the thing that it names."""

    def both(old: Iterable[tuple[str, str | None]], new: Iterable[tuple[str, str | None]]) -> dict[str, str | None]:
        names = dict(old)
        names.update((id_, name) for id_, name in new if name is not None or names.get(id_) is None)
        return names

    return Names(
        both(before.projects.items(), found.projects.items()),
        both(before.api_keys.items(), found.api_keys.items()),
        both(before.users.items(), found.users.items()),
    )


def usage_rules(width: Width, settle: float, reconcile: float) -> windows.Rules:
    """How usage is read."""
    return windows.Rules(width, int(settle), int(reconcile), LIMITS)


def _joined(days: Sequence[Window]) -> list[Window]:
    """Neighbouring days as one window, up to a week: so many hours fit in one call."""
    joined: list[Window] = []
    for day in days:
        if joined and joined[-1].end == day.start and day.end - joined[-1].start <= LIMITS[Width.HOUR] * Width.HOUR:
            joined[-1] = Window(joined[-1].start, day.end)
        else:
            joined.append(day)
    return joined
