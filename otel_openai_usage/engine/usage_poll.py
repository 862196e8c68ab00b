"""Polls one usage endpoint, or costs: plans the steps, reads and records each, ends the poll."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from otel_openai_usage.domain import windows
from otel_openai_usage.domain.commits import Delta
from otel_openai_usage.domain.model import Amounts, Dims, Width, Window, floor
from otel_openai_usage.domain.pricing import PriceList
from otel_openai_usage.domain.readings import Reading
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.domain.windows import Plan, Step
from otel_openai_usage.engine import polling
from otel_openai_usage.engine.ports import Source
from otel_openai_usage.engine.recorder import Recorder
from otel_openai_usage.engine.recording import Recorded
from otel_openai_usage.errors import GroupingRefused, LookbackExceeded, TooLarge
from otel_openai_usage.storage.ports import Writer

log = logging.getLogger(__name__)

DAYS_PER_HOURS = 4
"""How many times less often days are reconciled than hours."""

SPLITS = 4
"""How many times a window is halved if its answer is too large."""


class UsagePoll:
    """Polls one source. `reconcile_interval` is in seconds.

    With `group_by` None the grouping is never changed. `cost_days` is how many days of costs are
    loaded for the view. `learn_units` is called with the units of quantities by line item.
    """

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
        self._intervals = {
            Width.HOUR: reconcile_interval,
            Width.DAY: reconcile_interval * DAYS_PER_HOURS,
        }
        self._reconciled_at: dict[Width, float] = {}
        self._group_by = group_by
        self._cost_days = cost_days
        self._prices = prices
        self._learn_units = learn_units
        self._has_logged_lookback = False
        self._logged_refusals: set[str] = set()
        self._lost_seconds = 0

    async def poll(self) -> None:
        """Read every step that is due, newest first. Raises SourceError or StateError."""
        recorder = self._recorder
        started = recorder.clock.mono()
        # With a clock that is behind, old days would be read that are soon out of reach.
        now = int(recorder.latest())
        hours = self._due(Width.HOUR, started)
        days = self._due(Width.DAY, started)
        if self._prices:
            await recorder.do(partial(self._prices.refresh, recorder.clock.now()))
        plan = await recorder.do(lambda: self._plan(now, hours=hours, days=days))
        steps = list(plan.steps)
        if hours:
            steps += await recorder.do(lambda: self._whole_days(plan))
        self._report_lost(plan.lost)
        self._lost_seconds = 0
        rows = 0
        for step in steps:
            rows += await self._step(step, plan)
        if plan.gaps and self.source_state.progress.complete:
            self._report_healed(plan)
        if hours or plan.gaps:
            self._reconciled_at[Width.HOUR] = started
        if days:
            self._reconciled_at[Width.DAY] = started
        await recorder.do(lambda: self._finish(now))
        seconds = recorder.clock.mono() - started
        recorder.telemetry.polled(self._organization, self._source_name, seconds, rows)

    @property
    def _organization(self) -> str:
        return self.source_state.organization

    @property
    def _source_name(self) -> str:
        return self.source_state.endpoint.source

    def _plan(self, now: int, *, hours: bool, days: bool) -> Plan:
        if self._group_by is not None:
            polling.regroup(self._recorder.store, self.source_state, self._group_by, now)
        return polling.due(self.source_state, now, self._rules, hours=hours, days=days)

    def _whole_days(self, plan: Plan) -> Sequence[Step]:
        return polling.whole_days(self._recorder.store, self.source_state, plan)

    def _due(self, width: Width, mono: float) -> bool:
        last = self._reconciled_at.get(width)
        return last is None or mono - last >= self._intervals[width]

    async def _step(self, step: Step, plan: Plan, *, splits: int = SPLITS) -> int:
        """Read and record one step. Return how many rows it had.

        If the answer is too large, the step is halved, `splits` times at most.
        """
        source_state = self.source_state
        try:
            reading = await self._source.read(
                step.window,
                step.width,
                source_state.groupings.at(step.window.start),
                source_state.fingerprints.known(step.window, step.width),
            )
        except GroupingRefused as error:
            return await self._step_without_dimensions(step, plan, error)
        except LookbackExceeded as error:
            # The newest buckets cannot be too old, so for them this is an error of another kind.
            if not step.coarse:
                raise
            await self._mark_lost(step, error)
            return 0
        except TooLarge:
            halves = _halved(step)
            if len(halves) == 1 or splits == 0:
                raise
            rows = 0
            for half in halves:
                rows += await self._step(half, plan, splits=splits - 1)
            return rows
        recorded = await self._record(step, reading, plan)
        rows = recorded.rows
        # The hours show where a day differs. What they lack then becomes a row of the day.
        if recorded.refine:
            for window in self._joined(recorded.refine):
                rows += await self._step(Step(window, Width.HOUR, coarse=True), plan)
            recorded = await self._record(step, reading, plan, refined=True)
            rows += recorded.rows
        return rows

    async def _step_without_dimensions(
        self, step: Step, plan: Plan, refused: GroupingRefused
    ) -> int:
        """Read a step without the dimensions that OpenAI refuses there."""
        recorder = self._recorder
        source_state = self.source_state
        left_out = await recorder.do(
            lambda: polling.leave_out(recorder.store, source_state, step.window, refused)
        )
        if left_out is None:
            raise refused
        if not self._logged_refusals.issuperset(left_out.news):
            self._logged_refusals |= set(left_out.news)
            facts = refused.facts(self._organization, self._source_name)
            log.warning(refused.summary, extra=facts)
        rows = 0
        # The grouping may now change within the step, and a request has only one grouping.
        for window in windows.pieces(step.window, source_state.groupings.cuts):
            rows += await self._step(Step(window, step.width, step.coarse), plan)
        return rows

    async def _mark_lost(self, step: Step, error: LookbackExceeded) -> None:
        """Note that OpenAI no longer reports the window of a step: it is not read again."""
        self._log_lookback(step, error)
        lost = await self._recorder.do(lambda: polling.mark_lost(self.source_state, step.window))
        self._lost_seconds += _seconds(lost)
        self._report_lost(lost)

    async def _record(
        self, step: Step, reading: Reading, plan: Plan, *, refined: bool = False
    ) -> Recorded:
        recorder = self._recorder

        def record() -> Recorded:
            self._learn_units(reading.units)
            return recorder.record(
                self.source_state,
                step,
                reading,
                fine_from=plan.fine_from,
                refined=refined,
                prices=self._prices,
            )

        recorded = await recorder.do(record)
        operation = self.source_state.endpoint.name
        for unpriced, amount in recorded.unpriced.items():
            recorder.telemetry.unpriced(self._organization, operation, unpriced, amount)
        for lag, tokens in recorded.late.items():
            recorder.telemetry.late(self._organization, self._source_name, lag, tokens)
        return recorded

    def _finish(self, now: int) -> None:
        recorder = self._recorder
        source_state = self.source_state
        if self._cost_days:
            since = min(now, int(recorder.clock.now()), int(recorder.earliest()))
            load_days(recorder.store, source_state, now, self._cost_days, since)
        is_first = polling.finish(recorder.store, source_state, now)
        if is_first:
            # Until the first poll is complete the view shows nothing of a source.
            recorder.apply(Delta(source_state, list(source_state.series.values())))

    def _report_lost(self, lost: Iterable[Window]) -> None:
        for window in lost:
            facts = {
                "organization": self._organization,
                "source": self._source_name,
                "window": str(window),
            }
            log.warning(
                "usage is older than can be read; it is not counted",
                extra={"event": "usage_lost", **facts},
            )
            seconds = window.end - window.start
            self._recorder.telemetry.gap(self._organization, self._source_name, "lost", seconds)

    def _report_healed(self, plan: Plan) -> None:
        seconds = _seconds(plan.gaps) - self._lost_seconds
        if not seconds:
            return
        facts = {
            "organization": self._organization,
            "source": self._source_name,
            "seconds": seconds,
        }
        log.info("a gap was read", extra={"event": "gap_read", **facts})
        self._recorder.telemetry.gap(self._organization, self._source_name, "healed", seconds)

    def _log_lookback(self, step: Step, error: LookbackExceeded) -> None:
        if self._has_logged_lookback:
            return
        self._has_logged_lookback = True
        facts = {
            "organization": self._organization,
            "source": self._source_name,
            "window": str(step.window),
            "error": str(error),
        }
        log.warning(
            "OpenAI does not report usage that is so old; lower usage.reconcile",
            extra={"event": "lookback_exceeded", **facts},
        )

    def _joined(self, days: Sequence[Window]) -> list[Window]:
        """Neighbouring days as one window, if its hours fit into one request."""
        longest = self.source_state.endpoint.limits[Width.HOUR] * Width.HOUR
        joined: list[Window] = []
        for day in days:
            last = joined[-1] if joined else None
            if last and last.end == day.start and day.end - last.start <= longest:
                joined[-1] = Window(last.start, day.end)
            else:
                joined.append(day)
        return joined


def _seconds(spans: Iterable[Window]) -> int:
    return sum(window.end - window.start for window in spans)


def _halved(step: Step) -> list[Step]:
    """The step as two, cut between two buckets; a step of one bucket stays as it is."""
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
    """Load the costs of the last days into the state. Raises StateError.

    `since` is a time that has certainly passed: if the clock that gave `now` is ahead, the days
    that are really the last ones are loaded too.
    """
    newest = now if since is None else since
    oldest = floor(newest, Width.DAY) - (days - 1) * Width.DAY
    end = floor(now, Width.DAY) + Width.DAY
    found: dict[int, dict[Dims, Amounts]] = {}
    for row in store.rows_within(source_state, (Width.DAY,), oldest, end):
        found.setdefault(row.start, {})[row.dims] = row.amounts
    source_state.days = found
