"""The frozen snapshot that readers look at, and the Board where polling and reading meet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

AttributeValue: TypeAlias = str | bool | int | float


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One attribute set of one instrument.

    Compared by identity: as long as nothing about it changes the same object stands in every
    snapshot, so what a reader has worked out for it (rendered labels, encoded attributes) can be
    kept. `start` is when its counting began, in Unix nanoseconds; 0 for gauges.
    """

    attributes: Mapping[str, AttributeValue]
    start: int = 0


@dataclass(frozen=True, slots=True)
class Point:
    """The value of a series. int stays int and float stays float for the life of a series."""

    series: Series
    value: int | float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is shown, by instrument name. `version` grows with each published change; `time` in
    Unix nanoseconds.

    An instrument whose points did not change since the last snapshot has the same sequence object
    in both, so a reader can keep what it rendered of it.
    """

    version: int = 0
    time: int = 0
    points: Mapping[str, Sequence[Point]] = field(default_factory=dict)


class Board:
    """Holds the current snapshot. Written by the poller, read by anybody, in any thread."""

    def __init__(self) -> None:
        self._current = Snapshot()

    def publish(self, snapshot: Snapshot) -> None:
        """Show `snapshot` from now on."""
        self._current = snapshot  # one reference swap: readers see the old or the new, never a mix

    def current(self) -> Snapshot:
        """What is shown now."""
        return self._current
