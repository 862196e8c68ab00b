"""Bounds the bytes of answers that are in memory at a time, of all organizations together.

An answer has a share of the budget. The share is given back when the answer's body and the reading
that was decoded from it are freed.
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
"""Memory that one JSON object (a row, a bucket) takes beside its text until it is recorded, as
measured.
"""
SMALL = 2**20
"""Bytes that an answer may always use, however full the budget is: few answers arrive at a time, and
an organization with small answers must not wait for one with huge ones.
"""
_PAUSE = 0.05


class Share:
    """The bytes that one answer uses of a budget, until this object is freed."""

    def __init__(self, budget: "Budget") -> None:
        self.bytes = 0
        self._budget = budget

    def __del__(self) -> None:
        self._budget.release(self)


class CountedBody(bytearray):
    """The bytes of an answer, and their share of a budget."""

    share: Share
    given_up = False


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
        # By id, because a bytearray has no hash.
        self._growing: weakref.WeakValueDictionary[int, CountedBody] = weakref.WeakValueDictionary()

    @property
    def used(self) -> int:
        """Bytes that are in use now."""
        return self._used

    def body(self) -> CountedBody:
        """An empty body."""
        body = CountedBody()
        body.share = Share(self)
        self._growing[id(body)] = body
        return body

    async def extend(self, body: CountedBody, piece: bytes, call: str) -> None:
        """Append to a body. Raises TooLarge, or Unavailable if other answers use the budget."""
        await self.reserve(body, len(piece), call)
        body += piece

    async def finish(self, body: CountedBody, call: str) -> None:
        """The body is complete: count the memory of its objects, too. Raises as `extend`."""
        await self.reserve(body, body.count(b"{") * OBJECT_BYTES, call)
        self._growing.pop(id(body), None)

    async def reserve(self, body: CountedBody, size: int, call: str) -> None:
        """Count more bytes for a body. Raises as `extend`."""
        if body.share.bytes + size > self.limit:
            self._give_up(body)
            raise TooLarge(
                f"{call}: the answer needs more than api.max_bytes ({self.limit // 2**20} MiB);"
                " group by fewer dimensions, or raise it"
            )
        waited = 0.0
        while not self._take(body, size):
            if self._give_up_largest():
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

    def drop(self, body: CountedBody) -> None:
        """Free the memory of a body that is of no more use, though variables may still refer to it."""
        # A BufferError means that a memoryview of it exists.
        with contextlib.suppress(BufferError):
            body.clear()
        self._growing.pop(id(body), None)
        self.release(body.share)

    def release(self, share: Share) -> None:
        """Give back all bytes of a share."""
        with self._lock:
            self._used -= share.bytes
            share.bytes = 0

    def _take(self, body: CountedBody, size: int) -> bool:
        """Count more bytes for a body if they fit. True also if the body was given up meanwhile."""
        with self._lock:
            if body.given_up:
                return True
            is_small = body.share.bytes + size <= min(SMALL, self.limit // 16)
            if self._used + size > self.limit and not is_small:
                return False
            self._used += size
            body.share.bytes += size
            return True

    def _give_up_largest(self) -> bool:
        """Give up the largest body that is still being read, if such bodies use most of the budget.

        Complete bodies are recorded and freed soon. Returns whether a body was given up.
        """
        with self._lock:
            growing = list(self._growing.values())
            if sum(body.share.bytes for body in growing) <= self.limit // 2:
                return False
            self._give_up(max(growing, key=lambda body: body.share.bytes))
            return True

    def _give_up(self, body: CountedBody) -> None:
        body.given_up = True
        body.clear()
        self._growing.pop(id(body), None)
        self.release(body.share)
