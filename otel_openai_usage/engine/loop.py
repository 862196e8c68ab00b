"""Polls one source at its interval, and notes how each poll ended."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from otel_openai_usage.engine.failure_log import FailureLog, is_expected, rejected
from otel_openai_usage.engine.recorder import Recorder
from otel_openai_usage.errors import Bug, ExporterError, StateCorrupt

DOWN_AFTER = 10.0
"""Seconds after which a source without any answer so far is shown as down; its poll goes on."""
_MINUTE = 60
_EARLY = 5
RETRY_AFTER = 60.0
"""Most seconds until a source that failed is polled again."""


@dataclass(slots=True)
class Loop:
    """Polls one source forever. `interval` is in seconds.

    `idle_interval` takes its place after a poll that succeeded, while `is_idle` says so. With an
    `offset` polls begin so many seconds after a whole minute, if the interval is of whole minutes.
    `status` is called in the recorder's thread, with whether the poll succeeded.
    """

    source: str
    interval: float
    poll: Callable[[], Coroutine[None, None, None]]
    recorder: Recorder
    status: Callable[[bool], None]
    failure_log: FailureLog
    idle_interval: float | None = None
    is_idle: Callable[[], bool] = lambda: False
    offset: float | None = None
    # The generation of the first result, None before it: `tried` waits until it is published.
    _tried: int | None = None
    _ever_up: bool = False
    error: ExporterError | None = None

    async def once(self) -> bool:
        """Poll once. Return whether it succeeded; else `error` says what went wrong.

        A bug is an error of this source only, so that it does not stop other sources. Raises
        StateCorrupt, because another poll cannot repair the state.
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
        generation = self.recorder.notify()
        self._tried = self._tried or generation
        return up

    def _failed(self, error: ExporterError) -> None:
        self.error = error
        self.failure_log.failed(self.source, error, self.recorder.clock.mono())
        # The error lives until the next poll. Its frames would keep the whole answer in memory.
        error.__traceback__ = None
        error.__cause__ = None
        error.__context__ = None

    async def _watched(self) -> None:
        """Poll. Show the source as down if its first answer takes long: retries take minutes."""
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
        """Note the first answer during a long poll: the source is up, and counts as tried."""
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
            due = began + self._pause(began, up=up)
            await clock.sleep(max(0.0, due - clock.mono()))

    def _pause(self, began: float, *, up: bool) -> float:
        """Seconds from `began`, when a poll began, to the next one."""
        if not up:
            return min(self.interval, RETRY_AFTER)
        interval = self.interval
        if self.idle_interval is not None and self.is_idle():
            interval = self.idle_interval
        if self.offset is None or interval % _MINUTE:
            return interval
        # OpenAI's newest minute is complete just after it ended.
        clock = self.recorder.clock
        began_at = clock.now() - (clock.mono() - began)
        beyond = (began_at + interval - self.offset) % _MINUTE
        # A poll that began a moment early is followed by one in the next minute, not in this one.
        is_early = beyond > _MINUTE - _EARLY
        return interval - (beyond - _MINUTE if is_early else beyond)

    @property
    def organization(self) -> str:
        """The organization of the source."""
        return self.failure_log.organization

    @property
    def tried(self) -> bool:
        """Whether the first poll ended, and its result is published."""
        return self._tried is not None and self.recorder.is_published(self._tried)

    @property
    def is_expected(self) -> bool:
        """Whether the last failure may be intended by the operator."""
        return is_expected(self.source, self.error)

    @property
    def rejected(self) -> bool:
        """Whether OpenAI refused the key at the last poll."""
        return rejected(self.error)


def as_bug(source: str, error: Exception) -> Bug:
    """An unexpected exception as an error of its source, with the exception as its cause."""
    bug = Bug(
        f"{source}: this should not happen, so it is a bug of otel-openai-usage:"
        f" {type(error).__name__}: {error}; report it with the trace in the log"
    )
    bug.__cause__ = error
    return bug
