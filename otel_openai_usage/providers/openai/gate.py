"""One rate limit and one concurrency bound for all that asks one organization, the important first."""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

MINUTE = 60.0
SLOW_AFTER = 5.0
"""Seconds after which a request that is still inside does not count any more."""
LONGEST_WAIT = 10.0
"""Seconds after which a waiter goes before all others, as far as the limits let it."""
_TICK = 1e-6


class Gate:
    """Lets at most `requests_per_minute` through in any 60 s, and `max_concurrency` be inside at
    once.

    Waiters go by priority (0 first), then in the order they came; who has waited for 10 s goes before
    all others, so that endless slow answers for usage do not keep names out for good. Priority 1 may fill only seven
    eighths of a minute and those above it two thirds, so that a long list never makes usage, or a
    name in use, wait for the minute to pass. Priorities above 0 may take half of the places, so
    that slow lists do not take them all. A request that is
    inside for 5 s gives its place to the next one: a slow answer keeps nobody else waiting. Time is
    the running loop's.
    """

    def __init__(self, *, requests_per_minute: int, max_concurrency: int) -> None:
        self._limit = requests_per_minute
        self._free = max_concurrency
        self._free_for_lists = max(1, max_concurrency // 2)
        self._passed: deque[float] = deque()
        self._waiting: list[_Waiter] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def slot(self, priority: int = 0) -> AsyncIterator[None]:
        """Be inside for one request. A cancelled waiter gives up its place."""
        await self._enter(priority)
        place = _Place(self)
        slow = asyncio.get_running_loop().call_later(SLOW_AFTER, place.leave)
        try:
            yield
        finally:
            slow.cancel()
            if priority > 0:
                self._free_for_lists += 1
            place.leave()
            self._admit()

    async def _enter(self, priority: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        now = asyncio.get_running_loop().time()
        heapq.heappush(self._waiting, _Waiter(priority, next(self._order), turn, now))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # let in and cancelled in the same moment
                if priority > 0:
                    self._free_for_lists += 1
                self.leave()
            raise

    def leave(self) -> None:
        """Somebody inside does not count any more."""
        self._free += 1
        self._admit()

    def _admit(self) -> None:
        now = asyncio.get_running_loop().time()
        # A timer may fire a clock tick early; without the tolerance it would be set again and
        # again.
        while self._passed and self._passed[0] + MINUTE <= now + _TICK:
            self._passed.popleft()
        while self._waiting and self._free:
            if self._waiting[0].turn.done():  # cancelled while waiting
                heapq.heappop(self._waiting)
                continue
            overdue = self._overdue(now)
            if overdue is not None:
                self._waiting.remove(overdue)
                heapq.heapify(self._waiting)
                self._let_in(overdue, now)
                continue
            priority = self._waiting[0].priority
            if priority > 0 and not self._free_for_lists:
                return  # all that wait have this priority or a lower one
            if (over := len(self._passed) - self._share(priority)) >= 0:
                self._admit_at(self._passed[over] + MINUTE)
                return
            self._let_in(heapq.heappop(self._waiting), now)

    def _overdue(self, now: float) -> "_Waiter | None":
        """Return whoever has waited longest, and too long, of those who may pass now."""
        overdue = [
            waiter
            for waiter in self._waiting
            if waiter.since + LONGEST_WAIT <= now and self._may_pass(waiter)
        ]
        return min(overdue, key=lambda waiter: waiter.order, default=None)

    def _may_pass(self, waiter: "_Waiter") -> bool:
        if waiter.turn.done() or len(self._passed) >= self._share(waiter.priority):
            return False
        return waiter.priority == 0 or self._free_for_lists > 0

    def _let_in(self, waiter: "_Waiter", now: float) -> None:
        self._passed.append(now)
        self._free -= 1
        if waiter.priority > 0:
            self._free_for_lists -= 1
        waiter.turn.set_result(None)

    def _share(self, priority: int) -> int:
        """How many requests of a minute may have passed when one of this priority does."""
        kept_free = {0: 0, 1: self._limit // 8}.get(priority, self._limit // 3)
        return self._limit - kept_free

    def _admit_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._admit)


class _Waiter(NamedTuple):
    """A request that waits. Sorts by priority, then by order."""

    priority: int
    order: int
    turn: asyncio.Future[None]
    since: float
    """When it came, in the running loop's time."""


class _Place:
    """The place of one request, which is left once: when the request ends, or when it is slow."""

    def __init__(self, gate: Gate) -> None:
        self._gate: Gate | None = gate

    def leave(self) -> None:
        """Let somebody else have it."""
        if self._gate is not None:
            gate = self._gate
            self._gate = None
            gate.leave()
