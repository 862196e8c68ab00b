"""The frozen snapshot that readers export, and the Board that holds the current one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

AttributeValue: TypeAlias = str | bool | int | float


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One attribute set of one instrument.

    Compare by identity. While a series does not change, all snapshots have the same object, so a
    reader can reuse what it derived from it: rendered labels, encoded attributes. `start` is when
    counting began, in Unix nanoseconds; 0 for gauges. `continues` says that it took over the total
    of another series, as after a rename: so it never was 0, whenever counting began.
    """

    attributes: Mapping[str, AttributeValue]
    start: int = 0
    continues: bool = False


@dataclass(frozen=True, slots=True)
class Point:
    """The value of a series: always an int, or always a float."""

    series: Series
    value: int | float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All points to export, by the name of their instrument.

    `version` grows with each published snapshot. `time` is in Unix nanoseconds. An instrument whose
    points did not change has the same sequence object as in the last snapshot, so a reader can
    reuse what it rendered of it.
    """

    version: int = 0
    time: int = 0
    points: Mapping[str, Sequence[Point]] = field(default_factory=dict)


class Board:
    """Holds the current snapshot. The recorder writes it, and any thread may read it."""

    def __init__(self) -> None:
        self._current = Snapshot()

    def publish(self, snapshot: Snapshot) -> None:
        """Replace the current snapshot."""
        # No lock: one assignment, so a reader gets the old snapshot or the new one.
        self._current = snapshot

    def current(self) -> Snapshot:
        """Return the current snapshot."""
        return self._current


class GatedBoard(Board):
    """The snapshot of another Board while `may_show` says so, else an empty one."""

    def __init__(self, board: Board, may_show: Callable[[], bool]) -> None:
        super().__init__()
        self._board = board
        self._may_show = may_show

    def current(self) -> Snapshot:
        """Return the current snapshot, or an empty one."""
        return self._board.current() if self._may_show() else self._current
