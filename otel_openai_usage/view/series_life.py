"""The life of a series: its states, and the changes between them.

An *aggregated series* is one exported series. It adds up one measure of its members.

    from          to            when
    UNPUBLISHED   OMITTED       its value is 0 and skip_zero is set
    UNPUBLISHED   ZERO_FIRST    its members are new, and a page was served before
    UNPUBLISHED   SHOWN         a member may show its value
    UNPUBLISHED   DORMANT       after a start: its members did not change for too long
    OMITTED       ZERO_FIRST    its value is above 0, and a page was served before
    OMITTED       SHOWN         its value is above 0, and no page was served before
    ZERO_FIRST    SHOWN         it was 0 for long enough, or a member may show its value
    SHOWN         DORMANT       its members did not change for too long
    DORMANT       UNPUBLISHED   a member changed again, or a new member joined

A *stored series* is one attribute set of a source. It is a member of one aggregated series for each
of its measures, and of one for its estimated cost. Its placement has a state:

    from               to                 when
    ABSENT             WAITING_FOR_NAME   it is new, and one of its ids has no name yet
    ABSENT             ACTIVE             it changed, and needs no name or has one
    ABSENT             PARTLY_DORMANT     a series that it shares with others is no longer dormant
    WAITING_FOR_NAME   ACTIVE             its name was read, or it waited for long enough
    ACTIVE             PARTLY_DORMANT     one of its series became dormant, another did not
    ACTIVE             ABSENT             its only series became dormant
    PARTLY_DORMANT     ACTIVE             it changed
    PARTLY_DORMANT     ABSENT             its last series became dormant

Overflow is not a state. `Capacity` decides once for each stored series and instrument whether it is
a member of the overflow series, and the store remembers it. The overflow series lives like others.
"""

from enum import Enum, auto
from typing import Final


class SeriesState(Enum):
    """The state of an aggregated series."""

    UNPUBLISHED = auto()
    """It is in no snapshot yet."""
    OMITTED = auto()
    """It is left out of snapshots because it is 0."""
    ZERO_FIRST = auto()
    """Snapshots have it as 0, so that its first value is an increase for Prometheus."""
    SHOWN = auto()
    """Snapshots have it with its value."""
    DORMANT = auto()
    """It was removed from snapshots. It returns with no less than it showed."""


class PlacementState(Enum):
    """The state of a stored series in the index."""

    ABSENT = auto()
    """The index holds nothing of it: it is new, or all its series are dormant."""
    WAITING_FOR_NAME = auto()
    """It gets its series when its name is known, or after `name_wait`."""
    ACTIVE = auto()
    """It is a member of all its series."""
    PARTLY_DORMANT = auto()
    """It is a member of some of its series; the others are dormant."""


SERIES_TRANSITIONS: Final = frozenset(
    {
        (SeriesState.UNPUBLISHED, SeriesState.OMITTED),
        (SeriesState.UNPUBLISHED, SeriesState.ZERO_FIRST),
        (SeriesState.UNPUBLISHED, SeriesState.SHOWN),
        (SeriesState.UNPUBLISHED, SeriesState.DORMANT),
        (SeriesState.OMITTED, SeriesState.ZERO_FIRST),
        (SeriesState.OMITTED, SeriesState.SHOWN),
        (SeriesState.ZERO_FIRST, SeriesState.SHOWN),
        (SeriesState.SHOWN, SeriesState.DORMANT),
        (SeriesState.DORMANT, SeriesState.UNPUBLISHED),
    }
)

PLACEMENT_TRANSITIONS: Final = frozenset(
    {
        (PlacementState.ABSENT, PlacementState.WAITING_FOR_NAME),
        (PlacementState.ABSENT, PlacementState.ACTIVE),
        (PlacementState.ABSENT, PlacementState.PARTLY_DORMANT),
        (PlacementState.WAITING_FOR_NAME, PlacementState.ACTIVE),
        (PlacementState.ACTIVE, PlacementState.PARTLY_DORMANT),
        (PlacementState.ACTIVE, PlacementState.ABSENT),
        (PlacementState.PARTLY_DORMANT, PlacementState.ACTIVE),
        (PlacementState.PARTLY_DORMANT, PlacementState.ABSENT),
    }
)


def check_series(before: SeriesState, after: SeriesState) -> None:
    """Raise ValueError if the table has no such change of an aggregated series."""
    if (before, after) not in SERIES_TRANSITIONS:
        raise ValueError(f"series: no change from {before.name} to {after.name}")


def check_placement(before: PlacementState, after: PlacementState) -> None:
    """Raise ValueError if the table has no such change of a placement."""
    if (before, after) not in PLACEMENT_TRANSITIONS:
        raise ValueError(f"placement: no change from {before.name} to {after.name}")
