"""`state copy` moves a whole state from one store to another, completely or not at all."""

import glob
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from otel_openai_usage.composition import stores
from otel_openai_usage.config import Location
from otel_openai_usage.errors import StateError
from otel_openai_usage.simulator.world import World
from otel_openai_usage.storage.sql import copying
from tests.conservation.rig import DAY, HASTE, HOUR, MONDAY, Life, Options
from tests.real.installed import KEY, Surroundings
from tests.real.postgres import Postgres
from tests.storage.test_events import event


@pytest.fixture(params=["to postgres", "to sqlite"])
def places(
    request: pytest.FixtureRequest, postgres: Postgres, tmp_path: Path
) -> Iterator[tuple[Location, Location]]:
    """A place with a state to come, and an empty one of the other kind."""
    file = tmp_path / "state.db"
    if request.param == "to postgres":
        yield file, postgres.location()
    else:
        yield postgres.location(), file


async def _lived(place: Location) -> Life:
    """An exporter that counted for some hours, in a world that restates."""
    life = Life(
        place,
        World.tiny(3, lateness=HASTE),
        endpoints=("completions", "vector_stores", "costs"),
        failure_log=0.1,
        options=Options(settle=HOUR, start=MONDAY),
    )
    await life.live(6 * HOUR, kills=0.05)
    return life


async def test_counters_continue_in_the_copy(places: tuple[Location, Location]) -> None:
    """An exporter that goes on with the copy ends exact: no counter falls, nothing counts twice,
    known events stay known.
    """
    source, target = places
    life = await _lived(source)
    events = [event(number) for number in range(500)]
    life.run.store.record_events(events, (), MONDAY)
    instance_id = life.run.store.instance_id
    life.stop()
    copied: list[int] = []
    stores.copy(source, target, copied.append)
    life.path = target
    life.run = life._run()
    life.watch()
    assert life.run.store.instance_id == instance_id
    known = life.run.store.known_events([one.identity for one in events], 0)
    assert len(known) == len(events)
    await life.live(6 * HOUR)
    await life.end()


async def test_an_interrupted_copy_leaves_nothing(
    places: tuple[Location, Location], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that breaks off, or has other sums, is not there afterwards; then it can be made."""
    source, target = places
    life = await _lived(source)
    life.stop()

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(copying, "_TELL_EVERY", 7)
    with pytest.raises(KeyboardInterrupt):
        stores.copy(source, target, interrupted)
    if isinstance(target, Path):
        assert not list(target.parent.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(copying, "TABLES", tuple(t for t in copying.TABLES if t != "estimates"))
        patch.setattr(copying, "_sums", _unequal(copying._sums))
        with pytest.raises(StateError, match="nothing was kept of the copy"):
            stores.copy(source, target, lambda _: None)
    stores.copy(source, target, lambda _: None)
    with pytest.raises(StateError, match="there is a state already"):
        stores.copy(source, target, lambda _: None)


def _unequal(sums: object) -> object:
    """Sums that are never those of another call."""
    calls = iter(range(10))
    return lambda _: {"the sum of input": next(calls)}


async def test_a_backup_of_a_database_can_be_restored(
    postgres: Postgres, tmp_path: Path, surroundings: Surroundings
) -> None:
    """`state backup` writes a file while the exporter runs; `state restore` replaces what is there."""
    location = postgres.location(lease=1.0)
    life = await _lived(location)
    before = life.run.counters()
    environment = {"OTEL_OPENAI_USAGE_STATE_URL": location.url, "OPENAI_ADMIN_KEY": KEY}
    file = tmp_path / "backup.db"
    done = surroundings.call("state", "backup", file, **environment)
    assert done.returncode == 0, done.stderr
    assert not glob.glob(str(tmp_path / ".backup*"))  # noqa: PTH207 - one small folder
    again = surroundings.call("state", "backup", file, **environment)
    assert (again.returncode, "left as it is" not in again.stdout) == (1, True)
    running = surroundings.call("state", "copy", "--to", tmp_path / "copy.db", **environment)
    assert running.returncode == 1
    assert "stop it first" in running.stderr
    life.time.pass_(DAY)
    await life.poll()
    life.stop()
    restored = surroundings.call("state", "restore", file, **environment)
    assert restored.returncode == 0, restored.stderr
    life.run = life._run()
    assert {key: life.run.counters()[key] for key in before} == before
    life.stop()
    moved = surroundings.call("state", "copy", "--to", tmp_path / "copy.db", **environment)
    assert moved.returncode == 0, moved.stderr
    with closing(stores.open_writer(tmp_path / "copy.db")) as copy:
        assert copy.instance_id


def test_a_place_that_cannot_be_used_is_a_sentence(
    postgres: Postgres, surroundings: Surroundings, tmp_path: Path
) -> None:
    """A source without a state and a target that nobody serves end with 1 and a sentence."""
    environment = {"OPENAI_ADMIN_KEY": KEY}
    nothing = surroundings.call(
        "state", "copy", "--to", "postgresql://127.0.0.1:1/x", **environment
    )
    assert nothing.returncode == 1
    assert "there is none" in nothing.stderr
    path = tmp_path / ".local" / "state" / "otel-openai-usage" / "state.db"
    stores.open_writer(path).close()
    refused = surroundings.call(
        "state", "copy", "--to", "postgresql://127.0.0.1:1/x", **environment
    )
    assert refused.returncode == 1
    assert "check state.url" in refused.stderr
    location = postgres.location()
    away = replace(location, url=location.url.replace("search_path%3D", "search_path%3Dno"))
    refused = surroundings.call("state", "copy", "--to", away.url, **environment)
    assert "create the schema" in refused.stderr
