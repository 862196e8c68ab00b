"""The table of series_life is what series really do."""

from enum import Enum

import pytest

from otel_openai_usage.domain.endpoints import COSTS
from otel_openai_usage.view import series, series_life
from otel_openai_usage.view.attributes import AttributePolicy
from otel_openai_usage.view.series_life import (
    PLACEMENT_TRANSITIONS,
    SERIES_TRANSITIONS,
    PlacementState,
    SeriesState,
)
from tests.domain.shelf import source_state
from tests.view.test_series_index import Stage, of

DAY = 86400


def _documented(states: type[Enum]) -> set[tuple[Enum, Enum]]:
    """The changes between these states in the module's docstring."""
    changes = set()
    for line in (series_life.__doc__ or "").splitlines():
        words = line.split()
        if len(words) > 2 and {words[0], words[1]} <= states.__members__.keys():
            changes.add((states[words[0]], states[words[1]]))
    return changes


def test_the_docstring_has_the_table() -> None:
    """Each change of the table is in the module's docstring, and no other."""
    assert _documented(SeriesState) == SERIES_TRANSITIONS
    assert _documented(PlacementState) == PLACEMENT_TRANSITIONS


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> set[tuple[Enum, Enum]]:
    """The changes that happen during a test. Each is still checked."""
    changes: set[tuple[Enum, Enum]] = set()

    def check_series(before: SeriesState, after: SeriesState) -> None:
        changes.add((before, after))
        series_life.check_series(before, after)

    def check_placement(before: PlacementState, after: PlacementState) -> None:
        changes.add((before, after))
        series_life.check_placement(before, after)

    monkeypatch.setattr(series, "check_series", check_series)
    monkeypatch.setattr(series, "check_placement", check_placement)
    return changes


def test_every_change_of_the_table_happens(seen: set[tuple[Enum, Enum]]) -> None:
    """Some short lives go through every change, and through no other."""
    _zero_then_value()
    _waits_for_a_name()
    _omitted_then_zero()
    _omitted_then_value()
    _dormant_with_others()
    _dormant_after_a_start()
    _only_series_becomes_dormant()
    assert seen == SERIES_TRANSITIONS | PLACEMENT_TRANSITIONS


def _zero_then_value() -> None:
    one = source_state()
    stage = Stage(AttributePolicy(name_wait=0), [one])
    stage.use(one, of("a"), (7, 1))
    stage.publish()
    stage.publish(60)
    assert stage.total() == 7


def _waits_for_a_name() -> None:
    one = source_state()
    stage = Stage(AttributePolicy(zero_hold=0), [one])
    stage.use(one, of("a"), (7, 1))
    stage.publish()
    assert stage.total() == 0
    stage.publish(30)
    stage.publish()
    assert stage.total() == 7


def _omitted_then_zero() -> None:
    one = source_state()
    stage = Stage(AttributePolicy(name_wait=0, skip_zero=True), [one])
    stage.use(one, of("a"), (0, 1))
    stage.publish()
    assert stage.values() == {}
    stage.use(one, of("a"), (7, 1))
    stage.publish()
    assert stage.values() == {(): 0}


def _omitted_then_value() -> None:
    one = source_state()
    stage = Stage(AttributePolicy(name_wait=0, skip_zero=True), [one])
    stage.series_index.page_served = False
    stage.use(one, of("a"), (0, 1))
    stage.publish()
    assert stage.values() == {}
    stage.use(one, of("a"), (7, 1))
    stage.publish()
    assert stage.values() == {(): 7}


def _dormant_with_others() -> None:
    """Two users share each series. Tokens and requests become dormant one after the other."""
    one = source_state()
    policy = AttributePolicy(name_wait=0, drop=frozenset({"user_id"}), max_series=1, make_room=DAY)
    stage = Stage(policy, [one])
    first = stage.use(one, ("p", "a", None, "m"), (7, 1), released=True)
    stage.use(one, ("p", "b", None, "m"), (7, 1), released=True)
    stage.publish()
    stage.publish(2 * DAY)
    other = stage.use(one, ("q", "c", None, "m"), (1, 1), released=True)
    other.changed = int(stage.now)
    first.changed = int(stage.now)
    stage.series_index.add(one, first, stage.now)
    stage.publish()
    assert stage.total() == 15


def _dormant_after_a_start() -> None:
    one = source_state()
    stage = Stage(AttributePolicy(name_wait=0, forget=DAY), [one])
    stage.use(one, of("a"), (7, 1), released=True)
    stage.publish()
    stage.now += 2 * DAY
    stage.start()
    assert stage.values() == {}


def _only_series_becomes_dormant() -> None:
    """A cost is a member of one series only."""
    one = source_state(COSTS)
    stage = Stage(AttributePolicy(name_wait=0, forget=DAY), [one])
    stage.use(one, (None, "item", None, None, None, "usd"), (3, 1), released=True)
    stage.publish()
    stage.now += 2 * DAY
    stage.series_index.forget(stage.now)
    stage.publish()
    assert stage.values("openai.api.cost") == {}


def test_a_change_outside_the_table_raises() -> None:
    """A change that the table does not have is a bug, and its error names both states."""
    with pytest.raises(ValueError, match="from SHOWN to ZERO_FIRST"):
        series_life.check_series(SeriesState.SHOWN, SeriesState.ZERO_FIRST)
    with pytest.raises(ValueError, match="from ACTIVE to WAITING_FOR_NAME"):
        series_life.check_placement(PlacementState.ACTIVE, PlacementState.WAITING_FOR_NAME)
