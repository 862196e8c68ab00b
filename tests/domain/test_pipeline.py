"""A poll from the plan to the end: what is told, what is late, what happens when nothing can be
written.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from otel_openai_usage.domain import windows
from otel_openai_usage.domain.endpoints import LIMITS, USAGE_ENDPOINTS
from otel_openai_usage.domain.groupings import Groupings
from otel_openai_usage.domain.model import Dims, Width, Window
from otel_openai_usage.domain.reconciliation import late
from otel_openai_usage.domain.source_state import SeriesTable
from otel_openai_usage.domain.windows import Rules
from otel_openai_usage.engine import polling, recording
from otel_openai_usage.errors import StateError
from tests.domain.shelf import (
    DAY,
    HOUR,
    MIDNIGHT,
    MINUTE,
    Shelf,
    read,
    shown,
    source_state,
    totals,
    who,
)

RULES = Rules(Width.MINUTE, 3 * HOUR, 7 * DAY, LIMITS)
NOON = MIDNIGHT + 12 * HOUR
LEVEL = USAGE_ENDPOINTS["vector_stores"]


def test_levels_have_no_gaps() -> None:
    """An old level says nothing of now: it is never read, no gap of it is told healed, and none
    lost.
    """
    one = source_state(LEVEL, complete=False)
    for now, complete in (
        (NOON, False),
        (NOON + 60, True),
        (NOON + 2 * DAY, True),
        (NOON + 30 * DAY, True),
    ):
        one.progress = replace(one.progress, complete=complete)
        plan = polling.due(one, now, RULES, hours=True, days=True)
        assert (len(plan.steps), plan.gaps, plan.lost) == (1, (), ())


def test_a_level_is_the_newest_bucket_that_speaks_of_it() -> None:
    """A level follows its newest bucket up and down; an older bucket that is read later does not
    matter.
    """
    shelf = Shelf()
    one = source_state(LEVEL)
    for start, value in ((NOON, 100), (NOON + 60, 80), (NOON - 60, 500)):
        read(shelf, one, Width.MINUTE, {start: {("proj",): (value,)}}, NOON + 120)
    assert [
        (stored_series.total, stored_series.shown) for stored_series in one.series.values()
    ] == [((80,), (80,))]


def test_what_openai_no_longer_reports_is_given_up_once() -> None:
    """A gap that OpenAI refuses to report is told as lost, and is no gap any more."""
    one = source_state()
    plan = polling.due(one, MIDNIGHT + 3 * DAY, RULES, hours=True, days=True)
    gap = plan.gaps[0]
    assert polling.mark_lost(one, Window(gap.start - DAY, gap.start + HOUR)) == [
        Window(gap.start, gap.start + HOUR)
    ]
    assert polling.mark_lost(one, Window(gap.start - DAY, gap.start + HOUR)) == []
    assert polling.due(one, MIDNIGHT + 3 * DAY, RULES, hours=False, days=False).gaps == (
        Window(gap.start + HOUR, gap.end),
    )


@pytest.mark.parametrize("width", [Width.MINUTE, Width.HOUR, Width.DAY])
def test_a_gap_is_read_at_the_next_poll(width: Width) -> None:
    """After downtime the gap is part of the first poll, whatever the width of the freshest window."""
    one = source_state()
    plan = polling.due(
        one, MIDNIGHT + 3 * DAY, replace(RULES, width=width), hours=False, days=False
    )
    unread = plan.unread
    for step in plan.steps:
        unread = windows.without(unread, step.window)
    assert unread == ()


@pytest.mark.parametrize(
    ("seconds", "lag"),
    [
        (0, "5m"),
        (300, "5m"),
        (301, "1h"),
        (3600, "1h"),
        (10800, "3h"),
        (10801, "1d"),
        (86400, "1d"),
        (90000, "7d"),
        (10**7, "7d"),
    ],
)
def test_lateness_is_told_by_its_upper_bound(seconds: int, lag: str) -> None:
    """`lag` is the least bound that the lateness does not exceed; what is later than the last bound
    counts as the last.
    """
    assert late([(NOON, (5, 2))], [0], NOON + seconds) == {lag: 5}


def test_what_is_seen_in_time_is_not_late() -> None:
    """Tokens that are seen before their bucket ended are not late, and what is taken back is
    neither.
    """
    assert late([(NOON + 60, (5, 2)), (NOON, (-3, 0))], [0], NOON + 59) == {}


def test_late_tokens_are_counted_once() -> None:
    """Tokens are late by the reading that first told of them; a reading at another width that says
    the same adds nothing.
    """
    shelf = Shelf()
    one = source_state()
    found = [
        read(shelf, one, Width.MINUTE, {NOON: {who(): (5, 1)}}, NOON + 20).late,
        read(shelf, one, Width.MINUTE, {NOON: {who(): (9, 1)}}, NOON + 2 * HOUR).late,
        read(shelf, one, Width.HOUR, {NOON: {who(): (12, 1)}}, NOON + 9 * HOUR, coarse=True).late,
        read(
            shelf,
            one,
            Width.MINUTE,
            {NOON: {who(): (12, 1)}},
            NOON + 9 * HOUR + 60,
            window=Window(NOON, NOON + HOUR),
        ).late,
    ]
    assert found == [{}, {"3h": 4}, {"1d": 3}, {}]


def test_the_first_poll_is_not_late() -> None:
    """What was used before we were there is not late."""
    assert (
        read(
            Shelf(), source_state(complete=False), Width.MINUTE, {MIDNIGHT: {who(): (5, 1)}}, NOON
        ).late
        == {}
    )


def test_a_commit_that_fails_changes_nothing() -> None:
    """When nothing can be written the book stays as it was, fingerprints included, and the same
    reading counts once there is room.
    """
    shelf = Shelf()
    one = source_state()
    read(shelf, one, Width.MINUTE, {NOON: {who(): (5, 1)}}, NOON + 60)
    before = (one.progress, set(one.fingerprints), shown(one), dict(shelf.readings))
    shelf.full = True
    with pytest.raises(StateError):
        read(shelf, one, Width.MINUTE, {NOON: {who(): (9, 1), who("b"): (1, 1)}}, NOON + 120)
    assert (one.progress, set(one.fingerprints), shown(one), shelf.readings) == before
    shelf.full = False
    read(shelf, one, Width.MINUTE, {NOON: {who(): (9, 1), who("b"): (1, 1)}}, NOON + 180)
    assert totals(one) == {who(): (9, 1), who("b"): (1, 1)}


def test_a_first_poll_that_cannot_be_kept_is_still_the_first() -> None:
    """A book is complete, and so shown, only when that is on disk; the time of the last success
    does not move before.
    """
    shelf = Shelf(full=True)
    one = source_state(complete=False)
    with pytest.raises(StateError):
        polling.finish(shelf, one, NOON)
    assert (one.progress.complete, one.status.last_success) == (False, None)
    shelf.full = False
    assert polling.finish(shelf, one, NOON + 60)
    assert (one.progress.complete, one.status.last_success) == (True, NOON + 60)


def test_a_poll_that_brings_nothing_new_writes_nothing() -> None:
    """Between two hours, readings that say what is known commit nothing, and finishing commits only
    now and then.
    """
    shelf = Shelf()
    one = source_state()
    said = {NOON: {who(): (5, 1)}}
    read(shelf, one, Width.MINUTE, said, NOON + 60)
    polling.finish(shelf, one, NOON + 60)
    commits = shelf.commits
    for minute in range(2, 14):
        read(shelf, one, Width.MINUTE, said, NOON + minute * MINUTE)
        assert not polling.finish(shelf, one, NOON + minute * MINUTE)
    assert shelf.commits == commits
    polling.finish(shelf, one, NOON + 2 * polling.WRITE_INTERVAL)
    assert shelf.commits == commits + 1


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([(7, 0)], 7),  # higher: at once
        ([(3, 0)], 5),  # lower: not yet
        ([(3, 0), (3, 3599)], 5),
        ([(3, 0), (3, 3600)], 3),
        ([(3, 0), (2, 3600)], 5),  # another value is another suspicion
        ([(3, 0), (5, 1800), (3, 3600)], 5),  # it came back in between
        ([(3, 0), (2, 1800), (2, 5400)], 2),
        ([(3, 0), (9, 3600)], 9),
        ([(3, 86400), (3, 0), (3, 3600)], 3),  # first seen by a clock that was a day ahead
    ],
)
def test_a_coarse_bucket_falls_only_when_confirmed(
    said: list[tuple[int, int]], expected: int
) -> None:
    """A coarse reading that is higher counts at once; a lower one after two equal readings an hour
    apart.
    """
    shelf = Shelf()
    one = source_state()
    read(shelf, one, Width.MINUTE, {MIDNIGHT: {who(): (5, 0)}}, MIDNIGHT + HOUR)
    for amount, at in said:
        read(shelf, one, Width.HOUR, {MIDNIGHT: {who(): (amount, 0)}}, NOON + at, coarse=True)
    assert totals(one)[who()] == (expected, 0)
    assert shown(one)[who()] == (max(5, expected, *(amount for amount, _ in said)), 0)


def test_a_grouping_that_changes_waits_for_midnight() -> None:
    """A new grouping applies from the next UTC midnight; older buckets keep theirs, and taking it
    back in time leaves no trace.
    """
    before = Groupings.always(("model", "project_id"))
    after = before.changed_to(("model",), MIDNIGHT + DAY)
    assert after.at(NOON) == before.at(NOON)
    assert after.at(MIDNIGHT + DAY) == ("model",)
    assert after.cuts == (MIDNIGHT + DAY,)
    assert after.changed_to(("model",), MIDNIGHT + DAY) == after
    assert after.changed_to(before.at(NOON), MIDNIGHT + DAY) == before


def test_the_grouping_of_a_source_without_rows_changes_at_once() -> None:
    """A source that was never read gets the new grouping for all its buckets."""
    one = source_state(complete=False)
    polling.regroup(Shelf(), one, ("model",), NOON)
    assert one.groupings == Groupings.always(("model",))


def test_the_past_in_hours_replaces_its_days() -> None:
    """A past day that was kept as one row is not added to its hours, also when those are read in
    two parts that meet within the day.
    """
    shelf = Shelf()
    one = source_state(epoch=MIDNIGHT)
    day = MIDNIGHT - DAY
    noon = day + 12 * HOUR
    hours = {start: {who("a"): (10, 1)} for start in range(day, MIDNIGHT, HOUR)}
    recording.record_range(
        shelf, one, Window(day, MIDNIGHT), Width.DAY, {day: {who("a"): (230, 23)}}, MIDNIGHT
    )

    def kept() -> int:
        return sum(int(amounts[0]) for amounts in shelf.readings.values())

    later = {start: rows for start, rows in hours.items() if start >= noon}
    recording.record_range(shelf, one, Window(noon, MIDNIGHT), Width.HOUR, later, MIDNIGHT)
    assert kept() == 230
    earlier = {start: rows for start, rows in hours.items() if start < noon}
    recording.record_range(shelf, one, Window(day, noon), Width.HOUR, earlier, MIDNIGHT)
    assert kept() == 240


class Visited(SeriesTable):
    """Counts how often somebody asks for all its series."""

    times = 0

    def __iter__(self) -> Iterator[Dims]:
        self.times += 1
        return super().__iter__()

    def keys(self) -> Any:
        self.times += 1
        return super().keys()

    def values(self) -> Any:
        self.times += 1
        return super().values()

    def items(self) -> Any:
        self.times += 1
        return super().items()


@pytest.mark.parametrize("start", [MIDNIGHT, MIDNIGHT - HOUR], ids=["counted", "before the epoch"])
def test_a_reading_visits_only_the_series_that_it_has(start: int) -> None:
    """What a poll costs does not grow with the number of series that did not change."""
    shelf = Shelf()
    one = source_state()
    one.series = Visited()
    for amount in (5, 5, 7):
        read(shelf, one, Width.MINUTE, {start: {who(): (amount, 1)}}, NOON)
    assert len(one.series) == 1
    assert one.series.times == 0
