"""The legacy source at midnight, and under clocks that are wrong."""

import logging
import math
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_openai_usage.domain.endpoints import LEGACY
from otel_openai_usage.domain.legacy_day import Shown
from otel_openai_usage.domain.model import Width
from otel_openai_usage.domain.snapshot import Board
from otel_openai_usage.engine.recorder import Clock, Recorder
from otel_openai_usage.errors import BadRequest, SourceError, Unavailable
from otel_openai_usage.providers.openai.legacy.poll import TRIES, LegacyPoll, Pace
from otel_openai_usage.providers.openai.legacy.source import Day
from otel_openai_usage.storage.sqlite.queries import open_queries
from otel_openai_usage.storage.sqlite.store import Store
from otel_openai_usage.view.attributes import AttributePolicy
from otel_openai_usage.view.snapshot_builder import SnapshotBuilder
from tests.conservation.rig import Nobody

DAY = int(Width.DAY)
MONDAY = 1_793_577_600
REFUSED = BadRequest("GET usage: 400: date too old", status=400)


class Ear(Nobody):
    def skipped(self, organization: str, source: str, records: int) -> None: ...


class Usage:
    """What OpenAI knows: tokens by UTC day, of which a day in the future has none."""

    def __init__(self) -> None:
        self.tokens: dict[int, int] = {}
        self.fails: dict[int, SourceError] = {}
        self.asked: list[int] = []

    async def read(self, day: int) -> AsyncIterator[Day]:
        self.asked.append(day)
        if day in self.fails:
            raise self.fails[day]
        tokens = self.tokens.get(day)
        dims = tuple("x" if name == "model" else None for name in LEGACY.dimensions)
        yield Day({day: {dims: (1, tokens, 0, 0, 0, 0, 0)}} if tokens else {})


class Scene:
    """The legacy source, its state, and a clock that can be wrong. Every value shown is kept."""

    def __init__(self, path: Path | str, hold: float = 0) -> None:
        self.path = path
        self.hold = hold
        self.true = float(MONDAY + 12 * 3600)
        self.wrong = 0.0
        self.usage = Usage()
        self.values: list[float] = []
        self.frames: list[Shown] = []
        self.start()

    def start(self) -> None:
        """Begin a process."""
        self.store = Store(self.path)

        async def sleep(seconds: float) -> None:
            self.true += seconds

        scene = self

        class Watched(SnapshotBuilder):
            def apply_legacy(self, shown: Shown | None) -> None:
                if shown:
                    scene.frames.append(shown)
                    scene.values.append(sum(sums[1] for sums in shown.sums.values()))
                super().apply_legacy(shown)

        clock = Clock(lambda: self.true + self.wrong, lambda: self.true, sleep)
        self.recorder = Recorder(
            self.store, Watched(AttributePolicy()), Board(), clock, Ear(), otlp=False
        )
        self.recorder.load({})
        source_state = self.store.source_state("default", LEGACY, 0, ())
        self.poll_ = LegacyPoll(
            self.recorder, self.store, self.usage, source_state, Ear(), hold=self.hold
        )

    def stop(self) -> None:
        """End the process."""
        self.recorder._thread.shutdown()
        self.store.close()

    def restart(self) -> None:
        self.stop()
        self.start()

    async def poll(self, later: float = 300) -> None:
        self.true += later
        await self.poll_.poll()

    @property
    def day(self) -> int:
        return self.frames[-1].day

    def increase(self) -> float:
        """What Prometheus's increase() makes of all values, the first included."""
        total = 0.0
        before = 0.0
        for value in self.values:
            total += value - before if value >= before else value
            before = value
        return total


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A scene on a new state."""
    made = Scene(tmp_path / "state.db", hold=60)
    yield made
    made.stop()


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("error", [REFUSED, Unavailable("GET usage: 500", status=500)], ids=str)
async def test_today_begins_though_yesterday_is_refused(
    scene: Scene, error: SourceError, restarted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Today is read and shown after midnight; yesterday is tried again beside it, and given up after
    a while with a log line.
    """
    caplog.set_level(logging.WARNING)
    scene.usage.tokens = {MONDAY: 10}
    await scene.poll()
    scene.usage.fails = {MONDAY: error}
    scene.usage.tokens[MONDAY + DAY] = 7
    await scene.poll(DAY)
    assert (scene.day, scene.values[-1]) == (MONDAY + DAY, 7)
    for _ in range(TRIES + 3):
        if restarted:
            scene.restart()
        await scene.poll()
    assert scene.usage.asked.count(MONDAY) == 1 + 1 + TRIES
    assert caplog.text.count("today begins") == 1
    assert caplog.text.count("is given up") == 1
    events = [getattr(record, "event", "") for record in caplog.records]
    assert events.count("legacy_day_unread") == events.count("legacy_day_given_up") == 1


async def test_yesterday_that_is_read_late_is_in_the_history(scene: Scene) -> None:
    """A day that could be read again is kept, and no longer asked for."""
    scene.usage.tokens = {MONDAY: 10}
    await scene.poll()
    scene.usage.fails = {MONDAY: REFUSED}
    scene.usage.tokens |= {MONDAY: 12, MONDAY + DAY: 7}
    await scene.poll(DAY)
    scene.usage.fails = {}
    await scene.poll()
    await scene.poll()
    assert scene.usage.asked.count(MONDAY) == 4
    with open_queries(Path(scene.path)) as past:
        rows = past.usage(MONDAY, MONDAY + 2 * DAY, record="legacy_usage")
    assert [row.input for row in rows] == [12, 7]
    assert scene.values[-1] == 7


async def test_an_outage_at_midnight_keeps_the_last_reading(scene: Scene) -> None:
    """While nothing can be read, yesterday's sums stay; then its last reading comes before today's."""
    scene.usage.tokens = {MONDAY: 10}
    await scene.poll()
    down = Unavailable("GET usage: 503", status=503)
    scene.usage.fails = {MONDAY: down, MONDAY + DAY: down}
    with pytest.raises(Unavailable):
        await scene.poll(DAY)
    scene.usage.fails = {}
    scene.usage.tokens |= {MONDAY: 12, MONDAY + DAY: 7}
    await scene.poll()
    assert (scene.day, scene.values[-1], scene.increase()) == (MONDAY + DAY, 7, 19)


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_clock_that_goes_back_over_midnight_counts_once(
    scene: Scene, restarted: bool
) -> None:
    """Back over midnight and forward again: the day goes on where it was."""
    scene.usage.tokens = {MONDAY: 50, MONDAY + DAY: 407}
    await scene.poll()
    await scene.poll(DAY)
    assert scene.increase() == 457
    for scene.wrong in (-14 * 3600, 0, -3 * DAY, 0):
        if restarted:
            scene.restart()
        await scene.poll()
        await scene.poll()
    assert (scene.values[-1], scene.increase()) == (407, 457)


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("ahead", [14 * 3600, 20 * DAY])
async def test_a_clock_that_was_ahead_counts_once(
    scene: Scene, ahead: int, restarted: bool
) -> None:
    """Ahead over midnight for a while, then right again: what was counted of the day is not counted
    a second time, and the rest of it is.
    """
    scene.usage.tokens = {MONDAY: 407}
    await scene.poll()
    scene.wrong = ahead
    if restarted:
        scene.restart()
    await scene.poll()
    scene.wrong = 0
    if restarted:
        scene.restart()
    await scene.poll()
    scene.usage.tokens[MONDAY] = 410
    await scene.poll()
    assert scene.increase() == 410
    scene.usage.tokens[MONDAY + DAY] = 5
    await scene.poll(DAY)
    assert (scene.values[-1], scene.increase()) == (5, 415)


@pytest.mark.parametrize(
    ("ahead", "restarted"),
    [(19 * 3600, False), (DAY, False), (20 * DAY, False), (20 * DAY, True)],
)
@pytest.mark.parametrize("polls", [1, 3])
async def test_the_value_of_the_day_outlives_a_clock_that_was_ahead(
    scene: Scene, ahead: int, restarted: bool, polls: int
) -> None:
    """After a clock that was ahead over midnight is right again, the page shows the day's own sums."""
    scene.usage.tokens[MONDAY] = 25
    await scene.poll()
    scene.wrong = float(ahead)
    if restarted:
        scene.restart()
    for _ in range(polls):
        await scene.poll(60)
    scene.wrong = 0.0
    scene.usage.tokens[MONDAY] = 35
    for _ in range(3):
        await scene.poll()
    assert scene.values[-1] == 35
    assert min(scene.values) == 25


async def test_a_clock_far_ahead_for_a_while_shows_the_day_as_it_is(scene: Scene) -> None:
    """A clock set forward by days shows no other day while OpenAI has no usage of then; with usage
    it is believed at once, without after ten minutes.
    """
    scene.usage.tokens = {MONDAY: 407}
    await scene.poll()
    scene.wrong = 20 * DAY
    await scene.poll(1)
    assert (scene.day, scene.values[-1]) == (MONDAY, 407)
    scene.usage.tokens[MONDAY + 20 * DAY] = 3
    await scene.poll(1)
    assert (scene.day, scene.values[-1]) == (MONDAY + 20 * DAY, 3)
    scene.wrong = 60 * DAY
    await scene.poll(1)
    assert scene.day == MONDAY + 20 * DAY
    await scene.poll(601)
    assert scene.day == MONDAY + 60 * DAY


async def test_a_first_reading_after_a_page_begins_at_zero(tmp_path: Path) -> None:
    """Where a page was served before the endpoint could be read, its series are 0 first."""
    scene = Scene(tmp_path / "state.db", hold=60)
    scene.recorder.before_page()
    scene.usage.tokens = {MONDAY: 407}
    await scene.poll()
    assert scene.values == [0, 407]
    scene.stop()


async def test_run_once_shows_a_new_series_as_zero_once(tmp_path: Path) -> None:
    """With `run --once` a new series is 0 in the run that finds it, and has its value in the next."""
    scene = Scene(tmp_path / "state.db", hold=math.inf)
    scene.recorder.before_page()
    scene.usage.tokens = {MONDAY: 407}
    await scene.poll()
    assert scene.values == [0]
    scene.restart()
    await scene.poll()
    assert scene.values[-1] == 407
    scene.stop()


async def test_the_rate_holds_while_the_clock_steps(scene: Scene) -> None:
    """At most five requests in any 60 s of true time, whatever the clock says."""

    async def run(take: object) -> float:
        return await scene.recorder.do(take)  # type: ignore[arg-type]

    pace = Pace(scene.store, 5, scene.recorder.clock, run)
    made: list[float] = []
    for scene.wrong in (0, 0, 0, DAY, -DAY, 0, 100 * DAY, 0, 0, -DAY, 0):
        await pace.turn()
        made.append(scene.true)
    for first, sixth in zip(made, made[5:], strict=False):
        assert sixth - first >= 60


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([60, 3600, 9 * 3600]),
            st.sampled_from([0, 0, 0, 3600, -3600, 14 * 3600, -14 * 3600, 20 * DAY, -20 * DAY]),
            st.booleans(),
            st.integers(0, 9),
        ),
        max_size=12,
    )
)
async def test_every_token_counts_once_whatever_the_clock_does(
    steps: list[tuple[int, int, bool, int]],
) -> None:
    """Through clocks that step back and ahead, and restarts: increase() is never more than was used;
    at the end the current day is shown.
    """
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder) / "state.db", hold=60)
        scene.usage.tokens = {MONDAY: 100}
        await scene.poll()
        for pause, scene.wrong, restarts, more in steps:
            scene.true += pause
            day = int(scene.true) // DAY * DAY
            scene.usage.tokens[day] = scene.usage.tokens.get(day, 0) + more
            if restarts:
                scene.restart()
            await scene.poll(1)
        scene.wrong = 0
        day = int(scene.true + 700) // DAY * DAY + DAY
        scene.true = day + 10.0
        scene.usage.tokens[day] = 11
        await scene.poll(1)
        await scene.poll(700)
        assert scene.increase() <= sum(scene.usage.tokens.values())
        assert (scene.day, scene.values[-1]) == (day, 11)
        scene.stop()
