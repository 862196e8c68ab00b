"""What was counted against OpenAI's own daily totals, on a simulated organization."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from otel_openai_usage.commands import backfill
from otel_openai_usage.commands.backfill import Asked
from otel_openai_usage.commands.verify import (
    NotRead,
    Purged,
    Refused,
    TotalsDiffer,
    Verdict,
    verdicts,
)
from otel_openai_usage.composition import app
from otel_openai_usage.config import Settings, load
from otel_openai_usage.engine.recorder import Clock
from otel_openai_usage.simulator import lateness
from otel_openai_usage.simulator.server import ADMIN_KEY, application, running
from otel_openai_usage.simulator.world import World

NOW = int(datetime(2026, 11, 19, 10, 20, tzinfo=UTC).timestamp())


class Scene:
    """An exporter that began to count nine days ago, keeps days for three, and has looked after its
    history.
    """

    def __init__(self, url: str, path: Path) -> None:
        self.path = path
        self.env = {"OPENAI_ADMIN_KEY": ADMIN_KEY, "OPENAI_BASE_URL": f"{url}/v1"}
        self.settings: Settings = load(
            None,
            self.env,
            {
                "state.path": str(path),
                "api.requests_per_minute": 60000,
                "prometheus.enabled": False,
                "names.enabled": False,
                "usage.endpoints": ["completions", "vector_stores"],
                "usage.start": "9d",
                "usage.reconcile": "1d",
                "costs.reconcile": "1d",
                "history.days": "3d",
                "limits.enabled": False,
            },
        )

    async def live(self) -> None:
        """Poll once, then tidy up."""
        async with AsyncExitStack() as stack:
            exporter = await app.wire(
                self.settings,
                stack,
                clock=Clock(lambda: NOW, lambda: 0.0, lambda _: asyncio.sleep(0)),
                env=self.env,
            )
            for loop in exporter.loops:
                assert await loop.once()
            assert exporter.maintenance
            await exporter.maintenance.once()

    async def verify(
        self, since: date | None = None, until: date | None = None
    ) -> list[Verdict | Purged | NotRead | Refused | TotalsDiffer]:
        """What `verify` says."""
        return [verdict async for verdict in verdicts(self.settings, self.env, NOW, since, until)]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """The scene, lived."""
    world = World(3, projects=2, keys=3, users=3, lateness=lateness.PROMPT)
    async with running(application(world, clock=lambda: datetime.fromtimestamp(NOW, UTC))) as url:
        made = Scene(url, tmp_path / "state.db")
        await made.live()
        yield made


async def test_what_is_kept_is_compared_and_what_was_let_go_is_named(scene: Scene) -> None:
    """Days within history.days are equal to OpenAI's; older ones are said to be let go, and are no
    difference.
    """
    gone, *compared = await scene.verify(date(2026, 11, 1))
    usage = [
        verdict
        for verdict in compared
        if isinstance(verdict, Verdict) and verdict.source_state.endpoint.name == "completions"
    ]
    assert str(gone) == (
        "skip  2026-11-10 to 2026-11-15 default usage/completions: the rows were let go after history.days, so there is nothing to compare"
    )
    assert [(verdict.day, dict(verdict.differences)) for verdict in usage] == [
        (date(2026, 11, day), {}) for day in (16, 17, 18)
    ]
    assert all(verdict.compared for verdict in usage)
    assert [str(verdict)[:44] for verdict in compared if isinstance(verdict, Purged)] == [
        "skip  2026-11-10 to 2026-11-15 default costs"
    ]
    alone = await scene.verify(date(2026, 11, 1), date(2026, 11, 12))
    assert [
        verdict.source_state.endpoint.name for verdict in alone if isinstance(verdict, Purged)
    ] == [
        "completions",
        "costs",
    ]
    assert len(alone) == 2
    assert not any(isinstance(verdict, Purged) for verdict in await scene.verify())


async def test_a_difference_is_found(scene: Scene) -> None:
    """A row that is not there is told with its attribute set, what OpenAI says, what we have and by
    how much.
    """
    with sqlite3.connect(scene.path) as db:
        (tokens,) = db.execute(
            "SELECT input FROM readings WHERE width >= 3600 AND start >= unixepoch('2026-11-17') AND start < unixepoch('2026-11-18')"
            " AND input > 0 LIMIT 1"
        ).fetchone()
        db.execute(
            "UPDATE readings SET input = 0 WHERE width >= 3600 AND start >= unixepoch('2026-11-17') AND start < unixepoch('2026-11-18')"
            " AND input = ?",
            (tokens,),
        )
    (verdict,) = (
        one
        for one in await scene.verify(date(2026, 11, 16))
        if isinstance(one, Verdict) and one.differences
    )
    assert (verdict.day, verdict.source_state.endpoint.name) == (date(2026, 11, 17), "completions")
    assert f"(-{tokens})" in str(verdict)


async def test_totals_are_compared_with_their_rows(scene: Scene) -> None:
    """A total in the state that is not the sum of its rows is found, days that were let go taken
    into account.
    """
    assert not any(isinstance(verdict, TotalsDiffer) for verdict in await scene.verify())
    with sqlite3.connect(scene.path) as db:
        db.execute(
            "UPDATE dims SET total = json_replace(total, '$[0]', json_extract(total, '$[0]') + 1)"
            " WHERE id = (SELECT min(d.id) FROM dims d JOIN sources s ON s.id = d.source_id"
            " WHERE s.kind = 'completions')"
        )
    db.close()
    first, *_ = await scene.verify()
    assert isinstance(first, TotalsDiffer)
    assert str(first).startswith("fail  state: 1 totals are not the sum of their rows: default")


class Backfilled(Scene):
    """A scene that began counting today, and backfilled some days before."""

    def __init__(self, url: str, path: Path) -> None:
        super().__init__(url, path)
        self.settings = load(
            None,
            self.env,
            {
                "state.path": str(path),
                "api.requests_per_minute": 60000,
                "prometheus.enabled": False,
                "names.enabled": False,
                "limits.enabled": False,
                "usage.endpoints": ["completions", "vector_stores"],
                "usage.start": "today",
            },
        )

    async def backfill(self, since: date, until: date) -> None:
        """Read past days."""
        asked = Asked(since, until)
        await backfill.read(self.settings, self.env, asked, NOW, lambda *_: None)


async def test_backfilled_days_are_compared(tmp_path: Path) -> None:
    """Days that a backfill read are compared like counted ones; a change is a difference, and days
    that nobody read are named.
    """
    world = World(3, projects=2, keys=3, users=3, lateness=lateness.PROMPT)
    async with running(application(world, clock=lambda: datetime.fromtimestamp(NOW, UTC))) as url:
        scene = Backfilled(url, tmp_path / "state.db")
        await scene.live()
        today = datetime.fromtimestamp(NOW, UTC).date()
        days = [today - timedelta(days=ago) for ago in (5, 4, 3)]
        await scene.backfill(days[0], days[-1])
        found = await scene.verify(days[0] - timedelta(days=1))
        verdicts = [one for one in found if isinstance(one, Verdict)]
        assert {one.day for one in verdicts} >= set(days)
        assert {one.source_state.endpoint.name for one in verdicts} == {"completions", "costs"}
        assert not any(one.differences for one in verdicts)
        assert any(isinstance(one, NotRead) for one in found)
        with sqlite3.connect(scene.path) as db:
            at = int(datetime(days[1].year, days[1].month, days[1].day, tzinfo=UTC).timestamp())
            db.execute(
                "UPDATE readings SET input = input + 1000 WHERE start >= ?1 AND start < ?2"
                " AND input = (SELECT max(input) FROM readings WHERE start >= ?1 AND start < ?2)",
                (at, at + 86400),
            )
        differing = [
            one
            for one in await scene.verify(days[0])
            if isinstance(one, Verdict) and one.differences
        ]
        assert [one.day for one in differing] == [days[1]]
        assert "+1000" in str(differing[0])
