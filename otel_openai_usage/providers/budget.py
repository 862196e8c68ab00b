"""How many bytes of answers are in memory at a time, all organizations together.

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
"""What one JSON object (a row, a bucket) takes beside its text while it is decoded and booked, as
measured.
"""
SMALL = 2**20
"""Bytes that an answer may always have, whatever others hold: there are only a few at a time, and an
organization with small answers must not wait for one with huge ones.
"""
_PAUSE = 0.05


class Share:
    """The bytes that one answer holds of a budget, until this object is freed."""

    def __init__(self, budget: "Budget") -> None:
        self.bytes = 0
        self._budget = budget

    def __del__(self) -> None:
        self._budget.release(self)


class HeldBody(bytearray):
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
        self._growing: weakref.WeakValueDictionary[int, HeldBody] = weakref.WeakValueDictionary()

    @property
    def used(self) -> int:
        """Bytes that are held now."""
        return self._used

    def body(self) -> HeldBody:
        """An empty body."""
        body = HeldBody()
        body.share = Share(self)
        self._growing[id(body)] = body
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
        if body.share.bytes + size > self.limit:
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
        self._growing.pop(id(body), None)
        self.release(body.share)

    def release(self, share: Share) -> None:
        """Give back all that a share holds."""
        with self._lock:
            self._used -= share.bytes
            share.bytes = 0

    def _take(self, body: HeldBody, size: int) -> bool:
        """Hold more for a body if it fits. True also where the body was given up meanwhile."""
        with self._lock:
            if body.given_up:
                return True
            is_small = body.share.bytes + size <= min(SMALL, self.limit // 16)
            if self._used + size > self.limit and not is_small:
                return False
            self._used += size
            body.share.bytes += size
            return True

    def _make_room(self) -> bool:
        """Give up the largest body that is still being read, if such bodies have most of the budget;
        complete ones are freed soon by themselves. True if room was made.
        """
        with self._lock:
            growing = list(self._growing.values())
            if sum(body.share.bytes for body in growing) <= self.limit // 2:
                return False
            self._give_up(max(growing, key=lambda body: body.share.bytes))
            return True

    def _give_up(self, body: HeldBody) -> None:
        body.given_up = True
        body.clear()
        self._growing.pop(id(body), None)
        self.release(body.share)
