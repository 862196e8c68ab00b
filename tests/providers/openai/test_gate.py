"""One rate limit and one concurrency bound, the important first. Time is a loop's that does not
wait.
"""

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from otel_openai_usage.providers.openai.gate import LONGEST_WAIT, SLOW_AFTER, Gate


class _Jump(selectors.DefaultSelector):
    """Instead of waiting, moves the clock on."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run with a clock that starts at 0 and jumps to whatever is awaited."""
    selector = _Jump()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    try:
        loop.run_until_complete(asyncio.wait_for(main, 100_000))
    finally:
        loop.close()


def now() -> float:
    """The running loop's time."""
    return asyncio.get_running_loop().time()


def test_no_minute_has_more_than_the_limit() -> None:
    """200 requests at 60 a minute take more than three minutes, and no 60 s see more than 60 of
    them.
    """

    async def main() -> None:
        gate = Gate(requests_per_minute=60, max_concurrency=4)
        times: list[float] = []

        async def ask(pause: float) -> None:
            await asyncio.sleep(pause)
            async with gate.slot():
                times.append(now())
                await asyncio.sleep(0.3)

        await asyncio.gather(*(ask(0.1 * n) for n in range(200)))
        assert max(sum(t <= other < t + 59.999 for other in times) for t in times) == 60
        assert 180 <= times[-1] < 200

    run(main())


def test_never_more_inside_than_allowed() -> None:
    """Concurrency is bounded, also when some are cancelled or raise inside."""

    async def main() -> None:
        gate = Gate(requests_per_minute=10_000, max_concurrency=3)
        inside = most = 0

        async def ask(n: int) -> None:
            nonlocal inside, most
            async with gate.slot(n % 3):
                inside += 1
                most = max(most, inside)
                try:
                    await asyncio.sleep(1)
                    if n % 5 == 0:
                        raise RuntimeError
                finally:
                    inside -= 1

        tasks = [asyncio.create_task(ask(n)) for n in range(60)]
        for n, task in enumerate(tasks):
            if n % 7 == 0:
                asyncio.get_running_loop().call_later(n / 10, task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (inside, most) == (0, 3)
        async with gate.slot(), gate.slot(), gate.slot():
            pass  # every place came back

    run(main())


def test_the_important_go_first() -> None:
    """Usage that comes after a crowd of names goes before the rest of them."""

    async def main() -> None:
        gate = Gate(requests_per_minute=1000, max_concurrency=1)
        order: list[int] = []

        async def ask(priority: int) -> None:
            async with gate.slot(priority):
                order.append(priority)
                await asyncio.sleep(1)

        names = [asyncio.create_task(ask(2)) for _ in range(5)]
        await asyncio.sleep(1.5)
        await asyncio.gather(*names, ask(1), ask(0))
        assert order == [2, 2, 0, 1, 2, 2, 2]

    run(main())


def test_names_leave_room_for_usage() -> None:
    """Whatever names have asked, a quarter of the minute is left to usage and costs."""

    async def main() -> None:
        gate = Gate(requests_per_minute=60, max_concurrency=4)

        async def ask(priority: int) -> float:
            async with gate.slot(priority):
                return now()

        names = [asyncio.create_task(ask(2)) for _ in range(500)]
        await asyncio.sleep(1)
        usage = await asyncio.gather(*(ask(0) for _ in range(15)))
        assert usage == [1.0] * 15
        assert (await asyncio.gather(*names))[-1] > 600

    run(main())


def test_a_cancelled_waiter_gives_up_its_place() -> None:
    """Cancelled while waiting, or in the moment it was let in: the next one goes."""

    async def main() -> None:
        gate = Gate(requests_per_minute=1000, max_concurrency=1)

        async def ask() -> str:
            async with gate.slot():
                return "in"

        async with gate.slot():
            first, second, third = (asyncio.create_task(ask()) for _ in range(3))
            await asyncio.sleep(1)
            first.cancel()
        second.cancel()  # let in by the end of the slot, has not run yet
        assert await third == "in"
        assert [first.cancelled(), second.cancelled()] == [True, True]

    run(main())


def test_a_slow_answer_keeps_nobody_waiting() -> None:
    """With every place taken by answers that take a minute, others go in after a few seconds."""

    async def main() -> None:
        gate = Gate(requests_per_minute=1000, max_concurrency=2)

        async def ask(seconds: float) -> float:
            async with gate.slot():
                entered = now()
                await asyncio.sleep(seconds)
            return entered

        slow = [asyncio.create_task(ask(60)) for _ in range(3)]
        await asyncio.sleep(0.1)
        quick = await asyncio.gather(*(ask(1) for _ in range(4)))
        assert max(quick) <= 2 * SLOW_AFTER + 2
        assert [await task for task in slow] == [0, 0, SLOW_AFTER]
        inside = 0
        most = 0

        async def count() -> None:
            nonlocal inside, most
            async with gate.slot():
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(1)
                inside -= 1

        await asyncio.gather(*(count() for _ in range(9)))
        assert most == 2  # no place was given back twice

    run(main())


def test_lists_take_half_of_the_places() -> None:
    """However slow names and limits are, usage finds a place at once."""

    async def main() -> None:
        gate = Gate(requests_per_minute=1000, max_concurrency=4)

        async def ask(priority: int, seconds: float) -> float:
            async with gate.slot(priority):
                entered = now()
                await asyncio.sleep(seconds)
            return entered

        lists = [asyncio.create_task(ask(1 + n % 3, 30)) for n in range(20)]
        await asyncio.sleep(20)
        assert set(await asyncio.gather(ask(0, 1), ask(0, 1))) == {20.0}
        for task in lists[4:]:
            task.cancel()
        entered = await asyncio.gather(*lists, return_exceptions=True)
        assert sum(isinstance(when, float | int) and when <= 20 for when in entered) == 2

    run(main())


@pytest.mark.parametrize("places", [1, 4])
def test_slow_usage_does_not_keep_names_out(places: int) -> None:
    """If slow answers for usage would take every place for good, a list still gets in soon."""

    async def main() -> None:
        gate = Gate(requests_per_minute=6000, max_concurrency=places)

        async def ask_again_and_again() -> None:
            while True:
                async with gate.slot(0):
                    await asyncio.sleep(SLOW_AFTER - 0.1)

        usage = [asyncio.create_task(ask_again_and_again()) for _ in range(places * 2)]
        await asyncio.sleep(1)
        asked = now()
        async with gate.slot(3):
            waited = now() - asked
        assert waited <= LONGEST_WAIT + SLOW_AFTER
        for task in usage:
            task.cancel()

    run(main())


async def test_a_high_limit_costs_nothing() -> None:
    """10,000 requests at 100,000 a minute pass in well under a second or two."""
    gate = Gate(requests_per_minute=100_000, max_concurrency=4)
    started = time.perf_counter()
    for _ in range(10_000):
        async with gate.slot():
            pass
    assert time.perf_counter() - started < 2
