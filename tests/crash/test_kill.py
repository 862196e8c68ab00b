"""kill -9 at any instant: nothing is lost, nothing counted twice, and no counter ever falls."""

import json
import os
import random
import select
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from otel_openai_usage.config import Location
from otel_openai_usage.domain.model import Window, floor
from otel_openai_usage.simulator.world import World
from otel_openai_usage.storage.ports import Writer
from otel_openai_usage.storage.sqlite.store import Store
from tests.conservation.rig import DAY, HASTE, HOUR, MINUTE, MONDAY, Life, Options
from tests.real.installed import COMMAND, KEY, Samples, Simulator, Surroundings, samples
from tests.real.postgres import Postgres
from tests.real.processes import Process, free_port, get

SPEED = 1800.0
"""How much faster than ours the time of the simulated world passes."""
ENDPOINTS = ("completions", "costs")
STATEMENTS = 400
"""About as many statements as a new state needs to be created. A later process does some fifty polls
with them.
"""


class Hurry:
    """A clock that runs half an hour a second, in every process that reads it."""

    def __init__(self, begin: float) -> None:
        self._begin = begin
        self._started = time.monotonic()

    @property
    def unix(self) -> float:
        """The present, in Unix seconds."""
        return self._begin + (time.monotonic() - self._started) * SPEED


class Kills:
    """One state that processes use and are killed with, and every value that was seen."""

    def __init__(self, path: Location, seed: int) -> None:
        self.path = path
        self.rng = random.Random(seed)
        self.world = World.tiny(3, lateness=HASTE)
        self.clock = Hurry(MONDAY + 9 * HOUR)
        self.seen: dict[str, float] = {}
        self.scrapes = 0

    def life(self) -> Life:
        """An exporter on the state."""
        options = Options(settle=30 * MINUTE, reconcile_interval=900, start=MONDAY)
        life = Life(
            self.path, self.world, endpoints=ENDPOINTS, begin=int(self.clock.unix), options=options
        )
        assert not life.run.store.losses, "a kill is no loss"
        return life

    def kill_one(self) -> None:
        """Start a process and kill it at a random statement of its database or at a random instant."""
        # Some of the processes must get past the creation of the state, on a slow machine too.
        most = STATEMENTS if self.scrapes else 2 * STATEMENTS
        statements = self.rng.randrange(1, most) if self.rng.random() < 0.6 else None
        seconds = self.rng.uniform(0.0, 0.25)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            _victim(self, writer, statements)
        os.close(writer)
        text = _read_until(reader, 5.0 if statements else seconds)
        os.kill(pid, signal.SIGKILL)
        text += _read_until(reader, 5.0)
        os.close(reader)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), f"it ended by itself: {status}"
        assert os.WTERMSIG(status) == signal.SIGKILL
        for line in text.decode().split("\n")[:-1]:
            self.watch(json.loads(line))

    def watch(self, counters: dict[str, float]) -> None:
        """No counter is lower than any value that was seen before."""
        self.scrapes += 1
        fallen = {
            key: (self.seen[key], value)
            for key, value in counters.items()
            if value < self.seen.get(key, 0)
        }
        assert not fallen, f"counters fell: {list(fallen.items())[:3]}"
        self.seen |= counters

    async def end(self) -> None:
        """One last process that is not killed ends with exact totals."""
        life = self.life()
        first = {str(key): value for key, value in life.run.counters().items()}
        assert {key for key, value in self.seen.items() if first.get(key, -1) < value} == set()
        await life.end()


def _read_until(pipe: int, seconds: float) -> bytes:
    """What a pipe delivers in this time, or until its other end is closed."""
    end = time.monotonic() + seconds
    text = b""
    while (left := end - time.monotonic()) > 0:
        if not select.select([pipe], [], [], left)[0]:
            break
        part = os.read(pipe, 1 << 20)
        if not part:
            break
        text += part
    return text


def _victim(kills: Kills, pipe: int, statements: int | None) -> None:
    """Poll and scrape until killed. Each scrape sends its values through the pipe."""
    import asyncio

    left = statements

    def count(_: str) -> None:
        nonlocal left
        if left is not None:
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    async def live() -> None:
        life = kills.life()
        _trace(life.run.store, count)
        while True:
            life.time.true = life.time.mono = kills.clock.unix
            await life.poll()
            shown = {str(key): value for key, value in life.run.counters().items()}
            os.write(pipe, json.dumps(shown).encode() + b"\n")

    try:
        asyncio.run(live())
    except Exception:  # noqa: BLE001 - printed
        # Nobody else says why this process ended.
        traceback.print_exc()
    finally:
        os._exit(1)


def _trace(store: Writer, count: Callable[[str], None]) -> None:
    """Call `count` before each statement."""
    if isinstance(store, Store):
        store._db.set_trace_callback(count)
        return
    execute: Any = psycopg.Connection.execute

    def counted(self: psycopg.Connection[Any], query: str, *rest: object, **more: Any) -> Any:
        count(query)
        return execute(self, query, *rest, **more)

    psycopg.Connection.execute = counted  # type: ignore[method-assign, assignment]  # only in this child


async def _killed(path: Location, times: int, seed: int) -> Kills:
    kills = Kills(path, seed)
    for _ in range(times):
        kills.kill_one()
    await kills.end()
    return kills


async def test_two_hundred_kills_cost_nothing(tmp_path: Path) -> None:
    """After 200 kills, between any two statements and at any instant of a poll, every total equals
    the simulated usage.
    """
    kills = await _killed(tmp_path / "state.db", 200, 1)
    assert kills.scrapes > 50
    assert len(kills.seen) > 20


async def test_sixty_kills_with_postgres_cost_nothing(own_postgres: Postgres) -> None:
    """The same with the state in PostgreSQL: a transaction of a killed process may still end on the
    server while the next process starts.
    """
    kills = await _killed(own_postgres.location(), 60, 1)
    assert kills.scrapes > 20


@pytest.mark.long
@pytest.mark.parametrize("seed", [2, 3])
async def test_two_thousand_kills_cost_nothing(tmp_path: Path, seed: int) -> None:
    """After 2,000 kills every total equals the simulated usage."""
    await _killed(tmp_path / "state.db", 2000, seed)


# --- the real command


SETTINGS = {
    "api": {"requests_per_minute": 60000},
    "usage": {"interval": "1s", "settle": "5m", "reconcile_interval": "10s"},
    "costs": {"interval": "2s"},
    "attributes": {"zero_hold": "0s"},
}
TYPES = ("input", "output", "input_cached", "input_audio", "output_audio", "input_cache_write")
GROUPS = ("project_id", "user_id", "api_key_id", "model", "batch")


def test_the_real_command_is_killed(
    surroundings: Surroundings, simulator: Simulator, tmp_path: Path
) -> None:
    """After eight kill -9 of `run` at random moments of its first seconds every series equals
    OpenAI's own total, and no series ever fell.
    """
    rng = random.Random(4)
    seen = Samples()
    port = free_port()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    command: list[str | Path] = [
        COMMAND,
        "run",
        "-c",
        tmp_path / "config.yaml",
        "--listen",
        f"127.0.0.1:{port}",
    ]
    environment = surroundings.env(OPENAI_ADMIN_KEY=KEY, OPENAI_BASE_URL=simulator.base_url)

    def scrape() -> Samples:
        status, body = get(f"http://127.0.0.1:{port}/metrics")
        now = (
            {key: value for key, value in samples(body).items() if key[0].endswith("_total")}
            if status == 200
            else {}
        )
        assert {
            key: (seen[key], value) for key, value in now.items() if value < seen.get(key, 0)
        } == {}
        seen.update(now)
        return now

    for number in range(9):
        process = Process(command, surroundings.home / "run.log", environment)
        try:
            if number == 8:
                process.until(
                    lambda: same(scrape(), simulator), "every series to be OpenAI's own", 60
                )
                return
            if rng.random() < 0.7:
                process.until(scrape, "counters")
            time.sleep(rng.uniform(0.0, 1.5))
            assert process.running, process.output
        finally:
            process.kill()


def same(scrape: Samples, simulator: Simulator) -> bool:
    """Whether today's completions equal the simulated usage, series by series."""
    now = int(time.time())
    used = simulator.totals(
        "completions", Window(floor(now, DAY), max(floor(now, 60), floor(now, DAY) + 60)), *GROUPS
    )
    expected = {
        (*dims, kind): amounts[kind]
        for dims, amounts in used.items()
        for kind in TYPES
        if amounts[kind]
    }
    found: dict[tuple[str | None, ...], float] = {}
    for (name, labels), value in scrape.items():
        have = dict(labels)
        if name == "openai_api_tokens_total" and have["operation"] == "completions" and value:
            found[(*(have.get(dimension) for dimension in GROUPS), have["token_type"])] = value
    return found == expected
