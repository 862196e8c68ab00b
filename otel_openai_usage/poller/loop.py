"""What every source has: an interval, a state, and a way of telling of trouble without flooding the log."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from otel_openai_usage.errors import ExporterError, MissingScope, NotOffered, Rejected
from otel_openai_usage.poller.keeper import Keeper

log = logging.getLogger(__name__)

RETRY_AFTER = 60.0
"""Seconds until a source that failed is tried again, if its interval is longer."""
SAY_AGAIN_AFTER = 3600.0
"""Seconds after which a failure that goes on is said again."""


@dataclass(slots=True)
class Loop:
    """Polls one source for ever. `status` is told in the keeper's thread whether each poll succeeded."""

    organization: str
    source: str
    interval: float
    poll: Callable[[], Awaitable[None]]
    keeper: Keeper
    status: Callable[[bool], None]
    _tried: int | None = None
    error: ExporterError | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    _said: tuple[str, float] = ("", 0.0)

    async def once(self) -> bool:
        """One poll. True if it succeeded; what went wrong is in `error`."""
        try:
            await self.poll()
            self.error = None
        except ExporterError as error:
            self.error = error
        self._say()
        up = self.error is None
        await self.keeper.do(lambda: self.status(up))
        told = self.keeper.tell()
        self._tried = self._tried or told
        return up

    async def forever(self) -> None:
        """Poll every `interval`, on a schedule that does not drift."""
        clock = self.keeper.clock
        due = clock.mono()
        while True:
            up = await self.once()
            due = max(due + (self.interval if up else min(self.interval, RETRY_AFTER)), clock.mono())
            await self._wait(due - clock.mono())

    async def _wait(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        sleeping, woken = asyncio.ensure_future(self.keeper.clock.sleep(seconds)), asyncio.ensure_future(self.wake.wait())
        try:
            await asyncio.wait((sleeping, woken), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.wake.clear()
            sleeping.cancel()
            woken.cancel()

    def _say(self) -> None:
        text, mono = str(self.error or ""), self.keeper.clock.mono()
        facts = {"organization": self.organization, "source": self.source}
        if self.error is None:
            if self._said[0]:
                log.info("poll succeeded again", extra=facts)
            self._said = ("", mono)
        elif text != self._said[0] or mono - self._said[1] >= SAY_AGAIN_AFTER:
            log.log(logging.INFO if self.bearable else logging.WARNING, "poll failed", extra={**facts, "error": text})
            self._said = (text, mono)

    @property
    def tried(self) -> bool:
        """Whether the first poll was tried, and what it brought is shown."""
        return self._tried is not None and self.keeper.shows(self._tried)

    @property
    def bearable(self) -> bool:
        """Whether this failure is one that an operator may have chosen: no scope for names, an endpoint not offered."""
        return isinstance(self.error, NotOffered) or (isinstance(self.error, MissingScope) and self.source in ("names", "limits"))

    @property
    def rejected(self) -> bool:
        """Whether OpenAI refused the key."""
        return isinstance(self.error, Rejected) and not isinstance(self.error, MissingScope)
