"""What every source has: an interval, a state, and a way of telling of trouble without flooding the
log.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from otel_openai_usage.engine.failure_log import FailureLog, is_expected, rejected
from otel_openai_usage.engine.recorder import Recorder
from otel_openai_usage.errors import Bug, ExporterError, StateCorrupt

DOWN_AFTER = 10.0
"""Seconds after which a source that never answered yet is shown as down, though it is still being
asked.
"""
RETRY_AFTER = 60.0
"""Seconds until a source that failed is tried again, if its interval is longer."""


@dataclass(slots=True)
class Loop:
    """Polls one source for ever. `status` is told in the keeper's thread whether each poll
    succeeded.
    """

    source: str
    interval: float
    poll: Callable[[], Coroutine[None, None, None]]
    recorder: Recorder
    status: Callable[[bool], None]
    failure_log: FailureLog
    _tried: int | None = None
    _ever_up: bool = False
    error: ExporterError | None = None

    async def once(self) -> bool:
        """One poll. True if it succeeded; what went wrong is in `error`. Raises StateCorrupt: that
        does not heal.

        A bug is an error of this source like any other, so that it does not stop other sources.
        """
        try:
            await self._watched()
        except StateCorrupt:
            raise
        except ExporterError as error:
            self._failed(error)
        except Exception as error:  # noqa: BLE001 - one source's bug must not stop the others
            self._failed(as_bug(self.source, error))
        else:
            self.error = None
            self.failure_log.recovered(self.source)
        up = self.error is None
        await self._show(up)
        self._ever_up |= up
        told = self.recorder.notify()
        self._tried = self._tried or told
        return up

    def _failed(self, error: ExporterError) -> None:
        self.error = error
        self.failure_log.failed(self.source, error, self.recorder.clock.mono())
        # It is kept until the next poll: without its frames, which hold what was being read.
        error.__traceback__ = None
        error.__cause__ = error.__context__ = None

    async def _watched(self) -> None:
        """The poll; one that has not ended soon shows the source as down, unless it was up before:
        asking again may take minutes.
        """
        if self._ever_up:
            return await self.poll()
        polling = asyncio.ensure_future(self.poll())
        try:
            await asyncio.wait((polling,), timeout=DOWN_AFTER)
            if not polling.done() and not self._ever_up:
                await self._show(up=False)
                self.recorder.notify()
                self.failure_log.slow(self.source)
            return await polling
        finally:
            polling.cancel()

    def answered(self) -> None:
        """A poll that takes long has shown a first answer: the source is up, and was tried."""
        self._ever_up = True
        self._tried = self._tried or self.recorder.notify()

    async def _show(self, up: bool) -> None:
        await self.recorder.do(lambda: self.status(up))

    async def forever(self) -> None:
        """Poll every `interval`, on a schedule that does not drift."""
        clock = self.recorder.clock
        due = clock.mono()
        while True:
            began = max(due, clock.mono())
            self.recorder.telemetry.poll_began(self.organization, self.source, began - due)
            up = await self.once()
            pause = self.interval if up else min(self.interval, RETRY_AFTER)
            due = began + pause
            await clock.sleep(max(0.0, due - clock.mono()))

    @property
    def organization(self) -> str:
        """Whose source it is."""
        return self.failure_log.organization

    @property
    def tried(self) -> bool:
        """Whether the first poll was tried, and what it brought is shown."""
        return self._tried is not None and self.recorder.is_published(self._tried)

    @property
    def is_expected(self) -> bool:
        """Whether the last failure is one that an operator may have chosen."""
        return is_expected(self.source, self.error)

    @property
    def rejected(self) -> bool:
        """Whether OpenAI refused the key at the last poll."""
        return rejected(self.error)


def as_bug(source: str, error: Exception) -> Bug:
    """An unforeseen exception as an error of its source; the trace stays with it."""
    bug = Bug(
        f"{source}: this should not happen, so it is a bug of otel-openai-usage:"
        f" {type(error).__name__}: {error}; report it with the trace in the log"
    )
    bug.__cause__ = error
    return bug
