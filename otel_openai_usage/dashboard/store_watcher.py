"""Reads the store into memory, and again whenever it was written. Pages never wait for the disk."""

import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from otel_openai_usage.dashboard.budget_states import NO_BUDGETS, BudgetPlan
from otel_openai_usage.dashboard.data import Data, read
from otel_openai_usage.domain.model import Width
from otel_openai_usage.domain.pseudonyms import NO_PSEUDONYMS, Pseudonyms
from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.ports import OpenQueries, Queries

log = logging.getLogger(__name__)

PAUSE_FACTOR = 20.0
"""The pause after a reading, as a multiple of its duration: a large store must not keep a processor
busy.
"""


@dataclass(frozen=True)
class LoadedStore:
    """Everything that was read at one time, by organization.

    `problem` says why there is nothing newer. `version` grows with every change.
    """

    data: dict[str, Data] = field(default_factory=dict)
    problem: str | None = None
    version: int = 0


class StoreWatcher:
    """Watches the store, every `interval` seconds. `clock` gives Unix seconds. `hashed` are the
    attributes that are shown as keyed hashes.
    """

    def __init__(
        self,
        open_queries: OpenQueries,
        *,
        clock: Callable[[], float] = time.time,
        interval: float = 10.0,
        hashed: Collection[str] = (),
        plan: BudgetPlan = NO_BUDGETS,
    ) -> None:
        self._open_queries = open_queries
        self._clock = clock
        self._interval = interval
        self._plan = plan
        self._hashed = frozenset(hashed)
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
            with self._open_queries() as queries:
                self._load(queries)
        except StateError as error:
            self._note_problem(error)

    def watch(self) -> None:
        """Read the store whenever it was written, until `close`. Blocks: run it in a thread."""
        while not self._stop.is_set():
            try:
                with self._open_queries() as queries:
                    self._follow(queries)
            except StateError as error:
                self._note_problem(error)
                self._stop.wait(self._interval)

    def close(self) -> None:
        """End `watch`."""
        self._stop.set()

    def _follow(self, queries: Queries) -> None:
        """Read whenever the store changes, until `close`. Raises StateError if it is gone."""
        while not self._stop.is_set():
            began = time.monotonic()
            # A new day moves every period, even if nothing was written.
            state = (queries.version(), self._clock() // Width.DAY)
            if state != self._read_state or self._loaded.problem:
                self._load(queries)
                self._read_state = state
            duration = time.monotonic() - began
            pause = max(self._interval, duration * PAUSE_FACTOR)
            self._stop.wait(pause)

    def _load(self, queries: Queries) -> None:
        now = self._clock()
        organizations = dict.fromkeys(source.organization for source in queries.sources())
        pseudonyms = NO_PSEUDONYMS
        if self._hashed:
            pseudonyms = Pseudonyms(self._hashed, queries.hash_key())
        data = {
            name: read(queries, name, now, pseudonyms=pseudonyms, plan=self._plan)
            for name in organizations
        }
        self._loaded = LoadedStore(data, None, self._loaded.version + 1)

    def _note_problem(self, error: StateError) -> None:
        """Log a new problem once, and show it."""
        problem = str(error)
        # It would be logged again at every attempt.
        if self._loaded.problem == problem:
            return
        message = "the dashboard waits for the state"
        if self._loaded.data:
            message = "the dashboard shows what it read last"
        log.warning(message, extra={"event": "dashboard_store", "error": problem})
        self._loaded = LoadedStore(self._loaded.data, problem, self._loaded.version + 1)
