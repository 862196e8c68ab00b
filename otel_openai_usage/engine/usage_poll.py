"""Polls one usage endpoint, or costs, into its book."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from otel_openai_usage.domain import windows
from otel_openai_usage.domain.commits import Delta
from otel_openai_usage.domain.endpoints import LIMITS
from otel_openai_usage.domain.model import Amounts, Dims, Width, Window, floor
from otel_openai_usage.domain.pricing import PriceList
from otel_openai_usage.domain.readings import Reading
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.domain.windows import Plan, Step
from otel_openai_usage.engine import recording
from otel_openai_usage.engine.ports import Source
from otel_openai_usage.engine.recorder import Recorder
from otel_openai_usage.engine.recording import Recorded
from otel_openai_usage.errors import GroupingRefused, LookbackExceeded, TooLarge
from otel_openai_usage.storage.ports import Writer

log = logging.getLogger(__name__)

DAYS_PER_HOURS = 4
"""Days are compared so many times less often than hours."""


SPLITS = 4
"""How many times a window is halved whose answer is too large."""


class UsagePoll:
    """Polls one usage endpoint, or costs, into its book."""

    def __init__(
        self,
        recorder: Recorder,
        source: Source,
        source_state: SourceState,
        rules: windows.Rules,
        reconcile_interval: float,
        *,
        group_by: tuple[str, ...] | None = None,
        cost_days: int = 0,
        prices: PriceList | None = None,
        learn_units: Callable[[Mapping[str, set[str]]], None] = lambda units: None,
    ) -> None:
        self._recorder = recorder
        self._source = source
        self.source_state = source_state
        self._rules = rules
        self._every = {
            Width.HOUR: reconcile_interval,
            Width.DAY: reconcile_interval * DAYS_PER_HOURS,
        }
        self._done: dict[Width, float] = {}
        self._group_by = group_by
        self._cost_days = cost_days
        self._prices = prices
        self._learn_units = learn_units
        self._told_lookback = False
        self._told_refused: set[str] = set()
        self._given_up = 0

    async def poll(self) -> None:
        """Read every step that is due, freshest first. Raises SourceError or StateError."""
        clock = self._recorder.clock
        source_state = self.source_state
        began = clock.mono()
        # By a clock that is behind, days would be read anew that are soon out of reach.
        now = int(self._recorder.latest())
        hours, days = (self._due(width, began) for width in (Width.HOUR, Width.DAY))
        plan = await self._recorder.do(lambda: self._plan(now, hours=hours, days=days))
        whole_days: Sequence[Step] = ()
        if hours:
            whole_days = await self._recorder.do(
                lambda: recording.whole_days(self._recorder.store, source_state, plan)
            )
        self._tell_lost(plan.lost)
        rows = self._given_up = 0
        for step in (*plan.steps, *whole_days):
            rows += await self._step(step, plan)
        if plan.gaps and source_state.progress.complete:
            self._tell_healed(plan)
        self._done |= {
            width: began
            for width, was in ((Width.HOUR, hours or bool(plan.gaps)), (Width.DAY, days))
            if was
        }
        await self._recorder.do(lambda: self._finish(now))
        self._recorder.telemetry.polled(
            source_state.organization, source_state.endpoint.source, clock.mono() - began, rows
        )

    def _plan(self, now: int, *, hours: bool, days: bool) -> Plan:
        if self._group_by is not None:
            recording.regroup(self._recorder.store, self.source_state, self._group_by, now)
        return recording.due(self.source_state, now, self._rules, hours=hours, days=days)

    def _due(self, width: Width, mono: float) -> bool:
        last = self._done.get(width)
        return last is None or mono - last >= self._every[width]

    async def _step(self, step: Step, plan: Plan, *, splits: int = SPLITS) -> int:
        """Read and book one step; in halves where its answer is too large, `splits` times over."""
        try:
            reading = await self._source.read(
                step.window,
                step.width,
                self.source_state.groupings.at(step.window.start),
                self.source_state.fingerprints.known(step.window, step.width),
            )
        except GroupingRefused as error:
            return await self._regrouped(step, plan, error)
        except LookbackExceeded as error:
            if not step.coarse:
                raise
            self._tell_lookback(step, error)
            lost = await self._recorder.do(
                lambda: recording.mark_lost(self.source_state, step.window)
            )
            self._given_up += sum(window.end - window.start for window in lost)
            self._tell_lost(lost)
            return 0
        except TooLarge:
            halves = _halved(step)
            if len(halves) == 1 or splits == 0:
                raise
            return sum([await self._step(half, plan, splits=splits - 1) for half in halves])
        absorbed = await self._absorb(step, reading, plan)
        rows = absorbed.rows
        if absorbed.refine:
            for window in _joined(absorbed.refine):
                rows += await self._step(Step(window, Width.HOUR, coarse=True), plan)
            rows += (await self._absorb(step, reading, plan, refined=True)).rows
        return rows

    async def _regrouped(self, step: Step, plan: Plan, refused: GroupingRefused) -> int:
        """Take a step without the dimensions that OpenAI refuses there."""
        recorder = self._recorder
        source_state = self.source_state
        left_out = await recorder.do(
            lambda: recording.leave_out(recorder.store, source_state, step.window, refused)
        )
        if left_out is None:
            raise refused
        if not self._told_refused.issuperset(left_out.news):
            self._told_refused |= set(left_out.news)
            log.warning(
                refused.summary,
                extra=refused.facts(source_state.organization, source_state.endpoint.source),
            )
        rows = 0
        for window in windows.pieces(step.window, source_state.groupings.cuts):
            rows += await self._step(Step(window, step.width, step.coarse), plan)
        return rows

    async def _absorb(
        self, step: Step, reading: Reading, plan: Plan, *, refined: bool = False
    ) -> Recorded:
        recorder = self._recorder
        source_state = self.source_state

        def work() -> Recorded:
            now = recorder.latest()
            self._learn_units(reading.units)
            absorbed = recording.record_reading(
                recorder.store,
                source_state,
                step,
                reading.buckets,
                int(now),
                fine_from=plan.fine_from,
                refined=refined,
                prices=self._prices,
            )
            source_state.organization_id = reading.organization_id or source_state.organization_id
            recorder.reported(absorbed.newest)
            recorder.apply(absorbed.delta)
            return absorbed

        absorbed = await recorder.do(work)
        for model, tokens in absorbed.unpriced.items():
            recorder.telemetry.unpriced(source_state.organization, model, tokens)
        for lag, tokens in absorbed.late.items():
            recorder.telemetry.late(
                source_state.organization, source_state.endpoint.source, lag, tokens
            )
        return absorbed

    def _finish(self, now: int) -> None:
        recorder = self._recorder
        source_state = self.source_state
        if self._cost_days:
            since = min(now, int(recorder.clock.now()), int(recorder.earliest()))
            load_days(recorder.store, source_state, now, self._cost_days, since)
        if recording.finish(recorder.store, source_state, now):
            recorder.apply(Delta(source_state, list(source_state.series.values())))

    def _tell_lost(self, lost: Iterable[Window]) -> None:
        for window in lost:
            facts = {
                "organization": self.source_state.organization,
                "source": self.source_state.endpoint.source,
                "window": str(window),
            }
            log.warning("usage lies further back than can be read: it is not counted", extra=facts)
            self._recorder.telemetry.gap(
                self.source_state.organization,
                self.source_state.endpoint.source,
                "lost",
                window.end - window.start,
            )

    def _tell_healed(self, plan: Plan) -> None:
        seconds = sum(window.end - window.start for window in plan.gaps) - self._given_up
        if not seconds:
            return
        facts = {
            "organization": self.source_state.organization,
            "source": self.source_state.endpoint.source,
            "seconds": seconds,
        }
        log.info("a gap was read", extra=facts)
        self._recorder.telemetry.gap(
            self.source_state.organization, self.source_state.endpoint.source, "healed", seconds
        )

    def _tell_lookback(self, step: Step, error: LookbackExceeded) -> None:
        if not self._told_lookback:
            self._told_lookback = True
            facts = {
                "organization": self.source_state.organization,
                "source": self.source_state.endpoint.source,
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


def load_days(
    store: Writer, source_state: SourceState, now: int, days: int, since: int | None = None
) -> None:
    """Have the last days' costs at hand, as they are stored: those up to now, and those up to
    `since`, in case that now is later than it is.
    """
    oldest = floor(now if since is None else since, Width.DAY) - (days - 1) * Width.DAY
    end = floor(now, Width.DAY) + Width.DAY
    found: dict[int, dict[Dims, Amounts]] = {}
    for row in store.rows_within(source_state, (Width.DAY,), oldest, end):
        found.setdefault(row.start, {})[row.dims] = row.amounts
    source_state.days = found


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
