"""How many series an instrument may have, and which stored series share the overflow series."""

from collections.abc import Iterable

from otel_openai_usage.domain.series_marks import OverflowMember

RETRY_AFTER = 3600
"""Seconds before a full instrument is searched for silent series again."""
_BATCH = 100
"""A full instrument removes 1/100 of its silent series at a time.

The search for the longest silent series sorts all of them, too much work for each new series.
"""


class Capacity:
    """Decides for each instrument whether a stored series gets series of its own.

    A stored series without capacity joins the overflow series for good: an `OverflowMember`, which
    the store remembers. A stored series that made room for others has its place reserved. It gets
    its series back also beyond `max_series`, because its total would be a jump in the overflow
    series.
    """

    def __init__(self, max_series: int, members: Iterable[OverflowMember]) -> None:
        self._max_series = max_series
        self._members: dict[str, set[int]] = {}
        self.remember(members)
        self._new_members: list[OverflowMember] = []
        self._reserved_everywhere: frozenset[int] = frozenset()
        self._reserved: dict[str, set[int]] = {}
        self._full_until: dict[str, float] = {}

    def remember(self, members: Iterable[OverflowMember]) -> None:
        """Let the overflow series have these members, too."""
        for member in members:
            self._members.setdefault(member.instrument, set()).add(member.stored_series)

    def reset(self, silent: frozenset[int]) -> None:
        """Begin with an empty index. `silent` series, by id, have a place in every instrument."""
        self._reserved_everywhere = silent
        self._reserved = {}
        self._full_until = {}

    def is_overflow_member(self, instrument: str, stored_series: int) -> bool:
        """Return whether the stored series is in the overflow series of an instrument."""
        return stored_series in self._members.get(instrument, ())

    def add_overflow_member(self, instrument: str, stored_series: int) -> None:
        """Let the stored series share the overflow series."""
        self._members.setdefault(instrument, set()).add(stored_series)
        self._new_members.append(OverflowMember(instrument, stored_series))

    def take_new_members(self) -> list[OverflowMember]:
        """Return the overflow members since the last call. The store must remember them."""
        new = self._new_members
        self._new_members = []
        return new

    def overflow_count(self, instrument: str) -> int:
        """Return how many stored series share the overflow series."""
        return len(self._members.get(instrument, ()))

    def excess(self, series: int) -> int:
        """Return by how many an instrument with so many series is above `max_series`."""
        return series - self._max_series

    def has_place(self, instrument: str, stored_series: int, series: int, needed: int) -> bool:
        """Return whether the stored series may have `needed` series beside the `series` there."""
        if series + needed <= self._max_series:
            return True
        if stored_series in self._reserved_everywhere:
            return True
        return stored_series in self._reserved.get(instrument, ())

    def batch(self, needed: int) -> int:
        """Return how many silent series to remove, so that at least `needed` fit."""
        return max(needed, self._max_series // _BATCH)

    def reserve(self, instrument: str, stored_series: Iterable[int]) -> None:
        """Reserve the places of stored series whose series make room for others."""
        self._reserved.setdefault(instrument, set()).update(stored_series)

    def is_full(self, instrument: str, now: float) -> bool:
        """Return whether a search for silent series would find none, as of the last one."""
        full_until = self._full_until.get(instrument)
        if full_until is None:
            return False
        # Before the search itself: the clock was set back, so its result says nothing.
        return full_until - RETRY_AFTER <= now < full_until

    def mark_full(self, instrument: str, now: float) -> None:
        """Remember that a search found no silent series."""
        self._full_until[instrument] = now + RETRY_AFTER
