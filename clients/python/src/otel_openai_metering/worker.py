"""The thread behind a Meter: responses become events, events become batches, batches are sent,
tried again, or spooled.
"""

import contextlib
import json
import logging
import math
import re
import time
from _thread import LockType, allocate_lock
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from typing import Any

from otel_openai_metering.estimate import Estimator, by_characters
from otel_openai_metering.refusals import Refusals
from otel_openai_metering.sender import Event, Outcome, Sender
from otel_openai_metering.spool import Spool
from otel_openai_metering.streams import Seen
from otel_openai_metering.usage import (
    Context,
    NoUsage,
    StillRunning,
    cut,
    envelope,
    event,
    is_reserved,
)

log = logging.getLogger(__name__)

_sleep = time.sleep  # the one of the import, as are queue and lock: see Meter

BATCH = 100
LINGER = 1.0
"""A batch goes when it has so many events, or is so many seconds old."""
FIRST_WAIT = 0.5
LONGEST_WAIT = 60.0
"""Seconds between two tries."""
PATIENCE = 8.0
"""When tries are so many seconds apart, also a few events go to the disk."""
LOOK = 30.0
"""Seconds between two looks for what other processes left."""
HELD = 2_000
"""Events that wait in memory for a server that does not answer, where there is no spool."""
MAX_WARNINGS = 100
"""Names of attributes that are complained of."""


@dataclass(frozen=True, slots=True)
class Job:
    """A response, or what was seen of a stream, and what was handed in with it."""

    thing: Any
    context: Context
    prompt: object = None


@dataclass(frozen=True, slots=True)
class Written:
    """An event that is in the journal already. `job` is there if the thread knows it more exactly."""

    event: Event
    job: Job | None = None


@dataclass(slots=True)
class Flush:
    """Somebody waits until everything is out of memory, but not beyond `until` (on the monotonic
    clock).
    """

    until: float
    is_last: bool = False
    is_done: bool = False


@dataclass(slots=True)
class Worker:
    """Runs until it finds None in the queue."""

    queue: "SimpleQueue[Job | Written | Flush | None]"
    sender: Sender
    spool: Spool | None
    sent: int = 0
    spooled: int = 0
    dropped: int = 0
    is_over: bool = False
    _events: list[Event] = field(default_factory=list)
    _hand: Job | Written | None = None
    _lock: LockType = field(default_factory=allocate_lock)
    _estimator: Estimator = field(default_factory=Estimator)
    _rough: Estimator = field(default_factory=lambda: Estimator(lambda _: by_characters))
    _written: int = 0
    _oldest: float = 0.0
    _wait: float = FIRST_WAIT
    _not_before: float = 0.0
    _spool_due: bool = True
    _next_look: float = 0.0
    _failure: str = ""
    _refusals: Refusals = field(default_factory=Refusals)
    _left_out: set[str] = field(default_factory=set)

    @property
    def waiting(self) -> int:
        """Events that are in memory."""
        return len(self._events) + (self._hand is not None)

    def run(self) -> None:
        """Work."""
        while not self.is_over:
            try:
                self._step()
            except Exception:
                log.exception("the metering thread goes on after an error")
                _sleep(FIRST_WAIT)

    def _step(self) -> None:
        try:
            job = self.queue.get(timeout=self._pause())
        except Empty:
            self._go()
            return
        if job is None:
            self.abandon()
            self._refusals.report(is_last=True)
            self.is_over = True
        elif isinstance(job, Flush):
            self._flush(job)
        else:
            self._take(job)
            if len(self._events) >= BATCH:
                self._go()

    def _pause(self) -> float | None:
        if not self._events and not self._spool_due:
            line = self._refusals.next_line()
            if line is not None:
                return min(LOOK, max(0.0, line - time.monotonic()))
            return LOOK if self.spool else None
        due = self._oldest + LINGER if self._events else 0.0
        return max(0.0, max(due, self._not_before) - time.monotonic())

    def put_down(self, job: Job) -> None:
        """Write a job's event down in the caller's thread, then queue it: this process may be
        killed at any time. A vocabulary is not waited for here.
        """
        found = self._read(job, self._rough)
        if not isinstance(found, dict):
            if not isinstance(found, StillRunning):
                self.dropped += 1
            return
        is_rough = isinstance(job.thing, Seen) and found["data"].get("estimated") is True  # type: ignore[attr-defined]
        with self._lock:
            if self.spool:
                self.spool.journal.add(found)
            self._written += 1
            self.queue.put(Written(found, job if is_rough else None))

    def _take(self, job: Job | Written) -> None:
        self._hand = job
        found = self._read(job)
        with self._lock:
            if self._hand is not job:  # `abandon` has read it meanwhile
                return
            self._hand = None
            self._keep(found, self._events)
            if isinstance(job, Written):
                self._written -= 1
            elif self.spool and isinstance(found, dict):
                self.spool.journal.add(found)

    def _keep(self, found: Event | NoUsage | None, events: list[Event]) -> None:
        """Put an event to others. One that could not be made is lost, and counted as such; what
        still runs will be recorded again.
        """
        if isinstance(found, dict):
            if not events:
                self._oldest = time.monotonic()
            events.append(found)
        elif not isinstance(found, StillRunning):
            self.dropped += 1

    def _read(
        self, job: Job | Written, estimator: Estimator | None = None
    ) -> Event | NoUsage | None:
        """The event of a job, or why there is none."""
        if isinstance(job, Written):
            if job.job is None:
                return job.event
            found = self._read(job.job)
            return {**found, "id": job.event["id"]} if isinstance(found, dict) else job.event
        try:
            return _plain(self._event(job, estimator or self._estimator))
        except StillRunning as error:
            log.debug("a response is not metered yet: %s", error)
            return error
        except NoUsage as error:
            log.warning("a response is not metered: %s", error)
            return error
        except Exception:
            log.exception("a response cannot be metered")
            return None

    def _event(self, job: Job, estimator: Estimator) -> Event:
        context = replace(job.context, attributes=self._attributes(job.context))
        if isinstance(job.thing, Seen):
            return self._seen(job.thing, context, job.prompt, estimator)
        return event(job.thing, context)

    def _attributes(self, context: Context) -> dict[str, object]:
        """The attributes that can be sent: JSON has their values, and no server reads their names
        as usage. What was used counts without the others.
        """
        found: dict[str, object] = {}
        for name, value in (context.attributes or {}).items():
            if is_reserved(name, value):
                self._warn(name, "servers read it as usage; give it another name")
                continue
            try:
                plain = json.loads(json.dumps(value, default=str, allow_nan=False))
                found[name] = _short(plain)
            except Exception as error:  # noqa: BLE001 - a value may do anything when it becomes text
                self._warn(name, f"JSON cannot have its value: {type(error).__name__}")
        return found

    def _warn(self, name: str, why: str) -> None:
        """Say once for each name that an attribute is left out."""
        if name not in self._left_out and len(self._left_out) < MAX_WARNINGS:
            self._left_out.add(name)
            log.warning("the attribute %s is not sent: %s", name, why)

    def _seen(self, seen: Seen, context: Context, prompt: object, estimator: Estimator) -> Event:
        if seen.is_empty:
            raise NoUsage("the stream ended before it said anything of a response")
        text = seen.text
        if seen.is_exact or (seen.counts and not text and prompt is None):
            return envelope(seen.identity, seen.counts, context)
        model = seen.identity.model or context.model
        input_tokens = seen.input_tokens()
        if not input_tokens and prompt is not None:
            input_tokens = _prompt_tokens(prompt, model, estimator)
        output_tokens = estimator.count(text, model)
        counts: dict[str, object] = {
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
            "estimated": True,
        }
        for name in ("cached_tokens", "reasoning_tokens"):
            if seen.counts.get(name):
                counts[name] = seen.counts[name]
        return envelope(seen.identity, counts, context)

    def abandon(self) -> None:
        """Put on the disk what is in memory: at the end, or from another thread while this one
        waits for a server or a vocabulary.

        What it is sending may arrive all the same; then it is counted once.
        """
        self._estimator = Estimator(
            lambda _: by_characters
        )  # a vocabulary may be waited for just as long
        job: Job | Written | Flush | None
        with self._lock:
            events = self._events
            self._events = []
            job = self._hand
            self._hand = None
        with contextlib.suppress(Empty):
            while True:
                if isinstance(job, Job | Written):
                    self._keep(self._read(job), events)
                job = self.queue.get_nowait()
        if self.spool and events:
            self.dropped += self.spool.put(events)
            self.spooled += len(events)
        else:
            self.dropped += len(events)
        if self.spool:
            with self._lock:
                self.spool.journal.remove()

    def _go(self) -> None:
        """Send what is due: what waits in memory, then what was spooled."""
        self._look()
        if time.monotonic() < self._not_before:
            self._hold(at_once=False)
        elif self._empty(at_once=False):
            self._send_spool()
        self._refusals.report()

    def _look(self) -> None:
        """Look now and then for what other processes left in the spool when they ended."""
        if self.spool and time.monotonic() >= self._next_look:
            self.spool.journal.take_over(self.spool.put)
            self._spool_due = True
            self._next_look = time.monotonic() + LOOK

    def _clear_journal(self) -> None:
        """Nothing of the journal is needed any more, if nothing waits in memory."""
        with self._lock:
            if self.spool and not self._events and not self._written:
                self.spool.journal.clear()

    def _empty(self, *, at_once: bool) -> bool:
        while self._events:
            batch = self._events[:BATCH]
            if not self._deliver(batch):
                self._hold(at_once=at_once)
                return False
            del self._events[: len(batch)]
        self._clear_journal()
        return True

    def _send_spool(self, until: float = math.inf) -> None:
        while self.spool and self._spool_due:
            if not self.queue.empty() or time.monotonic() > until:
                return
            kept = self.spool.take()
            if kept is None:
                break
            if not self._deliver(kept[1]):
                return
            self.spool.drop(kept[0])
            if not self._refusals.may_ask():
                break  # what was put back comes first for nobody: the next look tries it again
        self._spool_due = False

    def _deliver(self, batch: Sequence[Event]) -> bool:
        """True if the batch is done with: sent, dropped where it was refused, or put aside."""
        outcome = self.sender.send(batch)
        if outcome.what == "later":
            if outcome.why != self._failure:
                log.warning("events cannot be sent now; they are kept: %s", outcome.why)
                self._failure = outcome.why
            self._not_before = time.monotonic() + max(
                self._wait, min(outcome.wait or 0.0, LONGEST_WAIT)
            )
            self._wait = min(self._wait * 2, LONGEST_WAIT)
            return False
        self._wait = FIRST_WAIT
        self._failure = ""
        if outcome.what == "sent":
            self.sent += len(batch)
            self._refusals.accepted()
            return True
        return self._split(batch, outcome)

    def _split(self, batch: Sequence[Event], refusal: Outcome) -> bool:
        """Find what is refused, and send the rest. True as `_deliver` says it.

        A server that refuses everything would cost two requests an event, so that what is beyond
        the allowance waits in the spool for the next one; without a spool it is dropped.
        """
        may_ask = self._refusals.may_ask()
        self._refusals.asked()
        if len(batch) == 1:
            self._drop(batch, refusal)
            return True
        if not may_ask:
            self._put_aside(batch, refusal)
            return True
        index = refusal.index
        if index is not None and 0 <= index < len(batch):
            self._drop([batch[index]], refusal)
            before = batch[:index]  # the server checks in order: these are good
            after = batch[index + 1 :]
            return (not before or self._deliver(before)) and (not after or self._deliver(after))
        middle = len(batch) // 2
        return self._deliver(batch[:middle]) and self._deliver(
            batch[middle:]
        )  # what is sent twice is counted once

    def _drop(self, events: Sequence[Event], refusal: Outcome) -> None:
        self.dropped += len(events)
        self._refusals.add(refusal.kind, refusal.why, len(events))

    def _put_aside(self, batch: Sequence[Event], refusal: Outcome) -> None:
        if self.spool:
            self.dropped += self.spool.put(batch)
            self.spooled += len(batch)
        else:
            self._drop(batch, refusal)

    def _hold(self, *, at_once: bool) -> None:
        """The server does not take events now: put them on the disk (a few may wait a while), or
        keep some of them.
        """
        if (
            self.spool
            and self._events
            and (at_once or len(self._events) >= BATCH or self._wait > PATIENCE)
        ):
            lost = self.spool.put(self._events)
            self.spooled += len(self._events)
            self.dropped += lost
            self._events = []
            self._clear_journal()
            self._spool_due = True
        elif len(self._events) > HELD:
            self.dropped += len(self._events) - HELD
            del self._events[:-HELD]

    def _flush(self, flush: Flush) -> None:
        while not self._empty(at_once=True) and self._events and time.monotonic() < flush.until:
            _sleep(max(0.0, min(self._not_before, flush.until) - time.monotonic()))
        if flush.is_last and self.spool and self.spool.journal.take_over(self.spool.put):
            # children that were killed, as by Pool.terminate(): nobody else may ever look
            self._spool_due = True
            self._send_spool(flush.until)
        self._refusals.report(is_last=flush.is_last)
        flush.is_done = True


def _prompt_tokens(prompt: object, model: str | None, estimator: Estimator) -> int:
    """What a prompt has, about; 0 if it cannot be read: the output counts all the same."""
    try:
        return estimator.prompt(prompt, model)
    except Exception:
        log.exception("the tokens of a prompt cannot be estimated")
        return 0


def _short(value: Any) -> Any:
    """A value of JSON, its texts cut as the exporter cuts them."""
    if isinstance(value, str):
        return cut(value)
    if isinstance(value, dict):
        return {name: _short(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_short(inner) for inner in value]
    return value


_SURROGATES = re.compile("[\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff]")


def _plain(found: Event) -> Event:
    """The event as JSON has it. Halves of UTF-16 pairs, which no server takes, are joined or
    replaced.
    """
    text = json.dumps(found, default=str, allow_nan=False, ensure_ascii=False)
    plain: Event = json.loads(_SURROGATES.sub(_whole, text))
    return plain


def _whole(found: re.Match[str]) -> str:
    halves = found[0]
    if len(halves) == 1:
        return "\ufffd"
    return chr(0x10000 + ((ord(halves[0]) - 0xD800) << 10) + (ord(halves[1]) - 0xDC00))
