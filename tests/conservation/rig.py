"""The real poller, books, store and display over a simulated world, in accelerated time and without HTTP."""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from otel_openai_usage.core.book import Book
from otel_openai_usage.core.display import Display
from otel_openai_usage.core.kinds import COST_LIMIT, COSTS, KINDS, LIMITS, Kind
from otel_openai_usage.core.ledger import total
from otel_openai_usage.core.model import Amounts, Bucket, Dims, Rows, Width, Window, floor
from otel_openai_usage.core.shape import Look
from otel_openai_usage.core.snapshot import Board
from otel_openai_usage.core.windows import Rules
from otel_openai_usage.errors import Unavailable
from otel_openai_usage.poller import Clock, Keeper, Loop, Trouble, UsagePoll
from otel_openai_usage.simulator.world import World
from otel_openai_usage.state.sqlite import Store

GROUP_BY = ("project_id", "user_id", "api_key_id", "model", "batch", "line_item")
MINUTE, HOUR, DAY = 60, 3600, 86400
MONDAY = int(datetime(2026, 11, 2, tzinfo=UTC).timestamp())


class VirtualClock:
    """Time that moves when told."""

    def __init__(self, now: float) -> None:
        self.now, self.mono = now, 0.0

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        self.mono += seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.now, lambda: self.mono)


@dataclass
class WorldSource:
    """Implements ports.Source straight from a World. Fails with probability `trouble`; remembers what it was asked."""

    world: World
    kind: Kind
    time: VirtualClock
    skew: float = 0.0
    trouble: float = 0.0
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    asked: list[tuple[Window, Width]] = field(default_factory=list)

    async def read(self, window: Window, width: Width, group_by: Sequence[str]) -> list[Bucket]:
        assert window.start % width == 0
        assert (window.end - window.start) <= width * (COST_LIMIT if self.kind is COSTS else LIMITS[width])
        self.asked.append((window, width))
        if self.rng.random() < self.trouble:
            raise Unavailable("GET usage: 503", status=503)
        now = datetime.fromtimestamp(self.time.now + self.skew, UTC)
        seen = self.world.visible(self.kind.name, window, width, tuple(group_by), now)
        return [self._bucket(start, rows) for start, rows in seen.items()]

    def _bucket(self, start: int, rows: Rows) -> Bucket:
        results = json.dumps([[dims, [str(amount) for amount in amounts]] for dims, amounts in rows.items()]).encode()
        return Bucket(start, results, results)

    def parse(self, results: bytes) -> dict[Dims, Amounts]:
        number = [Decimal if measure.money else int for measure in self.kind.measures]
        return {tuple(dims): tuple(of(amount) for of, amount in zip(number, amounts, strict=True)) for dims, amounts in json.loads(results)}


class Nobody:
    """Hears telemetry and adds it up."""

    def __init__(self) -> None:
        self.lates: dict[str, int] = {}
        self.gaps: dict[str, float] = {}

    def polled(self, organization: str, source: str, seconds: float, rows: int, lag: float = 0.0) -> None: ...

    def late(self, organization: str, source: str, lag: str, tokens: int) -> None:
        self.lates[lag] = self.lates.get(lag, 0) + tokens

    def gap(self, organization: str, source: str, outcome: str, seconds: float) -> None:
        self.gaps[outcome] = self.gaps.get(outcome, 0) + seconds

    def series(self, instrument: str, live: int, folded: int) -> None: ...


@dataclass
class Options:
    """What a run is configured with."""

    settle: int = 3 * HOUR
    reconcile: int = 7 * DAY
    reconcile_interval: float = 900
    width: Width = Width.MINUTE
    group_by: tuple[str, ...] = GROUP_BY
    look: Look = field(default_factory=lambda: Look(name_wait=0))
    start: int = 0


class Run:
    """One life of the exporter's process: from a state file to `stop`."""

    def __init__(self, path: Path | str, sources: Mapping[tuple[str, str], WorldSource], time: VirtualClock, options: Options) -> None:
        self.time, self.options, self.sources = time, options, sources
        self.store = Store(path)
        self.board, self.telemetry = Board(), Nobody()
        display = Display(options.look, self.store.folds(), cost_days=2)
        self.keeper = Keeper(self.store, display, self.board, time.clock, self.telemetry, otlp=False)
        self.books: list[Book] = []
        self.loops: list[Loop] = []
        for (organization, name), source in sources.items():
            self._add(organization, KINDS[name], source)
        self.keeper.fold(display.load(self.books, {}, time.now))
        self.keeper.publish()

    def _add(self, organization: str, kind: Kind, source: WorldSource) -> None:
        options, now = self.options, int(self.time.now)
        epoch = options.start or floor(now, DAY)
        rules = Rules(options.width, options.settle, options.reconcile, LIMITS)
        if kind is COSTS:
            epoch = floor(epoch, DAY)
            rules = Rules(Width.DAY, options.reconcile, options.reconcile, {Width.DAY: COST_LIMIT}, DAY)
        grouping = kind.grouping(options.group_by)
        book = self.store.book(organization, kind, epoch, grouping)
        if book.regroup(grouping, floor(now, DAY) + DAY):
            self.store.regroup(book)
        poll = UsagePoll(self.keeper, source, book, rules, options.reconcile_interval, cost_days=2 if kind is COSTS else 0)
        self.books.append(book)

        def status(up: bool) -> None:
            book.up = up

        self.loops.append(Loop(kind.source, 60, poll.poll, self.keeper, status, Trouble(organization)))

    async def poll(self) -> None:
        """One poll of everything, and what is then to be shown."""
        for loop in self.loops:
            await loop.once()
        await self.keeper.do(self.keeper.publish)

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
        self.keeper._thread.shutdown()
        self.store.close()


COUNTERS = {
    "openai.api.tokens", "openai.api.requests", "openai.api.cost", "openai.api.images", "openai.api.characters", "openai.api.audio",
    "openai.api.sessions", "openai.api.searches",
}  # fmt: skip


def truth(world: World, kind: Kind, start: int, now: float, group_by: Sequence[str] = GROUP_BY) -> dict[Dims, Amounts]:
    """What the world says was used from `start` until `now`, by a world that hides nothing any more."""
    end = floor(int(now), kind.widths[0])
    if kind is COSTS:
        seen = world.visible(
            kind.name, Window(start, end + DAY), Width.DAY, kind.grouping(tuple(group_by)), datetime.fromtimestamp(now, UTC)
        )
        return added(seen.values())
    return added([world.totals(kind.name, Window(start, end), kind.grouping(tuple(group_by)))])


def added(buckets: Iterable[Rows]) -> dict[Dims, Amounts]:
    """The sum of buckets, without attribute sets that used nothing."""
    sums: dict[Dims, Amounts] = {}
    for rows in buckets:
        for dims, amounts in rows.items():
            sums[dims] = total(sums[dims], amounts) if dims in sums else amounts
    return {dims: amounts for dims, amounts in sums.items() if any(amounts)}
