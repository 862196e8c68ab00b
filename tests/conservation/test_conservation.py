"""What is counted is what was used: to the token, through everything that goes wrong."""

import random
from pathlib import Path

import pytest

from otel_openai_usage.core.kinds import KINDS
from otel_openai_usage.simulator.lateness import HARSH, PROMPT
from otel_openai_usage.simulator.world import World
from tests.conservation.rig import DAY, HOUR, MINUTE, MONDAY, Options, Run, VirtualClock, WorldSource, truth

KIND_NAMES = ("completions", "embeddings", "web_search_calls", "costs")


async def live(path: Path, world: World, time: VirtualClock, until: float, options: Options, *, seed: int, names=KIND_NAMES) -> Run:
    """Live until then, with failing polls, uneven pauses and sudden ends; counters are watched at every scrape."""
    rng = random.Random(seed)
    sources = {("default", name): WorldSource(world, KINDS[name], time, trouble=0.15, rng=rng) for name in names}
    run, before = Run(path, sources, time, options), {}
    while time.now < until:
        await run.poll()
        now = run.counters()
        fallen = {key: (before[key], now[key]) for key in before.keys() & now.keys() if now[key] < before[key]}
        assert not fallen
        before = now
        time.pass_(rng.choice((60, 60, 300, 300, 900)))
        if rng.random() < 0.01:
            run.stop()
            time.pass_(rng.choice((60, HOUR, 8 * HOUR, 2 * DAY)))
            run = Run(path, sources, time, options)
            again = run.counters()
            assert not {key: (before[key], again.get(key)) for key in before if again.get(key) != before[key]}
    return run


async def settle(run: Run, world: World, time: VirtualClock) -> None:
    """Let OpenAI know everything from now on, and poll for half a day without trouble."""
    world.lateness = PROMPT
    for source in run.sources.values():
        source.trouble = 0
    for _ in range(24):
        time.pass_(1800)
        await run.poll()


@pytest.mark.parametrize("start", [0, MONDAY + 9 * HOUR + 17 * MINUTE], ids=["today", "mid-hour"])
async def test_weeks_of_trouble_end_exact(tmp_path, start):
    """After five days of late, growing, restated, moved and doubled usage, failing polls, kills and downtime, every total is OpenAI's own."""
    world = World.tiny(3, lateness=HARSH)
    time = VirtualClock(MONDAY + 9 * HOUR + 17 * MINUTE + 31)
    options = Options(start=start)
    run = await live(tmp_path / "state.db", world, time, MONDAY + 5 * DAY, options, seed=5)
    await settle(run, world, time)
    for book in run.books:
        found = {dims: leaf.total for dims, leaf in book.leaves.items() if any(leaf.total)}
        assert found == truth(world, book.kind, book.progress.epoch, time.now)
    run.stop()
