"""The grouping that each bucket of a source is read with: it never changes for a bucket."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Groupings:
    """Dimensions by the UTC midnight (Unix seconds) from which they apply, oldest first.

    The first entry applies from the beginning of time, so there is always one.
    """

    entries: tuple[tuple[int, tuple[str, ...]], ...]

    @classmethod
    def always(cls, group_by: tuple[str, ...]) -> "Groupings":
        """One grouping for all buckets."""
        return cls(((0, group_by),))

    def at(self, start: int) -> tuple[str, ...]:
        """The grouping of the bucket that begins then."""
        chosen = self.entries[0][1]
        for since, grouping in self.entries:
            if since <= start:
                chosen = grouping
        return chosen

    @property
    def cuts(self) -> tuple[int, ...]:
        """The instants at which the grouping changes: no request may cross one."""
        return tuple(since for since, _ in self.entries[1:])

    def changed_to(self, group_by: tuple[str, ...], midnight: int) -> "Groupings":
        """The same, with another grouping from `midnight` on."""
        # Later changes were planned but never used: the new grouping replaces them.
        entries = [entry for entry in self.entries if entry[0] < midnight]
        if entries[-1][1] != group_by:
            entries.append((midnight, group_by))
        return Groupings(tuple(entries))

    def without(self, dimensions: Iterable[str], start: int, end: int) -> "Groupings":
        """The same, without some dimensions for the buckets in [start, end), UTC midnights."""
        left_out = set(dimensions)
        edges = {since for since, _ in self.entries} | {start, end}
        entries: list[tuple[int, tuple[str, ...]]] = []
        for edge in sorted(edges):
            grouping = self.at(edge)
            if start <= edge < end:
                grouping = tuple(name for name in grouping if name not in left_out)
            if not entries or entries[-1][1] != grouping:
                entries.append((edge, grouping))
        return Groupings(tuple(entries))
