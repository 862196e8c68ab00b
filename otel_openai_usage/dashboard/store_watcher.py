"""Reads the store into memory, and again whenever it was written. Pages never wait for the disk."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from otel_openai_usage.dashboard.data import Data, read
from otel_openai_usage.domain.model import Width
from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.sqlite.daily import Daily, daily

log = logging.getLogger(__name__)

PAUSE_FACTOR = 20.0
"""After a reading it pauses this many times as long as the reading took, however large the store."""


@dataclass(frozen=True)
class LoadedStore:
    """Everything that was read at one time, by organization.

    `problem` says why there is nothing newer. `version` grows with every change.
    """

    data: dict[str, Data] = field(default_factory=dict)
    problem: str | None = None
    version: int = 0


class StoreWatcher:
    """Watches the store at `path`, every `interval` seconds. `clock` gives Unix seconds."""

    def __init__(
        self, path: Path, *, clock: Callable[[], float] = time.time, interval: float = 10.0
    ) -> None:
        self.path = path
        self._clock = clock
        self._interval = interval
        self._loaded = LoadedStore()
        self._read_state: tuple[int, float] | None = None
        self._stop = threading.Event()

    def loaded(self) -> LoadedStore:
        """What was read last."""
        return self._loaded

    def now(self) -> float:
        """The time that pages are about."""
        return self._clock()

    def refresh(self) -> None:
        """Read the store now. If that fails, the last reading stays, with the problem beside it."""
        try:
            with daily(self.path) as stored:
                self._load(stored)
        except StateError as error:
            self._note_problem(error)

    def watch(self) -> None:
        """Read the store whenever it was written, until `close`. Blocks: run it in a thread."""
        while not self._stop.is_set():
            try:
                with daily(self.path) as stored:
                    self._follow(stored)
            except StateError as error:
                self._note_problem(error)
                self._stop.wait(self._interval)

    def close(self) -> None:
        """End `watch`."""
        self._stop.set()

    def _follow(self, stored: Daily) -> None:
        """Read whenever this file changes; return when it is gone or after `close`."""
        while not self._stop.is_set():
            began = time.monotonic()
            # A new day moves every period, even if nothing was written.
            state = (stored.version(), self._clock() // Width.DAY)
            if state != self._read_state or self._loaded.problem:
                self._load(stored)
                self._read_state = state
            duration = time.monotonic() - began
            pause = max(self._interval, duration * PAUSE_FACTOR)
            is_closed = self._stop.wait(pause)
            if is_closed or not self.path.exists():
                return

    def _load(self, stored: Daily) -> None:
        now = self._clock()
        data = {name: read(stored, name, now) for name in stored.organizations()}
        self._loaded = LoadedStore(data, None, self._loaded.version + 1)

    def _note_problem(self, error: StateError) -> None:
        """Log a new problem once, and show it."""
        problem = str(error)
        if self._loaded.problem == problem:
            return
        message = "the dashboard waits for the state"
        if self._loaded.data:
            message = "the dashboard shows what it read last"
        log.warning(message, extra={"error": problem})
        self._loaded = LoadedStore(self._loaded.data, problem, self._loaded.version + 1)
