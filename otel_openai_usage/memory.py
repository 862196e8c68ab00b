"""How the process holds memory: what glibc keeps for later, and what Python's collector looks
through.

A hundred thousand series are some 600,000 objects that live long and make no cycles. Looking
through all of them takes the collector 0.3 s, during which nothing else runs; bodies of tens of
megabytes that come and go leave holes in the heap.
"""

import ctypes
import gc
import sys

# malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_LARGE = 320 * 1024  # the pieces in which aiohttp reads a body stay below it


def tune_allocator() -> None:
    """Let large blocks go back to the system when they are freed, and let the collector come
    seldom. Once, at the start.
    """
    gc.set_threshold(10_000, 5, 100)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none, and needs none
        if mallopt:
            # Without this glibc raises the bound to the largest block that was ever freed, and
            # takes all others from the heap.
            mallopt(_M_MMAP_THRESHOLD, _LARGE)
            mallopt(_M_TRIM_THRESHOLD, _LARGE)
            mallopt(_M_ARENA_MAX, 2)


class Shelf:
    """Puts what lives long out of the collector's sight, each time that it has grown by a quarter."""

    def __init__(self) -> None:
        self._size = 0

    def grew(self, size: int) -> None:
        """So many objects live now."""
        if size > self._size * 5 // 4:
            gc.freeze()
            self._size = size
