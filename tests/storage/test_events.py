"""A recorded event is known for the whole time of `dedupe`, wherever its identity is stored."""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path

import pytest

from otel_openai_usage.domain.metered import Event
from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.sqlite import events
from otel_openai_usage.storage.sqlite.events import SLICES
from otel_openai_usage.storage.sqlite.store import Store
from tests.storage.test_files import OLD

DEDUPE = 1000


def event(number: int, content: int = 0) -> Event:
    """An event that adds nothing."""
    return Event(
        blake2b(f"{number}".encode(), digest_size=16).digest(),
        content.to_bytes(8, "big"),
        None,
        (),
        (),
    )


@contextmanager
def full(store: Store) -> Iterator[None]:
    """Let the next commit fail after everything was written."""
    commit = (sqlite3.SQLITE_TRANSACTION, "COMMIT")
    store._db.set_authorizer(
        lambda action, what, *_: (
            sqlite3.SQLITE_DENY if (action, what) == commit else sqlite3.SQLITE_OK
        )
    )
    try:
        yield
    finally:
        store._db.set_authorizer(None)


def quick(path: Path | str) -> Store:
    """A store that does not wait for the disk: these tests have no power cut."""
    store = Store(path)
    store._db.execute("PRAGMA synchronous = OFF")
    return store


def forget(store: Store, before: int) -> int:
    """Purge every slice."""
    return sum(store.purge_events(part, before) for part in range(SLICES))


@pytest.mark.parametrize("seed", range(6))
def test_recorded_events_are_known_within_dedupe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Events that were recorded within `dedupe` are known with their newest content, through
    restarts, kills, failed transactions and purges.
    """
    monkeypatch.setattr(events, "SORT_AT", 20)
    chance = random.Random(seed)
    now = 10_000
    seen = dict[int, tuple[int, int]]()
    opened = 0
    store = quick(tmp_path / "0.db")
    for step in range(300):
        now += chance.randrange(8)
        known = store.known_events([event(number).identity for number in range(300)], now - DEDUPE)
        expected = {
            number: content for number, (content, when) in seen.items() if when >= now - DEDUPE
        }
        assert known == {
            event(number).identity: event(number, content).content
            for number, content in expected.items()
        }
        unknown = [number for number in range(300) if number not in expected]
        fresh = chance.sample(unknown, min(len(unknown), chance.choice([0, 1, 1, 3, 15])))
        match chance.randrange(20):
            case 0:
                forget(store, now - DEDUPE)
            case 1:
                store.close()
                store = quick(store.path)
            case 2:
                opened += 1
                killed = tmp_path / f"{opened}.db"
                killed.write_bytes(Path(store.path).read_bytes())
                Path(f"{killed}-wal").write_bytes(Path(f"{store.path}-wal").read_bytes())
                store.close()
                store = quick(killed)
            case 3:
                with full(store), pytest.raises(StateError):
                    store.record_events([event(number) for number in fresh], (), now)
            case _ if fresh:
                store.record_events([event(number, step) for number in fresh], (), now)
                seen |= dict.fromkeys(fresh, (step, now))
    assert len(seen) > 150
    store.close()


@pytest.mark.parametrize("life", [1, 3, 2000])
def test_identities_move_and_are_purged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, life: int
) -> None:
    """Neither memory nor the table of arrivals grows with the number of known events, even if the
    store is opened again after every `life` transactions. Purging empties the large table.
    """
    monkeypatch.setattr(events, "SORT_AT", 50)
    store = quick(tmp_path / "state.db")
    for nth, first in enumerate(range(0, 2000, 10)):
        if nth % life == life - 1:
            store.close()
            store = quick(store.path)
        store.record_events([event(number) for number in range(first, first + 10)], (), first)
        held = store._events
        assert len(held._arriving) + len(held._moving) <= 3 * 50
        assert (
            store._db.execute("SELECT coalesce(sum(length(pairs)), 0) FROM arrived").fetchone()[0]
            <= 24 * 3 * 50
        )
    with closing(store):
        assert store._db.execute("SELECT count(*) FROM events").fetchone()[0] >= 2000 - 3 * 50
        assert forget(store, 1500) == 1500
        assert len(store.known_events([event(number).identity for number in range(2000)], 0)) == 500


def test_a_kill_after_identities_moved_at_a_start_is_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start may move identities into the large table before it writes the marker."""
    path = tmp_path / "state.db"
    store = Store(path)
    store.record_events([event(number) for number in range(60)], (), 1000)
    store.close()
    with monkeypatch.context() as patched:
        patched.setattr(events, "SORT_AT", 50)
        patched.setattr(Store, "_begin_marker", lambda self: None)
        store = Store(path)
        assert store._db.execute("SELECT count(*) FROM events").fetchone()[0] == 60
        store.abandon()
    store = Store(path)
    assert list(store.losses) == []
    assert len(store.known_events([event(number).identity for number in range(60)], 0)) == 60
    store.close()


def test_events_of_an_older_version_are_known(tmp_path: Path) -> None:
    """Events that version 4 recorded are duplicates after the migration."""
    script = next(path for path in OLD if path.stem == "version-4")
    with closing(sqlite3.connect(tmp_path / "state.db")) as db:
        db.executescript(script.read_text())
        db.execute(
            "INSERT INTO events VALUES (?, ?, 100)", (event(1).identity, event(1, 5).content)
        )
        db.commit()
    with closing(Store(tmp_path / "state.db")) as store:
        store.record_events([event(2)], (), 200)
        asked = [event(number).identity for number in range(4)]
        assert store.known_events(asked, 100) == {
            event(1).identity: event(1, 5).content,
            event(2).identity: event(2).content,
        }
        assert store.known_events(asked, 101).keys() == {event(2).identity}
