"""Refused events: how many requests they may cost, and how often they are logged."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

PERIOD = 60.0
"""Seconds between two lines of one kind, and between two allowances of requests."""
ALLOWED = 32
"""Refused requests in a period after which no batch is split any more. One bad event in a hundred
costs eight of them where the server does not say which it is.
"""
REGAINED = 4
"""Requests that an accepted one allows: a server that takes most events has all bad ones found."""


@dataclass(slots=True)
class _Kind:
    events: int = 0
    why: str = ""
    next_line: float = 0.0


@dataclass(slots=True)
class Refusals:
    """Counts refusals by kind (the status)."""

    clock: Callable[[], float] = time.monotonic
    _kinds: dict[str, _Kind] = field(default_factory=dict)
    _left: int = ALLOWED
    _period_ends: float = 0.0

    def may_ask(self) -> bool:
        """Another request may be spent in this period on finding what is refused."""
        now = self.clock()
        if now >= self._period_ends:
            self._left = ALLOWED
            self._period_ends = now + PERIOD
        return self._left > 0

    def asked(self) -> None:
        """A request was refused."""
        self._left -= 1

    def accepted(self) -> None:
        """A request was accepted."""
        self._left = min(self._left + REGAINED, ALLOWED)

    def add(self, kind: str, why: str, events: int) -> None:
        """So many events were dropped for a refusal."""
        known = self._kinds.setdefault(kind, _Kind())
        known.events += events
        known.why = why

    def next_line(self) -> float | None:
        """When the next line is due, on the clock; None if there is none to come."""
        return min((kind.next_line for kind in self._kinds.values() if kind.events), default=None)

    def report(self, *, is_last: bool = False) -> None:
        """Log what is due: a line for each kind and period; at the end all of it."""
        now = self.clock()
        for kind in self._kinds.values():
            if kind.events and (is_last or now >= kind.next_line):
                log.warning("the server refused events, %d of them: %s", kind.events, kind.why)
                kind.events = 0
                kind.next_line = now + PERIOD
