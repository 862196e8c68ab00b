"""Events under a clock that is wrong: each is counted once, and its series stays."""

from collections.abc import Awaitable, Callable

import pytest

from tests.ingest.conftest import NOW, Service, event, open_service

__all__ = ["open_service"]
DAY = 86400
Open = Callable[..., Awaitable[Service]]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("wrong", [100 * DAY, -100 * DAY])
async def test_an_event_is_known_whatever_the_clock_says(
    open_service: Open, wrong: int, restarted: bool
) -> None:
    """The same event, sent before, while and after the clock is wrong by 100 days, counts once."""
    off = [0]
    passed = [0.0]

    async def service() -> Service:
        return await open_service(
            lambda: NOW + off[0] + passed[0], lambda: passed[0], events__dedupe="32d"
        )

    here = await service()
    await here.post([event(1), event(2)])
    for off[0] in (wrong, 0):
        passed[0] += 1000
        here = await service() if restarted else here
        await here.post([event(1), event(3)])
    passed[0] += 1000
    here = await service() if restarted else here
    await here.post([event(1), event(2), event(3)])
    assert await here.shown() == {
        ("gpt-4o", "alice", "input"): 3 * 13,
        ("gpt-4o", "alice", "output"): 3 * 7,
    }


async def test_what_moves_while_the_clock_is_behind_stays_shown(open_service: Open) -> None:
    """A series that moved while the clock was 20 days behind is not silent when it is right again."""
    off = [0]
    passed = [0.0]
    service = await open_service(lambda: NOW + off[0] + passed[0], lambda: passed[0])
    await service.post(event(1))
    off[0] = -20 * DAY
    await service.post(event(2))
    off[0] = 0
    passed[0] += 2 * 3600
    assert (await service.shown())["gpt-4o", "alice", "input"] == 26
    passed[0] += 2 * 3600
    assert (await service.shown())["gpt-4o", "alice", "input"] == 26
