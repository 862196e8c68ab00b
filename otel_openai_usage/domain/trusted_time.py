"""The present time, as far as it is certain: the clock, checked by data and by elapsed time.

A machine's clock can be wrong by years, for seconds or for the whole life of a process. Nothing may
be deleted, downsampled, forgotten or hidden because of such a clock. Two facts limit the error:
usage that OpenAI reported has happened, and the monotonic clock counts the seconds since then.
"""

from dataclasses import dataclass

_STEADY = 86400
"""Seconds without a step after which a clock is trusted without data that support it."""
_DRIFT = 60
"""Seconds by which a clock may drift in that time without counting as a step."""


@dataclass(frozen=True, slots=True)
class KnownTimes:
    """Times that have certainly passed, in Unix seconds; stored for the next process.

    `proven` has passed because OpenAI reported usage of that time, or because time passed since
    then. `assumed` has passed according to the machine's clock alone.
    """

    proven: float | None = None
    assumed: float | None = None


class Present:
    """Two limits of the true time. `wall` is the machine's clock, `mono` one that never steps.

    `earliest` is used where age removes something: it is never later than the true time, as long
    as anything but the machine's clock supports it. `latest` is the best guess of the present: the
    machine's clock, but never earlier than what is proven.

    Where OpenAI reports nothing (only events, or only the legacy source), the clock at the first
    start is assumed to be right, and later a clock that did not step for a day. The time for which
    the process was stopped then does not count, so old data are removed later than they could be.
    """

    def __init__(self, wall: float, mono: float, known: KnownTimes = KnownTimes()) -> None:
        assumed = wall if known.assumed is None else known.assumed
        # Offsets to the monotonic clock: so all these times advance with the seconds that it
        # counts.
        self._proven = None if known.proven is None else known.proven - mono
        self._assumed = assumed - mono
        self._offset = wall - mono
        self._steady_since = mono

    def reported(self, began: float, wall: float, mono: float) -> None:
        """Note that OpenAI reported usage in a bucket that began then.

        A bucket after the machine's time counts as that time only: either the clock is behind, or
        the bucket is wrong.
        """
        offset = min(began, wall) - mono
        self._proven = offset if self._proven is None else max(self._proven, offset)

    def earliest(self, wall: float, mono: float) -> float:
        """A time that is certainly not in the future."""
        self._watch(wall, mono)
        offset = self._assumed if self._proven is None else self._proven
        return min(wall, offset + mono)

    def latest(self, wall: float, mono: float) -> float:
        """The machine's clock, unless it is proven to be behind."""
        return wall if self._proven is None else max(wall, self._proven + mono)

    def stamp(self, wall: float, mono: float) -> float:
        """The time to store for an event that is seen now. Rather too late than too early: what
        looks old is purged.
        """
        return max(self.latest(wall, mono), self._assumed + mono)

    def known(self, mono: float) -> KnownTimes:
        """The times for the next process."""
        proven = None if self._proven is None else self._proven + mono
        return KnownTimes(proven, self._assumed + mono)

    def _watch(self, wall: float, mono: float) -> None:
        """Trust a clock that has not stepped for long."""
        offset = wall - mono
        if abs(offset - self._offset) > _DRIFT:
            self._offset = offset
            self._steady_since = mono
        elif mono - self._steady_since >= _STEADY:
            self._assumed = max(self._assumed, offset)
