"""Real states after a kill or a stop, and seeded damages to their files."""

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from otel_openai_usage.domain.endpoints import COSTS, LEGACY, USAGE_ENDPOINTS, Endpoint
from otel_openai_usage.domain.metered import METERED, Event
from otel_openai_usage.domain.model import Amounts, Dims, Width, Window
from otel_openai_usage.domain.readings import Bucket
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.domain.windows import Step
from otel_openai_usage.engine import recording
from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.sqlite.store import Store
from tests.domain.shelf import DAY, HOUR, MIDNIGHT

NOON = MIDNIGHT + 12 * HOUR
COMPLETIONS = USAGE_ENDPOINTS["completions"]
STORES = USAGE_ENDPOINTS["vector_stores"]
ENDPOINTS = (COMPLETIONS, COSTS, STORES, LEGACY, METERED)
PAGE = 4096


@dataclass
class Copies:
    """The files of a state: after a kill, some time before it, and after the orderly end of the
    next process.
    """

    killed: Path
    earlier: Path
    stopped: Path


def source(store: Store, endpoint: Endpoint) -> SourceState:
    """The state of a source."""
    epoch = 0 if endpoint is LEGACY else MIDNIGHT
    return store.source_state("default", endpoint, epoch, endpoint.group_by)


def dims(endpoint: Endpoint, number: int) -> Dims:
    """An attribute set."""
    names = {"model": f"model-{number}", "project_id": f"proj_{number % 3}", "currency": "usd"}
    return tuple(names.get(name) for name in endpoint.dimensions)


def amounts(endpoint: Endpoint, rng: random.Random) -> Amounts:
    """Some usage, or money."""
    return tuple(
        Decimal(rng.randrange(1, 10**9)) / 10**7 if measure.money else rng.randrange(1, 10**6)
        for measure in endpoint.measures
    )


def poll(store: Store, endpoint: Endpoint, start: int, width: Width, rng: random.Random) -> None:
    """Record one bucket."""
    source_state = source(store, endpoint)
    said = {dims(endpoint, number): amounts(endpoint, rng) for number in range(12)}
    window = Window(start, start + width)
    if endpoint is METERED:
        events = [Event(rng.randbytes(16), rng.randbytes(8), start, *item) for item in said.items()]
        recording.record_events(store, {"default": source_state}, events, start + HOUR, 32 * DAY)
        return
    bucket = Bucket(start, rng.randbytes(8), said)
    recording.record_reading(
        store,
        source_state,
        Step(window, width, coarse=False),
        [bucket],
        start + width,
        fine_from=start,
    )


def life(store: Store, rng: random.Random, first: int, last: int) -> None:
    """Poll every source, with checkpoints between the polls."""
    for number in range(first, last):
        poll(store, COMPLETIONS, NOON + 60 * number, Width.MINUTE, rng)
        poll(store, STORES, NOON + 60 * number, Width.MINUTE, rng)
        if number % 4 == 0:
            poll(store, COSTS, MIDNIGHT + DAY * (number // 4), Width.DAY, rng)
            poll(store, LEGACY, NOON + HOUR * number, Width.HOUR, rng)
        poll(store, METERED, NOON + HOUR * (number // 10), Width.HOUR, rng)


def killed_state(folder: Path, seed: int = 1) -> Copies:
    """A state whose process was killed: most of it is in the main file, the rest in the log."""
    rng = random.Random(seed)
    path = folder / "killed" / "state.db"
    time = [float(NOON)]

    def now() -> float:
        time[0] += 1
        return time[0]

    store = Store(path, now=now)
    life(store, rng, 0, 25)
    store.checkpoint()
    store.sync()
    earlier = folder / "earlier"
    shutil.copytree(path.parent, earlier)
    life(store, rng, 25, 40)
    store.checkpoint()
    life(store, rng, 40, 50)
    store.abandon()
    stopped = folder / "stopped"
    shutil.copytree(path.parent, stopped)
    Store(stopped / path.name, now=now).close()
    return Copies(path.parent, earlier, stopped)


def content(store: Store) -> object:
    """Every total, its exported value, and the known events."""
    found: dict[object, object] = {}
    for endpoint in ENDPOINTS:
        source_state = source(store, endpoint)
        found[endpoint.name] = source_state.progress
        for stored_series in source_state.series.values():
            found[endpoint.name, stored_series.dims] = (
                stored_series.total,
                stored_series.shown,
                stored_series.released,
            )
    (events,) = store._db.execute("SELECT count(*), total(length(pairs)) FROM arrived").fetchall()
    return (found, events)


# --- damages


Damage = Callable[[Path, Copies, random.Random], None]


def flip(path: Path, rng: random.Random, *, byte: bool = False) -> None:
    """Change one bit or one byte."""
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data))
    data[at] = rng.randrange(256) if byte else data[at] ^ (1 << rng.randrange(8))
    path.write_bytes(data)


def bit(name: str) -> Damage:
    """One bit of a file flips."""
    return lambda folder, _, rng: flip(folder / name, rng)


def byte(name: str) -> Damage:
    """One byte of a file changes."""
    return lambda folder, _, rng: flip(folder / name, rng, byte=True)


def stopped(damage: Damage) -> Damage:
    """Change one bit of a state after an orderly end: all of it is in the main file."""

    def damage_stopped(folder: Path, copies: Copies, rng: random.Random) -> None:
        shutil.rmtree(folder)
        shutil.copytree(copies.stopped, folder)
        damage(folder, copies, rng)

    return damage_stopped


def log_header(folder: Path, _: Copies, rng: random.Random) -> None:
    """One bit of the log's header flips."""
    path = folder / "state.db-wal"
    data = bytearray(path.read_bytes())
    data[rng.randrange(32)] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def cut(name: str) -> Damage:
    """A file loses its end."""

    def damage(folder: Path, _: Copies, rng: random.Random) -> None:
        path = folder / name
        os.truncate(path, rng.randrange(path.stat().st_size))

    return damage


def lost(name: str) -> Damage:
    """A file is missing."""
    return lambda folder, _, __: (folder / name).unlink(missing_ok=True)


def old(*names: str) -> Damage:
    """Files are replaced by older copies of them."""

    def damage(folder: Path, copies: Copies, _: random.Random) -> None:
        for name in names:
            (folder / name).unlink(missing_ok=True)
            if (copies.earlier / name).exists():
                shutil.copy(copies.earlier / name, folder / name)

    return damage


def zero_page(folder: Path, _: Copies, rng: random.Random) -> None:
    """A page of the main file is zeros."""
    path = folder / "state.db"
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data) // PAGE) * PAGE
    data[at : at + PAGE] = bytes(PAGE)
    path.write_bytes(data)


def swap_pages(folder: Path, _: Copies, rng: random.Random) -> None:
    """Two pages of the main file are exchanged."""
    path = folder / "state.db"
    data = bytearray(path.read_bytes())
    one, other = (rng.randrange(len(data) // PAGE) * PAGE for _ in range(2))
    data[one : one + PAGE], data[other : other + PAGE] = (
        data[other : other + PAGE],
        data[one : one + PAGE],
    )
    path.write_bytes(data)


def old_page(folder: Path, copies: Copies, rng: random.Random) -> None:
    """One page of the main file has its content of an earlier time."""
    path = folder / "state.db"
    data = bytearray(path.read_bytes())
    before = (copies.earlier / "state.db").read_bytes()
    at = rng.randrange(len(before) // PAGE) * PAGE
    data[at : at + PAGE] = before[at : at + PAGE]
    path.write_bytes(data)


DAMAGES: dict[str, Damage] = {
    "a bit of the main file": bit("state.db"),
    "a byte of the main file": byte("state.db"),
    "a bit of a stopped state": stopped(bit("state.db")),
    "a byte of a stopped state": stopped(byte("state.db")),
    "a page of zeros of a stopped state": stopped(zero_page),
    "two pages swapped of a stopped state": stopped(swap_pages),
    "an old page of a stopped state": stopped(old_page),
    "a cut stopped state": stopped(cut("state.db")),
    "a bit of the log": bit("state.db-wal"),
    "a byte of the log": byte("state.db-wal"),
    "a bit of the log's header": log_header,
    "a bit of the marker": bit("state.db.marker"),
    "a byte of the marker": byte("state.db.marker"),
    "a cut main file": cut("state.db"),
    "a cut log": cut("state.db-wal"),
    "a cut marker": cut("state.db.marker"),
    "a page of zeros": zero_page,
    "two pages swapped": swap_pages,
    "an old page": old_page,
    "no log": lost("state.db-wal"),
    "no index of the log": lost("state.db-shm"),
    "no marker": lost("state.db.marker"),
    "an old log": old("state.db-wal"),
    "an old log and its index": old("state.db-wal", "state.db-shm"),
    "an old main file": old("state.db"),
    "an old main file without a log": old("state.db", "state.db-wal"),
    "an old marker": old("state.db.marker"),
    "an old state": old("state.db", "state.db-wal", "state.db-shm"),
}
OFTEN = ("a bit of a stopped state", "a byte of a stopped state", "a bit of the log")
"""These are of many kinds themselves, so they are tried more often."""


def outcome(folder: Path, truth: object) -> str:
    """The outcome of a damaged state: "refused", "reported", "harmless", or what is wrong."""
    try:
        store = Store(folder / "state.db")
    except StateError as error:
        return "refused" if len(str(error)) > 30 else f"refused without a sentence: {error}"
    try:
        if store.losses:
            content(store)  # it can be used
            return "reported"
        return "harmless" if content(store) == truth else "silently different"
    except StateError:
        return "refused"
    finally:
        store.close()


def choose(number: int, rng: random.Random) -> str:
    """Choose the next damage."""
    names = list(DAMAGES)
    return rng.choice(OFTEN) if number % 2 else names[number // 2 % len(names)]
