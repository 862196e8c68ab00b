"""Batches that could not be sent, in a folder: a file each, oldest first, of a bounded size in all."""

import contextlib
import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from otel_openai_metering.journal import Journal
from otel_openai_metering.sender import Event

log = logging.getLogger(__name__)


class Spool:
    """Several processes may share a folder: a batch that two of them send is counted once, by the
    ids of its events.

    What does not fit in `limit` bytes pushes out the oldest. No method raises for what the disk
    does.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._number = 0
        self._is_failing = False
        self.journal = Journal(folder)

    def is_waiting(self) -> bool:
        """There is something here to be sent, by whomever it was left."""
        return bool(self._files()) or self.journal.has_others()

    def put(self, events: Sequence[Event]) -> int:
        """Keep a batch. How many events were lost for it: this batch's if it cannot be written, or
        older ones'.
        """
        self._number += 1
        name = f"{time.time_ns():020d}-{os.getpid()}-{self._number}.json"
        unfinished = self._folder / f".{name}"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(events, file, separators=(",", ":"), default=str)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(self._folder / name)
            self._is_failing = False
        except (OSError, ValueError) as error:
            # Nobody else would ever remove it, and a full disk has no room for many of them.
            self.drop(unfinished)
            if not self._is_failing:
                log.warning("events cannot be spooled in %s: %s", self._folder, error)
                self._is_failing = True
            return len(events)
        return self._bound()

    def take(self) -> tuple[Path, list[Event]] | None:
        """The oldest batch; it stays until `drop`. A file that is none is thrown away; one that
        cannot be read now, as without a free descriptor, stays.
        """
        for file in self._files():
            try:
                content = file.read_bytes()
            except OSError as error:
                log.debug("the spooled batch %s cannot be read now: %s", file, error)
                continue
            try:
                events = json.loads(content)
                if isinstance(events, list) and events:
                    return file, events
            except (ValueError, RecursionError) as error:
                log.warning("the spooled batch %s cannot be read: %s", file, error)
            self.drop(file)
        return None

    def drop(self, file: Path) -> None:
        """Forget a batch."""
        with contextlib.suppress(OSError):
            file.unlink()

    def _files(self) -> list[Path]:
        try:
            return sorted(self._folder.glob("[0-9]*.json"))
        except (OSError, ValueError):
            return []

    def _bound(self) -> int:
        sizes: list[tuple[Path, int]] = []
        for file in self._files():
            with contextlib.suppress(OSError):
                sizes.append((file, file.stat().st_size))
        total = sum(size for _, size in sizes)
        lost = 0
        for file, size in sizes[:-1]:
            if total <= self._limit:
                break
            with contextlib.suppress(OSError, ValueError, RecursionError):
                lost += len(json.loads(file.read_bytes()))
            self.drop(file)
            total -= size
        return lost
