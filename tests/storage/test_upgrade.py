"""A state of an older version, upgraded in mid-day: the numbers that it did not store."""

import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from otel_openai_usage.commands.verify import Verdict, verdicts
from otel_openai_usage.config import load_mapping
from otel_openai_usage.domain.endpoints import ENDPOINTS, TOKEN_TYPES
from otel_openai_usage.domain.model import Window
from otel_openai_usage.simulator.lateness import PROMPT
from otel_openai_usage.simulator.server import ADMIN_KEY, SIMULATION, application, running
from otel_openai_usage.simulator.world import World
from otel_openai_usage.testing import Harness
from tests.storage.test_schema import SCRIPTS
from tests.testing.test_harness import HOUR, MIDNIGHT, Clock, Scene, values

DAY = 24 * HOUR
NEW = tuple(name for name in TOKEN_TYPES if name not in (
    "input", "output", "input_cached", "input_audio", "output_audio", "input_cache_write",
))  # fmt: skip
PICTURES = "input_image"
OLD_MEASURES = 7
COMPLETIONS = ENDPOINTS["completions"]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Scene]:
    """An organization that uses pictures, too, and a configuration that shows every token."""
    clock = Clock()
    world = World(5, projects=3, keys=6, users=3, lateness=PROMPT)
    app = application(world, clock=lambda: datetime.fromtimestamp(clock.time, UTC))
    async with running(app) as url:
        yield Scene(
            clock,
            world,
            app[SIMULATION],
            {
                "organizations": [{"admin_key": ADMIN_KEY, "base_url": f"{url}/v1"}],
                "api": {"requests_per_minute": 100_000, "retries": 0},
                "state": {"path": str(tmp_path / "state.db")},
                "prometheus": {"enabled": False},
                "usage": {"endpoints": ["completions"], "token_types": list(TOKEN_TYPES)},
                "costs": {"enabled": False},
                "attributes": {"zero_hold": "0s"},
            },
        )


def downgrade(path: Path, script: Path) -> None:
    """Turn a state into one that an older version wrote: its tables, and seven numbers a row."""
    newer = path.with_name("newer.db")
    path.rename(newer)
    for name in (f"{path.name}.marker", f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script.read_text())
        db.execute("ATTACH ? AS newer", (str(newer),))
        tables = db.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            columns = [f'"{row[1]}"' for row in db.execute(f"PRAGMA main.table_info({table})")]
            theirs = [f'"{row[1]}"' for row in db.execute(f"PRAGMA newer.table_info({table})")]
            names = ", ".join(name for name in columns if name in theirs)
            db.execute(
                f"INSERT OR REPLACE INTO {table} ({names}) SELECT {names} FROM newer.{table}"
            )
        db.execute("DELETE FROM meta WHERE key LIKE 'measures.%'")
        for column in ("total", "shown"):
            places = ", ".join(
                f"coalesce(json_extract({column}, '$[{place}]'), 0)"
                for place in range(OLD_MEASURES)
            )
            db.execute(
                f"UPDATE dims SET {column} = json_array({places}) WHERE source_id ="
                " (SELECT id FROM sources WHERE kind = 'completions')"
            )
        db.commit()


def tokens(page: bytes) -> Mapping[str, float]:
    """The sum of each token type."""
    found: dict[str, float] = {}
    for labels, value in values(page, "openai_api_tokens_total").items():
        token_type = labels.partition('token_type="')[2].partition('"')[0]
        found[token_type] = found.get(token_type, 0) + value
    return found


def truth(stage: Scene, name: str, since: int) -> int:
    """What was really used since then."""
    window = Window(since, int(stage.clock.time) // 60 * 60)
    place = [measure.name for measure in COMPLETIONS.measures].index(name)
    return sum(int(row[place]) for row in stage.world.totals("completions", window, ()).values())


def estimates(page: bytes) -> Mapping[str, float]:
    """The estimated costs."""
    return values(page, "openai_api_estimated_cost_total")


async def settled(harness: Harness) -> bytes:
    """The page after a poll, with new series beyond their zero."""
    await harness.poll()
    for _ in range(3):
        await harness.upkeep()
        harness.page()
    return harness.page()


@pytest.mark.parametrize("script", SCRIPTS[1:], ids=lambda path: path.stem)
async def test_new_numbers_count_from_the_next_midnight(
    stage: Scene, tmp_path: Path, script: Path
) -> None:
    """Columns come in mid-day and old rows lack them: no number is wrong or half, no estimate
    moves, and `verify` finds nothing.
    """
    harness = stage.harness()
    await harness.start()
    before = await settled(harness)
    assert tokens(before)[PICTURES] > 0
    await harness.close()
    downgrade(tmp_path / "state.db", script)

    harness = stage.harness()
    await harness.start()
    upgraded = await settled(harness)
    assert estimates(upgraded) == estimates(before)
    assert set(tokens(upgraded)).isdisjoint(NEW)
    stage.clock.time = MIDNIGHT + DAY - 30
    evening = await settled(harness)
    assert set(tokens(evening)).isdisjoint(NEW)
    assert tokens(evening)["input"] == truth(stage, "input", MIDNIGHT)

    await harness.close()
    harness = stage.harness()
    await harness.start()
    stage.clock.time = MIDNIGHT + DAY + 9 * HOUR
    morning = await settled(harness)
    for name in NEW:
        assert tokens(morning).get(name, 0) == truth(stage, name, MIDNIGHT + DAY), name
    for name in ("input", "output", "input_cached"):
        assert tokens(morning)[name] == truth(stage, name, MIDNIGHT)
    assert tokens(morning)[PICTURES] > 0
    stage.clock.time = MIDNIGHT + 2 * DAY + 4 * HOUR
    await settled(harness)
    await harness.close()

    settings = load_mapping(stage.settings, {})
    now = int(stage.clock.time)
    found = [verdict async for verdict in verdicts(settings, {}, now, None, None)]
    compared = [verdict for verdict in found if isinstance(verdict, Verdict)]
    assert {2, 3} <= {verdict.day.day for verdict in compared}
    assert [str(verdict) for verdict in compared if verdict.differences] == []


async def test_a_new_state_counts_every_number_from_the_beginning(stage: Scene) -> None:
    """Without an older version there is nothing to wait for, whichever tokens are shown."""
    harness = stage.harness()
    await harness.start()
    page = await settled(harness)
    for name in TOKEN_TYPES:
        assert tokens(page).get(name, 0) == truth(stage, name, MIDNIGHT), name
    await harness.close()
    usage = {"endpoints": ["completions"], "token_types": ["output", "input_text"]}
    harness = stage.harness(usage=usage)
    await harness.start()
    chosen = await settled(harness)
    assert set(tokens(chosen)) == {"output", "input_text"}
    assert tokens(chosen)["input_text"] == tokens(page)["input_text"]
    assert estimates(chosen) == estimates(page)
    await harness.close()
