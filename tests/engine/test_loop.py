"""The loop of one source: what is shown while it is being asked."""

import asyncio
import itertools

import pytest

from otel_openai_usage.domain.snapshot import Board
from otel_openai_usage.engine import loop
from otel_openai_usage.engine.failure_log import FailureLog
from otel_openai_usage.engine.loop import Loop
from otel_openai_usage.engine.recorder import Clock, Recorder
from otel_openai_usage.errors import Bug
from otel_openai_usage.storage.sqlite.store import Store
from otel_openai_usage.view.attributes import AttributePolicy
from otel_openai_usage.view.snapshot_builder import SnapshotBuilder
from tests.conservation.rig import Nobody


async def test_a_source_that_does_not_answer_is_shown_as_down_before_the_retries_are_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A dead address turns `openai.api.up` to 0 soon, though asking again goes on; when it answers,
    it is up.
    """
    monkeypatch.setattr(loop, "DOWN_AFTER", 0.05)
    answered = asyncio.Event()
    seen: list[bool] = []
    store = Store(":memory:")
    recorder = Recorder(
        store,
        SnapshotBuilder(AttributePolicy()),
        Board(),
        Clock(lambda: 0.0, lambda: 0.0),
        Nobody(),
        otlp=False,
    )

    async def poll() -> None:
        await answered.wait()

    polling = asyncio.create_task(
        Loop("costs", 60, poll, recorder, seen.append, FailureLog("acme")).once()
    )
    await asyncio.sleep(0.2)
    assert seen == [False]
    answered.set()
    assert await polling
    assert seen == [False, True]
    await recorder.close()
    store.close()


async def test_every_poll_is_told() -> None:
    """What each poll brought is shown soon after it, not only what the first one did."""
    store = Store(":memory:")
    recorder = Recorder(
        store,
        SnapshotBuilder(AttributePolicy()),
        Board(),
        Clock(lambda: 0.0, lambda: 0.0),
        Nobody(),
        otlp=False,
    )

    async def poll() -> None:
        pass

    one = Loop("costs", 60, poll, recorder, lambda up: None, FailureLog("acme"))
    before = recorder.notify()
    for _ in range(3):
        await one.once()
    assert recorder.notify() == before + 4
    await recorder.close()
    store.close()


async def test_a_bug_in_one_source_is_that_source_alone() -> None:
    """An exception that nobody foresaw makes the source down; at the next poll it is tried again."""
    store = Store(":memory:")
    recorder = Recorder(
        store,
        SnapshotBuilder(AttributePolicy()),
        Board(),
        Clock(lambda: 0.0, lambda: 0.0),
        Nobody(),
        otlp=False,
    )
    seen: list[bool] = []
    outcomes: list[Exception | None] = [ZeroDivisionError("x"), RecursionError("y"), None]

    async def poll() -> None:
        if (error := outcomes.pop(0)) is not None:
            raise error

    one = Loop("costs", 60, poll, recorder, seen.append, FailureLog("acme"))
    for up in (False, False, True):
        assert await one.once() is up
        assert isinstance(one.error, Bug) is not up
    assert seen == [False, False, True]
    await recorder.close()
    store.close()


async def test_a_poll_that_begins_late_says_how_late() -> None:
    """A poll that takes longer than its interval makes the next one late by the difference."""

    class Hears(Nobody):
        def poll_began(self, organization: str, source: str, lag: float) -> None:
            lags.append(lag)

    lags: list[float] = []
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        if len(lags) == 4:
            raise asyncio.CancelledError

    async def poll() -> None:
        nonlocal now
        now += durations.pop(0)

    durations = [10.0, 75.0, 10.0, 10.0]
    store = Store(":memory:")
    clock = Clock(lambda: now, lambda: now, sleep)
    recorder = Recorder(
        store, SnapshotBuilder(AttributePolicy()), Board(), clock, Hears(), otlp=False
    )
    with pytest.raises(asyncio.CancelledError):
        await Loop("costs", 60, poll, recorder, lambda up: None, FailureLog("acme")).forever()
    assert lags == [0, 0, 15, 0]
    await recorder.close()
    store.close()


async def _begins(
    interval: float, seconds: float, **policy: object
) -> tuple[list[float], Recorder, Store]:
    """When polls begin in so many seconds, in Unix time. The clock begins at 1,000,007.25."""
    now = 0.0
    store = Store(":memory:")
    begins: list[float] = []

    async def sleep(pause: float) -> None:
        nonlocal now
        now += pause
        if now > seconds:
            raise asyncio.CancelledError

    clock = Clock(lambda: 1_000_007.25 + now, lambda: now, sleep)
    recorder = Recorder(
        store, SnapshotBuilder(AttributePolicy()), Board(), clock, Nobody(), otlp=False
    )

    async def poll() -> None:
        nonlocal now
        begins.append(clock.now())
        now += 2.5

    one = Loop("usage/x", interval, poll, recorder, lambda up: None, FailureLog("acme"))
    for name, value in policy.items():
        setattr(one, name, value)
    with pytest.raises(asyncio.CancelledError):
        await one.forever()
    return begins, recorder, store


@pytest.mark.parametrize("offset", [3.0, 7.0, 15.0])
async def test_polls_begin_just_after_the_minute(offset: float) -> None:
    """Polls of whole minutes begin `offset` seconds after a minute, one in each interval; others
    are not aligned.
    """
    begins, recorder, store = await _begins(120.0, 1200, offset=offset)
    assert {began % 60 for began in begins[1:]} == {offset}
    gaps = [later - earlier for earlier, later in itertools.pairwise(begins[1:])]
    assert set(gaps) == {120.0}
    assert begins[1] - begins[0] <= 120 + 5
    await recorder.close()
    store.close()
    begins, recorder, store = await _begins(45.0, 300, offset=offset)
    assert begins[1] - begins[0] == 45.0
    await recorder.close()
    store.close()


async def test_an_idle_endpoint_is_polled_seldom() -> None:
    """While a source is idle, `idle_interval` counts; when it has usage, the next poll is soon."""
    idle = [True, True, False, False, True]
    begins, recorder, store = await _begins(
        60.0, 2000, idle_interval=600.0, is_idle=lambda: idle.pop(0) if idle else False
    )
    gaps = [later - earlier for earlier, later in itertools.pairwise(begins)]
    assert gaps[:6] == [600.0, 600.0, 60.0, 60.0, 600.0, 60.0]
    await recorder.close()
    store.close()
