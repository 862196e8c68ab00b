"""Names that come and change, with a real store: what they take from a series is on the disk before
anybody sees it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeAlias

import pytest

from otel_openai_usage.composition import app
from otel_openai_usage.config import load
from otel_openai_usage.domain.commits import Delta
from otel_openai_usage.domain.model import NO_NAMES, KeyTimes, Names, Width
from otel_openai_usage.domain.snapshot import Board
from otel_openai_usage.engine import polling
from otel_openai_usage.engine.names_poll import NamesPoll
from otel_openai_usage.engine.recorder import Clock, Recorder
from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.sqlite.store import Store
from otel_openai_usage.view.attributes import AttributePolicy
from otel_openai_usage.view.snapshot_builder import SnapshotBuilder
from tests.conservation.rig import Nobody
from tests.domain.shelf import DAY, EMBEDDINGS, MIDNIGHT, read
from tests.view.test_series_index import of

NOW = MIDNIGHT + DAY
LOOK = AttributePolicy(name_wait=0, drop=frozenset({"project_id"}))


class Says:
    """Implements ports.NameSource: what projects are called."""

    def __init__(self) -> None:
        self.projects: dict[str, str | None] = {}

    async def read(self, found: Callable[[Names], Awaitable[None]]) -> Names:
        return Names(dict(self.projects), {}, {})

    async def lookup(
        self,
        projects: Sequence[str],
        api_keys: Sequence[tuple[str, str]],
        found: Callable[[Names], Awaitable[None]],
    ) -> Names:
        return NO_NAMES

    def key_times(self) -> list[KeyTimes]:
        return []


class Process:
    """One life of the exporter, wired as `run` wires it, ids dropped and names kept."""

    def __init__(self, path: Path, names: Says) -> None:
        self.store = Store(path)
        self.board = Board()
        snapshot_builder = SnapshotBuilder(
            LOOK, self.store.overflow_members(), self.store.high_water_marks()
        )
        self.recorder = Recorder(
            self.store,
            snapshot_builder,
            self.board,
            Clock(lambda: float(NOW), lambda: 0.0),
            Nobody(),
            otlp=False,
        )
        self.source_state = self.store.source_state(
            "default", EMBEDDINGS, MIDNIGHT, EMBEDDINGS.group_by
        )
        self.poll = NamesPoll(self.recorder, names, "default", [self.source_state])
        fresh = not self.source_state.series
        self.recorder.source_states.append(self.source_state)
        self.recorder.load({"default": self.store.names("default")})
        if fresh:
            read(
                self.store,
                self.source_state,
                Width.MINUTE,
                {MIDNIGHT: {of("a"): (7, 1), of("b"): (5, 1)}},
                NOW,
            )
            polling.finish(self.store, self.source_state, NOW)
            self.recorder.apply(Delta(self.source_state, list(self.source_state.series.values())))
        self.recorder.publish()

    def is_published(self) -> dict[object, float]:
        """Tokens by project name."""
        points = self.board.current().points["openai.api.tokens"]
        return {point.series.attributes["project_name"]: point.value for point in points}

    def kill(self) -> None:
        """End it. Nothing is written on the way out: a kill would not do so either."""
        self.recorder._thread.shutdown()
        self.store.close()


Begin: TypeAlias = Callable[[], Process]


@pytest.fixture
def names() -> Says:
    """Nothing is named yet."""
    return Says()


@pytest.fixture
def begin(tmp_path: Path, names: Says) -> Iterator[Begin]:
    """Begins a process on the same state; the one before it is killed."""
    lives: list[Process] = []

    def start() -> Process:
        if lives:
            lives[-1].kill()
        lives.append(Process(tmp_path / "state.db", names))
        return lives[-1]

    yield start
    lives[-1].kill()


async def test_a_restart_after_a_rename_lowers_nothing(begin: Begin, names: Says) -> None:
    """A series that a name has left shows what it showed, in this process and in the next; what is
    too much is told as pending.
    """
    one = begin()
    assert one.is_published() == {"unknown": 12}
    names.projects = {"a": "Atlas"}
    await one.poll.poll()
    one.recorder.publish()
    assert one.is_published() == {"unknown": 12, "Atlas": 7}
    for _ in range(2):
        again = begin()
        assert again.is_published() == {"unknown": 12, "Atlas": 7}
        assert [
            amount
            for _, amount in again.recorder.snapshot_builder.series_index.restated_pending()[
                "openai.api.tokens"
            ]
        ] == [7]


@pytest.mark.parametrize("broken", ["add_overflow", "set_names"])
async def test_a_kill_between_two_writes_lowers_nothing(
    begin: Begin, names: Says, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Killed before what must not fall is kept, or between that and the names: the next process
    shows no less, and learns the names.
    """
    one = begin()
    names.projects = {"a": "Atlas"}

    def dies(*_: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as dying:
        dying.setattr(Store, broken, dies)
        with pytest.raises(asyncio.CancelledError):
            await one.poll.poll()
    again = begin()
    assert again.is_published() == {"unknown": 12}
    await again.poll.poll()
    again.recorder.publish()
    assert again.is_published() == {"unknown": 12, "Atlas": 7}
    assert begin().is_published() == {"unknown": 12, "Atlas": 7}


@pytest.mark.parametrize("broken", ["add_overflow", "set_names"])
async def test_names_that_could_not_be_kept_are_kept_later(
    begin: Begin, names: Says, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """While the disk is full nothing is shown that is not kept; with the next poll that can write,
    names and all are on the disk.
    """
    one = begin()
    names.projects = {"a": "Atlas"}

    def full(*_: object) -> None:
        raise StateError("written the state file: the disk is full")

    with monkeypatch.context() as filled:
        filled.setattr(Store, broken, full)
        with pytest.raises(StateError):
            await one.poll.poll()
        if broken == "add_overflow":
            with pytest.raises(StateError):
                one.recorder.publish()
            assert one.is_published() == {"unknown": 12}
    await one.poll.poll()
    one.recorder.publish()
    assert one.store.names("default").projects == {"a": "Atlas"}
    assert begin().is_published() == {"unknown": 12, "Atlas": 7}


async def test_the_exporter_holds_what_was_held(begin: Begin, names: Says, tmp_path: Path) -> None:
    """`run` on the state of such a process shows the same from its first scrape on."""
    one = begin()
    names.projects = {"a": "Atlas"}
    await one.poll.poll()
    one.kill()
    env = {"OPENAI_ADMIN_KEY": "sk-admin-x"}
    settings = load(
        None,
        env,
        {
            "state.path": str(tmp_path / "state.db"),
            "attributes.drop": ["project_id"],
            "prometheus.enabled": False,
        },
    )
    async with AsyncExitStack() as stack:
        exporter = await app.wire(
            settings, stack, clock=Clock(lambda: float(NOW), lambda: 0.0), env=env
        )
        points = exporter.board.current().points["openai.api.tokens"]
        assert {point.series.attributes["project_name"]: point.value for point in points} == {
            "unknown": 12,
            "Atlas": 7,
        }
