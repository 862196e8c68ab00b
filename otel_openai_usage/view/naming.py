"""Names of projects and API keys: who waits for one, and what a rename must not lower."""

from collections.abc import Iterable, Mapping

from otel_openai_usage.domain.model import NO_NAMES, Amount, Names
from otel_openai_usage.domain.series_marks import Attributes, HighWaterMark, Key
from otel_openai_usage.domain.source_state import SourceState, StoredSeries
from otel_openai_usage.view.attributes import dimensions, named, unnamed
from otel_openai_usage.view.series import AggregatedSeries


class Naming:
    """The names of each organization, and the stored series that wait for theirs."""

    def __init__(self, name_wait: float, *, users: bool = False) -> None:
        self._users = users
        self.by_organization: dict[str, Names] = {}
        self._name_wait = name_wait
        self._waiting: dict[int, tuple[SourceState, StoredSeries]] = {}
        # Apart from `_waiting`, so that a rebuild of the index does not restart a wait.
        self._wait_began: dict[int, float] = {}

    def raw_attributes(self, source_state: SourceState, stored_series: StoredSeries) -> Attributes:
        """Return all attributes of a stored series, before the policy applies to them."""
        raw: Attributes = {
            "organization": source_state.organization,
            "operation": source_state.endpoint.name,
        }
        raw.update(dimensions(source_state, stored_series))
        return named(raw, self._of(source_state), users=self._users)

    def differs(
        self, source_state: SourceState, stored_series: StoredSeries, before: Mapping[str, Names]
    ) -> bool:
        """Return whether the stored series has another name than `before`."""
        dims = dimensions(source_state, stored_series)
        old_names = before.get(source_state.organization, NO_NAMES)
        old = named(dict(dims), old_names, users=self._users)
        new = named(dict(dims), self._of(source_state), users=self._users)
        return old != new

    def must_wait(
        self, source_state: SourceState, stored_series: StoredSeries, mono: float
    ) -> bool:
        """Return whether a stored series has to wait for its name, and if so remember it.

        `mono` is in seconds, of a clock that never steps.
        """
        began = self._wait_began.setdefault(stored_series.id, mono)
        # A released series was shown before, under whatever name.
        may_wait = not stored_series.released and mono - began < self._name_wait
        if may_wait and unnamed(dimensions(source_state, stored_series), self._of(source_state)):
            self._waiting[stored_series.id] = (source_state, stored_series)
            return True
        self.end_wait(stored_series)
        return False

    def end_wait(self, stored_series: StoredSeries) -> None:
        """Forget that a stored series waited."""
        self._waiting.pop(stored_series.id, None)
        self._wait_began.pop(stored_series.id, None)

    @property
    def is_waiting(self) -> bool:
        """Whether any stored series waits."""
        return bool(self._waiting)

    def waiting(self) -> list[tuple[SourceState, StoredSeries]]:
        """Return the stored series that wait."""
        return list(self._waiting.values())

    def clear_waiting(self) -> None:
        """Begin with an empty index. A series that waits again continues its wait."""
        self._waiting.clear()

    def _of(self, source_state: SourceState) -> Names:
        return self.by_organization.get(source_state.organization, NO_NAMES)


class HighWaterMarks:
    """What series showed when a rename took members from them: they never show less."""

    def __init__(self, marks: Iterable[HighWaterMark]) -> None:
        self._amounts = {(mark.instrument, mark.key): mark.amount for mark in marks}

    def of(self, instrument: str, key: Key) -> Amount:
        """Return the least that a series shows; 0 if it has no mark."""
        return self._amounts.get((instrument, key), 0)

    def update(
        self,
        old: Mapping[tuple[str, Key], AggregatedSeries],
        new: Mapping[tuple[str, Key], AggregatedSeries],
    ) -> list[HighWaterMark]:
        """Mark the series that a rename would lower. Return the marks that the store must remember.

        A series without members is marked, too: another rename can give it members again.
        """
        marks = []
        for place, old_series in old.items():
            shown = old_series.value() if old_series.may_show_value else 0
            new_sum = new[place].member_sum() if place in new else 0
            if shown > new_sum and shown != self._amounts.get(place):
                self._amounts[place] = shown
                marks.append(HighWaterMark(*place, shown))
        return marks
