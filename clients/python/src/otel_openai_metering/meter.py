"""The Meter: takes responses in, and sends what they used from a thread of its own."""

import asyncio
import logging
import os
import time
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

from otel_openai_metering import hooks
from otel_openai_metering.address import folder
from otel_openai_metering.sender import Sender
from otel_openai_metering.spool import Spool
from otel_openai_metering.streams import MeteredStream, Seen
from otel_openai_metering.usage import Context
from otel_openai_metering.worker import Flush, Job, Worker, Written

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of events so far. `dropped` were lost: refused, unreadable, or more than queue
    and spool hold.
    """

    sent: int = 0
    spooled: int = 0
    dropped: int = 0
    waiting: int = 0


NOT_GIVEN: Any = object()
"""Stands for an argument that was not given."""


class Meter:
    """Reports usage by customer. Every method returns at once and raises nothing; only `flush` and
    `close` wait. The constructor raises ValueError for a `url`, `token` or `spool` that cannot be
    used.

    `url` is that of the server (default OPENMETER_URL, else http://localhost:8888), `token` its
    Bearer token (default OPENMETER_TOKEN). A user and password in the `url` are sent as basic
    authentication; they are in no log. `source` names the application: with the response's id
    it is the event's identity, so all replicas of one application use the same. `spool` is a folder
    for what cannot be sent (default: in the user's state directory; False: none), of at most
    `spool_limit` bytes; `queue` is how many responses may wait in memory.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        source: str = "openai-app",
        token: str | None = None,
        type: str = "openai",  # noqa: A002 - the CloudEvents attribute is called so
        spool: Path | str | bool = True,
        spool_limit: int = 64 * 2**20,
        queue: int = 10_000,
        env: Mapping[str, str] | None = None,
    ) -> None:
        env = os.environ if env is None else env
        self._sender = Sender(
            url or env.get("OPENMETER_URL") or "http://localhost:8888",
            token or env.get("OPENMETER_TOKEN"),
        )
        place = _folder(env) if spool is True else spool
        self._spool = Spool(folder(place), spool_limit) if place else None
        self._source = source
        self._type = type
        self._limit = queue
        self._begin()
        hooks.register(self)
        if self._spool is not None and self._spool.is_waiting():
            self._run()

    def _begin(self) -> None:
        # Queue, lock and thread are those of the import. If gevent replaces them later, ours stay
        # together; a real thread that waits with a greenlet's lock would hang.
        self._queue: SimpleQueue[Job | Written | Flush | None] = SimpleQueue()
        self._worker = Worker(self._queue, self._sender, self._spool)
        self._lock = allocate_lock()
        self._is_running = False
        self._closed = False

    def restart(self) -> None:
        """Begin anew in a forked process: it has no thread of ours, and its parent sends what
        waited. Called after every fork of Python's.
        """
        if self._spool is not None:
            self._spool.journal.leave()
        self._begin()

    def record(
        self,
        response: Any = NOT_GIVEN,
        /,
        subject: object = None,
        *,
        model: str | None = None,
        **attributes: object,
    ) -> None:
        """Report what a response used, for `subject` (text, or what becomes text: a number, a
        UUID). `model` is for responses that do not say (images, transcriptions).

        `attributes` go into the event's data, where `events.attributes` of the exporter finds them;
        those whose names mean usage (`tokens`, `usage`, `estimated`, …) are left out.
        """
        if response is NOT_GIVEN:
            # Until 0.1 the response could be given by name; that must not fail in the caller.
            response = attributes.pop("response", None)
        self._put(Job(response, self._context(subject, model, attributes)))

    def stream(
        self,
        stream: Any = NOT_GIVEN,
        /,
        subject: object = None,
        *,
        prompt: object = None,
        model: str | None = None,
        **attributes: object,
    ) -> Any:
        """The same stream, sync or async, that reports what it used when it ends.

        Usage comes from the stream itself (for chat completions ask for it:
        `stream_options={"include_usage": True}`). Where it carries none, or is cut off, tokens are
        counted from what was seen and from `prompt` (the messages or input that were sent), and the
        event says `estimated`.
        """
        if stream is NOT_GIVEN:
            stream = attributes.pop("stream", None)

        def ended(seen: Seen) -> None:
            self._put(Job(seen, self._context(subject, model, attributes), prompt))

        return MeteredStream(stream, ended)

    def _context(
        self, subject: object, model: str | None, attributes: Mapping[str, object]
    ) -> Context:
        return Context(subject, self._source, self._type, time.time(), model, attributes)

    def _put(self, job: Job) -> None:
        try:
            if self._closed or self._queue.qsize() >= self._limit:
                self._worker.dropped += 1
                return
            is_killable = hooks.is_killable
            if is_killable is None:
                is_killable = hooks.find_killable()
            if is_killable and self._spool is not None:
                self._worker.put_down(job)
            else:
                self._queue.put(job)
            if not self._is_running:
                self._run()
        except Exception:
            log.exception("metering")

    def _run(self) -> None:
        with self._lock:
            if not self._is_running:
                try:
                    start_new_thread(self._worker.run, ())
                except RuntimeError as error:  # the interpreter ends, or there are too many
                    log.info("no thread can be started: %s", error)
                    return
                self._is_running = True

    @property
    def counts(self) -> Counts:
        """What became of events so far."""
        worker = self._worker
        queued = max(
            0, self._queue.qsize() - self._closed
        )  # `close` puts something into it that is no response
        return Counts(worker.sent, worker.spooled, worker.dropped, queued + worker.waiting)

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until everything was sent, or was spooled because it cannot be. False if that took
        longer.
        """
        return self._flush(timeout, is_last=False)

    def _flush(self, timeout: float, *, is_last: bool) -> bool:
        if not self._is_running:
            return self._queue.empty()
        flush = Flush(time.monotonic() + timeout, is_last)
        self._queue.put(flush)
        return _wait(lambda: flush.is_done, timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Flush, keep on the disk what could not be sent in that time, and take nothing any more.

        Called at the exit of the interpreter, of children of multiprocessing, and of celery's
        workers. Where a process ends with os._exit() by itself, call it before.
        """
        if self._closed:
            return
        self._closed = True
        hooks.forget(self)
        if self._spool is not None and self._spool.journal.has_others():
            self._run()  # also if nothing was recorded here: it may be of children of ours
        done = self._flush(timeout, is_last=True)
        if not done:
            self._worker.abandon()
        self._queue.put(None)
        if done and self._is_running:
            _wait(lambda: self._worker.is_over, 1.0)

    async def aflush(self, timeout: float = 5.0) -> bool:  # noqa: ASYNC109 - as `flush` has it
        """As `flush`; the event loop goes on."""
        return await asyncio.to_thread(self.flush, timeout)

    async def aclose(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109
        """As `close`; the event loop goes on."""
        await asyncio.to_thread(self.close, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


def _wait(is_done: Callable[[], bool], timeout: float) -> bool:
    """Wait for something that another thread does, without a lock: in a greenlet `time.sleep` is
    gevent's, and lets others work.
    """
    ends = time.monotonic() + timeout
    pause = 0.001
    while not is_done():
        left = ends - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(pause, left))
        pause = min(pause * 2, 0.05)
    return True


def _folder(env: Mapping[str, str]) -> Path | None:
    home = env.get("XDG_STATE_HOME") or (f"{env['HOME']}/.local/state" if env.get("HOME") else None)
    return Path(home) / "otel-openai-usage" / "spool" if home else None
