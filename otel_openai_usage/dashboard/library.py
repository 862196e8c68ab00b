"""Keeps what was read of the store, and reads it again when it was written. Pages never wait for
the disk.
"""

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

AT_MOST = 20.0
"""Reading takes at most one part in so many of the time, however large the store is."""


@dataclass(frozen=True)
class Shelf:
    """Everything read at one time, by organization. `trouble` says why there is nothing newer."""

    data: dict[str, Data] = field(default_factory=dict)
    trouble: str | None = None
    number: int = 0


class Library:
    """The store at `path`, seen every `interval` seconds. `clock` gives Unix seconds."""

    def __init__(
        self, path: Path, *, clock: Callable[[], float] = time.time, interval: float = 10.0
    ) -> None:
        self.path = path
        self._clock = clock
        self._interval = interval
        self._shelf = Shelf()
        self._seen: tuple[int, float] | None = None
        self._stop = threading.Event()

    def shelf(self) -> Shelf:
        """What is known now."""
        return self._shelf

    def now(self) -> float:
        """The time that pages are about."""
        return self._clock()

    def refresh(self) -> None:
        """Read the store now. What cannot be read leaves the last reading in place, with a word
        about it.
        """
        try:
            with daily(self.path) as past:
                self._take(past)
        except StateError as error:
            self._failure_log(error)

    def watch(self) -> None:
        """Read the store whenever it was written, until `close`. In a thread of its own."""
        while not self._stop.is_set():
            try:
                with daily(self.path) as past:
                    self._follow(past)
            except StateError as error:
                self._failure_log(error)
                self._stop.wait(self._interval)

    def close(self) -> None:
        """Let `watch` end."""
        self._stop.set()

    def _follow(self, past: Daily) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            state = (past.version(), self._clock() // Width.DAY)
            if state != self._seen or self._shelf.trouble:
                self._take(past)
                self._seen = state
            apply = time.monotonic() - began
            if self._stop.wait(max(self._interval, apply * AT_MOST)) or not self.path.exists():
                return

    def _take(self, past: Daily) -> None:
        now = self._clock()
        data = {name: read(past, name, now) for name in past.organizations()}
        self._shelf = Shelf(data, None, self._shelf.number + 1)

    def _failure_log(self, error: StateError) -> None:
        if self._shelf.trouble != str(error):
            what = (
                "the dashboard shows what it read last"
                if self._shelf.data
                else "the dashboard waits for the state"
            )
            log.warning(what, extra={"error": str(error)})
            self._shelf = Shelf(self._shelf.data, str(error), self._shelf.number + 1)
