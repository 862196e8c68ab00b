"""File descriptors: as many as the system allows, and one line a minute when they run out."""

import asyncio
import errno
import logging
import sys
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

ENOUGH = 65_536
"""What the soft limit is raised to, if the hard limit is not lower: some systems allow a billion,
and a process should not ask for them.
"""
LOG_AGAIN_AFTER = 60.0
"""Seconds between two lines about running out."""
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Context = dict[str, Any]


def raise_limit() -> None:
    """Raise the soft limit of open files towards the hard one. Never lowers it, never fails."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:
            log.debug(
                "raising the limit of open files",
                extra={"event": "open_files_limit", "error": str(error)},
            )


class ExhaustionHandler:
    """An exception handler of an event loop: a listener that cannot accept connections because
    descriptors or memory ran out is one sentence a minute instead of a trace for each attempt.

    asyncio tries again after a second by itself. Everything else goes to the default handler.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._logged: float | None = None

    def __call__(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        """Log it, or do not."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in _EXHAUSTED:
            loop.default_exception_handler(context)
            return
        now = self._clock()
        if self._logged is not None and now - self._logged < LOG_AGAIN_AFTER:
            return
        self._logged = now
        log.error(
            "connections cannot be accepted: close idle ones, or raise the limit of open files"
            " (ulimit -n, LimitNOFILE=)",
            extra={"event": "descriptors_exhausted", "error": error.strerror or str(error)},
        )
