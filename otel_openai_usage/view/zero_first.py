"""The series that are exported as 0 first, and when they may show their value."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from otel_openai_usage.domain.source_state import StoredSeries
from otel_openai_usage.view.series import AggregatedSeries, Placement


@dataclass(frozen=True, slots=True)
class Moment:
    """What decides whether a zero is over.

    * `mono`: seconds of a clock that never steps.
    * `attempted`: the snapshot that OTLP last tried to send; None without OTLP.
    * `page_served`: whether a page was served on this state, by any process.
    """

    mono: float
    attempted: int | None
    page_served: bool


class ZeroFirst:
    """The series in the state ZERO_FIRST. A series is 0 for `zero_hold` seconds."""

    def __init__(self, zero_hold: float, *, skip_zero: bool) -> None:
        self._zero_hold = zero_hold
        self._skip_zero = skip_zero
        # Dicts, because they keep the order in which series came.
        self._series: dict[AggregatedSeries, None] = {}
        self._releasable: list[AggregatedSeries] = []

    def __bool__(self) -> bool:
        """Whether any series is 0 first."""
        return bool(self._series)

    def add(self, series: AggregatedSeries) -> None:
        """Add a series that is 0 from now on."""
        self._series[series] = None

    def discard(self, series: AggregatedSeries) -> None:
        """Remove a series that is not 0 any more."""
        self._series.pop(series, None)

    def releasable(
        self,
        unpublished: Iterable[AggregatedSeries],
        placements: Mapping[int, Placement],
        moment: Moment,
    ) -> list[StoredSeries]:
        """Return the stored series that may show their value, all of whose zeros are over.

        A stored series that joined a sum late was 0 in its other series for a shorter time than
        the sum. `unpublished` series may need no zero at all.
        """
        candidates = self._series | dict.fromkeys(unpublished)
        over = []
        not_over = set()
        for series in candidates:
            if self._is_over(series, moment):
                over.append(series)
            else:
                not_over.add(series)
        self._releasable = []
        found: dict[int, StoredSeries] = {}
        for series in over:
            released = [member for member, _ in series.members if member.released]
            ready = [
                member
                for member, _ in series.members
                if not member.released and not_over.isdisjoint(placements[member.id].series)
            ]
            found.update((member.id, member) for member in ready)
            if released or ready:
                self._releasable.append(series)
        return list(found.values())

    def release(self) -> list[AggregatedSeries]:
        """Return the series that may show their value, as of the last `releasable`."""
        released = self._releasable
        self._releasable = []
        for series in released:
            series.begins_at_zero = False
        return released

    def _is_over(self, series: AggregatedSeries, moment: Moment) -> bool:
        """Return whether a series was 0 for long enough, or need not be 0 at all."""
        if not moment.page_served and not series.from_zero:
            # Nobody can miss the 0. With skip_zero, a series without usage stays omitted.
            return not self._skip_zero or bool(series.value())
        if series.zero_since is None:
            return False
        hold_is_over = moment.mono - series.zero_since >= self._zero_hold
        # A series that no export had as 0 would begin with its value at the receiver.
        otlp_tried = moment.attempted is None or moment.attempted >= series.zero_version
        return hold_is_over and otlp_tried
