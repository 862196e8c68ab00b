"""How many bytes of answers are in memory at a time, all organizations together.

A body holds its share of the budget for as long as it lives, buckets that are views into it
included: it gives it back when it is freed.
"""

import asyncio
import contextlib
import threading
import weakref

from otel_openai_usage.errors import TooLarge, Unavailable

DEFAULT = 128 * 2**20
WAIT = 10.0
"""Seconds that an answer waits for others to be freed."""
OBJECT_BYTES = 512
"""What one JSON object (a row, a bucket) takes beside its text while it is decoded and booked, as
measured.
"""
SMALL = 2**20
"""Bytes that an answer may always have, whatever others hold: there are only a few at a time, and an
organization with small answers must not wait for one with huge ones.
"""
_PAUSE = 0.05


class HeldBody(bytearray):
    """The bytes of an answer, and their share of a budget."""

    budget: "Budget | None" = None
    held = 0
    given_up = False

    def __del__(self) -> None:
        if self.budget is not None:
            self.budget.release(self)


class Budget:
    """Lets bodies grow while they fit, all together, into `limit` bytes.

    Where they do not, the largest body that is still being read is given up, so that a huge answer
    of one organization does not stop the others. Bodies are read in one event loop; they may be
    freed in any thread.
    """

    def __init__(self, limit: int = DEFAULT) -> None:
        self.limit = limit
        self._used = 0
        # Re-entrant: the garbage collector may free a body while this thread holds the lock.
        self._lock = threading.RLock()
        self._growing: dict[int, weakref.ref[HeldBody]] = {}

    @property
    def used(self) -> int:
        """Bytes that are held now."""
        return self._used

    def body(self) -> HeldBody:
        """An empty body."""
        body = HeldBody()
        body.budget = self
        self._growing[id(body)] = weakref.ref(body)
        return body

    async def extend(self, body: HeldBody, piece: bytes, call: str) -> None:
        """Append to a body. Raises TooLarge, or Unavailable where others leave no room."""
        await self.reserve(body, len(piece), call)
        body += piece

    async def finish(self, body: HeldBody, call: str) -> None:
        """The body is complete: hold what its objects take, too. Raises as `extend`."""
        await self.reserve(body, body.count(b"{") * OBJECT_BYTES, call)
        self._growing.pop(id(body), None)

    async def reserve(self, body: HeldBody, size: int, call: str) -> None:
        """Hold more bytes for a body. Raises as `extend`."""
        if body.held + size > self.limit:
            self._give_up(body)
            raise TooLarge(
                f"{call}: the answer needs more than api.max_bytes ({self.limit // 2**20} MiB);"
                " group by fewer dimensions, or raise it"
            )
        waited = 0.0
        while not self._take(body, size):
            if self._make_room():
                continue
            if waited >= WAIT:
                self._give_up(body)
                break
            await asyncio.sleep(_PAUSE)
            waited += _PAUSE
        if body.given_up:
            raise Unavailable(
                f"{call}: other answers use up api.max_bytes ({self.limit // 2**20} MiB), so this one"
                " was given up; it is asked again"
            )

    def drop(self, body: HeldBody) -> None:
        """A body is of no use any more: free its memory, whoever still refers to it."""
        with contextlib.suppress(BufferError):  # somebody looks at it still
            body.clear()
        self.release(body)

    def release(self, body: HeldBody) -> None:
        """Give back all that a body holds."""
        with self._lock:
            self._used -= body.held
            body.held = 0
            self._growing.pop(id(body), None)

    def _take(self, body: HeldBody, size: int) -> bool:
        """Hold more for a body if it fits. True also where the body was given up meanwhile."""
        with self._lock:
            if body.given_up:
                return True
            is_small = body.held + size <= min(SMALL, self.limit // 16)
            if self._used + size > self.limit and not is_small:
                return False
            self._used += size
            body.held += size
            return True

    def _make_room(self) -> bool:
        """Give up the largest body that is still being read, if such bodies have most of the budget;
        complete ones are freed soon by themselves. True if room was made.
        """
        with self._lock:
            growing = [body for known in self._growing.values() if (body := known()) is not None]
            if sum(body.held for body in growing) <= self.limit // 2:
                return False
            self._give_up(max(growing, key=lambda body: body.held))
            return True

    def _give_up(self, body: HeldBody) -> None:
        body.given_up = True
        body.clear()
        self.release(body)
