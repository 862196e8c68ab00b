"""Logs the failures of an export."""

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

QUIET = 60.0
"""Seconds in which one kind of failure is logged at most once."""


class ExportLog:
    """Logs a failure when it begins, and reports when it ends.

    Each kind is logged at most once a minute. So a backend cannot fill the log, whatever it
    answers.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._ongoing: set[str] = set()
        """Events that began and did not end."""
        self._not_logged: set[str] = set()
        """Of these, those that were not logged because the last time was shortly before."""
        self._logged_at: dict[str, float] = {}

    def begin(self, event: str, message: str, **facts: object) -> None:
        """Log a warning, unless this event is ongoing."""
        if event in self._ongoing:
            return
        self._ongoing.add(event)
        now = self._monotonic()
        # An event that ended and began again within a minute is not logged a second time.
        last = self._logged_at.get(event)
        if last is not None and now - last < QUIET:
            self._not_logged.add(event)
            return
        self._logged_at[event] = now
        log.warning(message, extra={"event": event, **facts})

    def end(self, event: str) -> bool:
        """End the event. Return whether it was ongoing and had been logged."""
        was_logged = event in self._ongoing and event not in self._not_logged
        self._ongoing.discard(event)
        self._not_logged.discard(event)
        return was_logged
