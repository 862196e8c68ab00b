"""Polls one usage endpoint, or costs, into its book."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

from otel_openai_usage import pipeline
from otel_openai_usage.core import windows
from otel_openai_usage.core.book import Book
from otel_openai_usage.core.estimate import PriceBook
from otel_openai_usage.core.kinds import LIMITS
from otel_openai_usage.core.model import Amounts, Bucket, Dims, Width, Window, floor
from otel_openai_usage.core.ports import Source, Store
from otel_openai_usage.core.windows import Plan, Step
from otel_openai_usage.errors import GroupingRefused, LookbackExceeded, TooLarge
from otel_openai_usage.pipeline import Absorbed
from otel_openai_usage.poller.keeper import Keeper

log = logging.getLogger(__name__)

DAYS_PER_HOURS = 4
"""Days are compared so many times less often than hours."""


SPLITS = 4
"""How many times a window is halved whose answer is too large."""


class UsagePoll:
    """Polls one usage endpoint, or costs, into its book."""

    def __init__(
        self,
        keeper: Keeper,
        source: Source,
        book: Book,
        rules: windows.Rules,
        reconcile_interval: float,
        *,
        group_by: tuple[str, ...] | None = None,
        cost_days: int = 0,
        prices: PriceBook | None = None,
    ) -> None:
        self._keeper = keeper
        self._source = source
        self.book = book
        self._rules = rules
        self._every = {
            Width.HOUR: reconcile_interval,
            Width.DAY: reconcile_interval * DAYS_PER_HOURS,
        }
        self._done: dict[Width, float] = {}
        self._group_by = group_by
        self._cost_days = cost_days
        self._prices = prices
        self._told_lookback = False
        self._told_refused: set[str] = set()
        self._given_up = 0

    async def poll(self) -> None:
        """Read every step that is due, freshest first. Raises SourceError or StateError."""
        clock = self._keeper.clock
        book = self.book
        began = clock.mono()
        # By a clock that is behind, days would be read anew that are soon out of reach.
        now = int(self._keeper.latest())
        hours, days = (self._due(width, began) for width in (Width.HOUR, Width.DAY))
        plan = await self._keeper.do(lambda: self._plan(now, hours=hours, days=days))
        whole_days: Sequence[Step] = ()
        if hours:
            whole_days = await self._keeper.do(
                lambda: pipeline.whole_days(self._keeper.store, book, plan)
            )
        self._tell_lost(plan.lost)
        rows = self._given_up = 0
        for step in (*plan.steps, *whole_days):
            rows += await self._step(step, plan)
        if plan.gaps and book.progress.complete:
            self._tell_healed(plan)
        self._done |= {
            width: began
            for width, was in ((Width.HOUR, hours or bool(plan.gaps)), (Width.DAY, days))
            if was
        }
        await self._keeper.do(lambda: self._finish(now))
        self._keeper.telemetry.polled(
            book.organization, book.kind.source, clock.mono() - began, rows
        )

    def _plan(self, now: int, *, hours: bool, days: bool) -> Plan:
        if self._group_by is not None:
            pipeline.regroup(self._keeper.store, self.book, self._group_by, now)
        return pipeline.due(self.book, now, self._rules, hours=hours, days=days)

    def _due(self, width: Width, mono: float) -> bool:
        last = self._done.get(width)
        return last is None or mono - last >= self._every[width]

    async def _step(self, step: Step, plan: Plan, *, splits: int = SPLITS) -> int:
        """Read and book one step; in halves where its answer is too large, `splits` times over."""
        try:
            buckets = await self._source.read(
                step.window, step.width, self.book.group_by(step.window.start)
            )
        except GroupingRefused as error:
            return await self._regrouped(step, plan, error)
        except LookbackExceeded as error:
            if not step.coarse:
                raise
            self._tell_lookback(step, error)
            lost = await self._keeper.do(lambda: pipeline.give_up(self.book, step.window))
            self._given_up += sum(window.end - window.start for window in lost)
            self._tell_lost(lost)
            return 0
        except TooLarge:
            halves = _halved(step)
            if len(halves) == 1 or splits == 0:
                raise
            return sum([await self._step(half, plan, splits=splits - 1) for half in halves])
        absorbed = await self._absorb(step, buckets, plan)
        rows = absorbed.rows
        if absorbed.finer:
            for window in _joined(absorbed.finer):
                rows += await self._step(Step(window, Width.HOUR, coarse=True), plan)
            rows += (await self._absorb(step, buckets, plan, drilled=True)).rows
        return rows

    async def _regrouped(self, step: Step, plan: Plan, refused: GroupingRefused) -> int:
        """Take a step without the dimensions that OpenAI refuses there."""
        keeper = self._keeper
        book = self.book
        left_out = await keeper.do(
            lambda: pipeline.leave_out(keeper.store, book, step.window, refused)
        )
        if left_out is None:
            raise refused
        if not self._told_refused.issuperset(left_out.news):
            self._told_refused |= set(left_out.news)
            log.warning(refused.summary, extra=refused.facts(book.organization, book.kind.source))
        rows = 0
        for window in windows.pieces(step.window, book.cuts):
            rows += await self._step(Step(window, step.width, step.coarse), plan)
        return rows

    async def _absorb(
        self, step: Step, buckets: Sequence[Bucket], plan: Plan, *, drilled: bool = False
    ) -> Absorbed:
        keeper = self._keeper
        book = self.book

        def work() -> Absorbed:
            now = keeper.latest()
            absorbed = pipeline.absorb(
                keeper.store,
                book,
                self._source.parse,
                step,
                buckets,
                int(now),
                fine_from=plan.fine_from,
                drilled=drilled,
                prices=self._prices,
            )
            keeper.reported(absorbed.newest)
            keeper.took(book, absorbed.leaves)
            return absorbed

        absorbed = await keeper.do(work)
        for model, tokens in absorbed.unpriced.items():
            keeper.telemetry.unpriced(book.organization, model, tokens)
        for lag, tokens in absorbed.late.items():
            keeper.telemetry.late(book.organization, book.kind.source, lag, tokens)
        return absorbed

    def _finish(self, now: int) -> None:
        keeper = self._keeper
        book = self.book
        book.organization_id = self._source.organization_id or book.organization_id
        if self._cost_days:
            since = min(now, int(keeper.clock.now()), int(keeper.earliest()))
            load_days(keeper.store, book, now, self._cost_days, since)
        if pipeline.finish(keeper.store, book, now):
            keeper.took(book, list(book.leaves.values()))

    def _tell_lost(self, lost: Iterable[Window]) -> None:
        for window in lost:
            facts = {
                "organization": self.book.organization,
                "source": self.book.kind.source,
                "window": str(window),
            }
            log.warning("usage lies further back than can be read: it is not counted", extra=facts)
            self._keeper.telemetry.gap(
                self.book.organization, self.book.kind.source, "lost", window.end - window.start
            )

    def _tell_healed(self, plan: Plan) -> None:
        seconds = sum(window.end - window.start for window in plan.gaps) - self._given_up
        if not seconds:
            return
        facts = {
            "organization": self.book.organization,
            "source": self.book.kind.source,
            "seconds": seconds,
        }
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


def _halved(step: Step) -> list[Step]:
    """The step as two, cut between two buckets; as it is where it has one bucket only."""
    window = step.window
    buckets = -(-(window.end - window.start) // step.width)
    if buckets < 2:
        return [step]
    middle = window.start + buckets // 2 * step.width
    return [
        replace(step, window=Window(window.start, middle)),
        replace(step, window=Window(middle, window.end)),
    ]


def load_days(store: Store, book: Book, now: int, days: int, since: int | None = None) -> None:
    """Have the last days' costs at hand, as they are stored: those up to now, and those up to
    `since`, in case that now is later than it is.
    """
    oldest = floor(now if since is None else since, Width.DAY) - (days - 1) * Width.DAY
    end = floor(now, Width.DAY) + Width.DAY
    found: dict[int, dict[Dims, Amounts]] = {}
    for row in store.rows_within(book, (Width.DAY,), oldest, end):
        found.setdefault(row.start, {})[row.dims] = row.amounts
    book.days = found


def _joined(days: Sequence[Window]) -> list[Window]:
    """Neighbouring days as one window, up to a week: so many hours fit in one call."""
    joined: list[Window] = []
    for day in days:
        if (
            joined
            and joined[-1].end == day.start
            and day.end - joined[-1].start <= LIMITS[Width.HOUR] * Width.HOUR
        ):
            joined[-1] = Window(joined[-1].start, day.end)
        else:
            joined.append(day)
    return joined
