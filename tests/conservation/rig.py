"""The real poller, books, store and display over a simulated world, in accelerated time and without
HTTP.
"""

import itertools
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from otel_openai_usage.composition.stores import open_writer
from otel_openai_usage.config import Location
from otel_openai_usage.domain.endpoints import COST_LIMIT, COSTS, ENDPOINTS, LIMITS, Endpoint
from otel_openai_usage.domain.model import Amounts, Dims, Rows, Width, Window, floor
from otel_openai_usage.domain.pricing import Unpriced
from otel_openai_usage.domain.readings import Bucket, Reading
from otel_openai_usage.domain.reconciliation import total
from otel_openai_usage.domain.snapshot import Board
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.domain.windows import Rules
from otel_openai_usage.engine import polling
from otel_openai_usage.engine.failure_log import FailureLog
from otel_openai_usage.engine.loop import Loop
from otel_openai_usage.engine.ports import Source
from otel_openai_usage.engine.recorder import Clock, Recorder
from otel_openai_usage.engine.usage_poll import UsagePoll
from otel_openai_usage.errors import Unavailable
from otel_openai_usage.simulator.lateness import PROMPT, Lateness
from otel_openai_usage.simulator.world import World
from otel_openai_usage.view.attributes import AttributePolicy
from otel_openai_usage.view.snapshot_builder import RESTATED, SnapshotBuilder

GROUP_BY = ("project_id", "user_id", "api_key_id", "model", "batch", "line_item")
MINUTE = 60
HOUR = 3600
DAY = 86400
MONDAY = int(datetime(2026, 11, 2, tzinfo=UTC).timestamp())


_MINUTES = timedelta(minutes=1)
HASTE = Lateness(
    delay=(timedelta(seconds=20), 6 * _MINUTES), growing=0.3, grows_for=20 * _MINUTES, late=0.1, late_by=(40 * _MINUTES, 600 * _MINUTES),
    restated=0.1, moved=0.05, nameless=0.05, vanishing=0.05, restated_after=(5 * _MINUTES, 60 * _MINUTES), split=0.1,
    costs_delay=30 * _MINUTES, costs_restated=0.2,
)  # fmt: skip
"""All trouble of HARSH in a fifth of the time, so that half a day shows what takes days."""


class VirtualClock:
    """Time that moves when told. `wrong` is how far the machine's clock is off."""

    def __init__(self, now: float) -> None:
        self.true = now
        self.mono = 0.0
        self.wrong = 0.0

    @property
    def now(self) -> float:
        """What the machine believes."""
        return self.true + self.wrong

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self.true += seconds
        self.mono += seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.now, lambda: self.mono)


@dataclass
class WorldSource:
    """Implements ports.Source straight from a World. Fails with probability `trouble`; remembers
    what it was asked.

    `skew` is how far OpenAI's clock is ahead of ours; with `zeros` there is a row of zeros for
    whoever is idle.
    """

    world: World
    endpoint: Endpoint
    time: VirtualClock
    skew: float = 0.0
    failure_log: float = 0.0
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    zeros: bool = False
    asked: list[tuple[Window, Width]] = field(default_factory=list)

    async def read(
        self,
        window: Window,
        width: Width,
        group_by: Sequence[str],
        known_fingerprints: Mapping[int, bytes],
    ) -> Reading:
        assert window.start % width == 0
        assert (window.end - window.start) <= width * (
            COST_LIMIT if self.endpoint is COSTS else LIMITS[width]
        )
        self.asked.append((window, width))
        if self.rng.random() < self.failure_log:
            raise Unavailable("GET usage: 503", status=503)
        now = self.time.true + self.skew
        window = Window(window.start, min(window.end, max(int(now) + 1, window.start + 1)))
        seen = self.world.visible(
            self.endpoint.name, window, width, tuple(group_by), datetime.fromtimestamp(now, UTC)
        )
        if self.zeros:
            everybody = {dims: self.endpoint.zero for rows in seen.values() for dims in rows}
            seen = {start: {**everybody, **rows} for start, rows in seen.items()}
        buckets = [_bucket(start, rows) for start, rows in sorted(seen.items())]
        changed = [
            bucket
            for bucket in buckets
            if known_fingerprints.get(bucket.start) != bucket.fingerprint
        ]
        return Reading(changed)


def _bucket(start: int, rows: Rows) -> Bucket:
    return Bucket(start, repr(list(rows.items())).encode(), rows)


class Nobody:
    """Hears telemetry and adds it up."""

    def __init__(self) -> None:
        self.lates: dict[str, int] = {}
        self.gaps: dict[str, float] = {}

    def poll_began(self, organization: str, source: str, lag: float) -> None: ...
    def polled(self, organization: str, source: str, seconds: float, rows: int) -> None: ...

    def late(self, organization: str, source: str, lag: str, tokens: int) -> None:
        self.lates[lag] = self.lates.get(lag, 0) + tokens

    def gap(self, organization: str, source: str, outcome: str, seconds: float) -> None:
        self.gaps[outcome] = self.gaps.get(outcome, 0) + seconds

    def unpriced(
        self, organization: str, operation: str, unpriced: Unpriced, amount: int
    ) -> None: ...

    def series(self, instrument: str, live: int, folded: int) -> None: ...


@dataclass
class Options:
    """What a run is configured with."""

    settle: int = 3 * HOUR
    reconcile: int = 7 * DAY
    reconcile_interval: float = 900
    width: Width = Width.MINUTE
    group_by: tuple[str, ...] = GROUP_BY
    policy: AttributePolicy = field(default_factory=lambda: AttributePolicy(name_wait=0))
    start: int = 0


class Run:
    """One life of the exporter's process: from a state file to `stop`."""

    def __init__(
        self,
        location: Location,
        sources: Mapping[tuple[str, str], Source],
        time: VirtualClock,
        options: Options,
    ) -> None:
        self.time = time
        self.options = options
        self.sources = sources
        self.store = open_writer(location)
        self.board = Board()
        self.telemetry = Nobody()
        snapshot_builder = SnapshotBuilder(
            options.policy,
            self.store.overflow_members(),
            self.store.high_water_marks(),
            cost_days=2,
        )
        self.recorder = Recorder(
            self.store, snapshot_builder, self.board, time.clock, self.telemetry, otlp=False
        )
        self.source_states: list[SourceState] = []
        self.loops: list[Loop] = []
        for (organization, name), source in sources.items():
            self._add(organization, ENDPOINTS[name], source)
        self.recorder.source_states = self.source_states
        self.recorder.load({})
        self.recorder.publish()

    def _add(self, organization: str, endpoint: Endpoint, source: Source) -> None:
        options = self.options
        now = int(self.time.now)
        epoch = options.start or floor(now, DAY)
        rules = Rules(options.width, options.settle, options.reconcile, LIMITS)
        if endpoint is COSTS:
            epoch = floor(epoch, DAY)
            rules = Rules(
                Width.DAY, options.reconcile, options.reconcile, {Width.DAY: COST_LIMIT}, DAY
            )
        grouping = endpoint.grouping(options.group_by)
        source_state = self.store.source_state(organization, endpoint, epoch, grouping)
        polling.regroup(self.store, source_state, grouping, now)
        poll = UsagePoll(
            self.recorder,
            source,
            source_state,
            rules,
            options.reconcile_interval,
            group_by=grouping,
            cost_days=2 if endpoint is COSTS else 0,
        )
        self.source_states.append(source_state)

        def status(up: bool) -> None:
            source_state.status.up = up

        self.loops.append(
            Loop(endpoint.source, 60, poll.poll, self.recorder, status, FailureLog(organization))
        )

    async def poll(self) -> None:
        """One poll of everything, and what is then to be shown."""
        for loop in self.loops:
            await loop.once()
        await self.recorder.do(self.recorder.publish)

    def points(self) -> dict[tuple[str, str], float]:
        """What stands on the Board, by instrument and attributes."""
        return {
            (name, json.dumps(dict(point.series.attributes), sort_keys=True)): point.value
            for name, points in self.board.current().points.items()
            for point in points
        }

    def counters(self) -> dict[tuple[str, str], float]:
        """Only the counters."""
        return {key: value for key, value in self.points().items() if key[0] in COUNTERS}

    def stop(self) -> None:
        """End this life. Nothing is written on the way out: a kill would not do so either."""
        self.recorder._thread.shutdown()
        self.store.close()


COUNTERS = {
    "openai.api.tokens", "openai.api.requests", "openai.api.cost", "openai.api.images", "openai.api.characters", "openai.api.audio",
    "openai.api.sessions", "openai.api.searches",
}  # fmt: skip


def truth(world: World, source_state: SourceState, now: float) -> dict[Dims, Amounts]:
    """What the world says was used since the book's epoch, each stretch by the grouping that it was
    read with.
    """
    starts = [since for since, _ in source_state.groupings.entries[1:]]
    edges = [
        source_state.progress.epoch,
        *starts,
        floor(int(now), source_state.endpoint.widths[0])
        + (DAY if source_state.endpoint is COSTS else 0),
    ]
    return added(
        _stretch(world, source_state.endpoint, start, end, grouping, now)
        for (start, end), (_, grouping) in zip(
            itertools.pairwise(edges), source_state.groupings.entries, strict=True
        )
        if start < end
    )


def _stretch(
    world: World, endpoint: Endpoint, start: int, end: int, grouping: tuple[str, ...], now: float
) -> Rows:
    if endpoint is not COSTS:
        return world.totals(endpoint.name, Window(start, end), grouping)
    seen = world.visible(
        endpoint.name, Window(start, end), Width.DAY, grouping, datetime.fromtimestamp(now, UTC)
    )
    return added(seen.values())


def added(buckets: Iterable[Rows]) -> dict[Dims, Amounts]:
    """The sum of buckets, without attribute sets that used nothing."""
    sums: dict[Dims, Amounts] = {}
    for rows in buckets:
        for dims, amounts in rows.items():
            sums[dims] = total(sums[dims], amounts) if dims in sums else amounts
    return {dims: amounts for dims, amounts in sums.items() if any(amounts)}


def counted(source_state: SourceState) -> dict[Dims, Amounts]:
    """What the book says that OpenAI reports."""
    return {
        dims: stored_series.total
        for dims, stored_series in source_state.series.items()
        if any(stored_series.total)
    }


class Life:
    """The exporter over days, through restarts: polled, watched at every scrape, and in the end
    compared with the world.
    """

    def __init__(
        self,
        path: Location,
        world: World,
        *,
        endpoints: Sequence[str] = ("completions",),
        organizations: Sequence[str] = ("default",),
        begin: int = MONDAY + 9 * HOUR + 17 * MINUTE + 31,
        failure_log: float = 0.0,
        seed: int = 1,
        options: Options | None = None,
    ) -> None:
        self.path = path
        self.world = world
        self.time = VirtualClock(begin)
        self.rng = random.Random(seed)
        self.options = options or Options()
        self.endpoints = list(endpoints)
        self.organizations = list(organizations)
        self.failure_log = failure_log
        self.skew = 0.0
        self.zeros = False
        self.seen: dict[tuple[str, str], float] = {}
        self.gaps: dict[str, float] = {}
        self.run = self._run()

    def _run(self) -> Run:
        self.sources = {
            (organization, name): self.source(name)
            for organization in self.organizations
            for name in self.endpoints
        }
        return Run(self.path, self.sources, self.time, self.options)

    def source(self, endpoint: str) -> Source:
        """Where usage is read from."""
        return WorldSource(
            self.world,
            ENDPOINTS[endpoint],
            self.time,
            self.skew,
            self.failure_log,
            self.rng,
            self.zeros,
        )

    def calm(self) -> None:
        """From now on OpenAI knows everything, and every poll succeeds."""
        self.world.lateness = PROMPT
        for source in self.sources.values():
            if isinstance(source, WorldSource):
                source.failure_log = 0

    async def live(
        self, seconds: float, *, pauses: Sequence[int] = (60, 60, 300, 300, 900), kills: float = 0.0
    ) -> None:
        """Poll for so long; `kills` is the chance of a kill -9 and some downtime after each poll."""
        end = self.time.true + seconds
        while self.time.true < end:
            await self.poll()
            self.time.pass_(self.rng.choice(pauses))
            if self.rng.random() < kills:
                self.restart(downtime=self.rng.choice((1, 60, HOUR, 8 * HOUR, DAY)))
        await self.poll()

    async def poll(self) -> None:
        """One poll of everything; no counter may fall, and none be lower than what OpenAI reports."""
        await self.run.poll()
        self.watch()

    def watch(self) -> None:
        """Scrape."""
        now = self.run.counters()
        fallen = {
            key: (self.seen[key], now[key])
            for key in self.seen.keys() & now.keys()
            if now[key] < self.seen[key]
        }
        assert not fallen, f"counters fell: {list(fallen.items())[:3]}"
        self.seen |= now

    def restart(self, *, downtime: float = 0, forget: bool = False, **changes: object) -> None:
        """Kill it, wait, and start it with a changed configuration. `forget`: other series than
        before are fine.
        """
        self.stop()
        self.time.pass_(downtime)
        for name, value in changes.items():
            setattr(self.options if hasattr(self.options, name) else self, name, value)
        self.run = self._run()
        again = self.run.counters()
        if not forget:
            lost = {
                key: (self.seen[key], again.get(key))
                for key in self.seen
                if again.get(key) != self.seen[key]
            }
            assert not lost, f"a restart changed {list(lost.items())[:3]}"
        self.seen = again

    def stop(self) -> None:
        """End this process."""
        for outcome, seconds in self.run.telemetry.gaps.items():
            self.gaps[outcome] = self.gaps.get(outcome, 0) + seconds
        self.run.stop()

    async def settle(self) -> None:
        """Let OpenAI know everything from now on, and poll without trouble until all must be good:
        a lower day needs over two hours.
        """
        self.calm()
        for _ in range(12):
            self.time.pass_(1900)
            await self.poll()

    async def end(self) -> None:
        """Settle, and compare: totals with the world, what is shown with totals."""
        await self.settle()
        self.compare()
        self.stop()

    def compare(self) -> None:
        """Every series of every book is the world's own, and what is shown less what is pending
        adds up to it.
        """
        for source_state in self.run.source_states:
            assert counted(source_state) == truth(self.world, source_state, self.time.true), (
                source_state.endpoint.name
            )
        points = self.run.points()
        for instrument in sorted(COUNTERS):
            shown = sum(value for (name, _), value in points.items() if name == instrument)
            told = [
                (json.loads(who)["instrument"], value)
                for (name, who), value in points.items()
                if name == RESTATED
            ]
            pending = sum(value for name, value in told if name == instrument)
            expected = sum(
                float(stored_series.total[index])
                for source_state in self.run.source_states
                for stored_series in source_state.series.values()
                for index, measure in enumerate(source_state.endpoint.measures)
                if measure.instrument == instrument and self.run.options.policy.shows(measure)
            )
            assert shown - pending == (
                pytest.approx(expected) if instrument == "openai.api.cost" else expected
            ), instrument
