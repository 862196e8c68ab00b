"""Which windows are read: within OpenAI's limits, all of it, each gap once, and no more than it
must cost.
"""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_openai_usage.domain.endpoints import LIMITS
from otel_openai_usage.domain.model import Width, Window, floor
from otel_openai_usage.domain.windows import Plan, Progress, Rules, plan, without
from tests.domain.shelf import DAY, HOUR, MIDNIGHT, MINUTE

NOW = MIDNIGHT + 20 * DAY + 15 * HOUR + 20 * MINUTE + 7
RULES = Rules(Width.MINUTE, 3 * HOUR, 7 * DAY, LIMITS)
END = floor(NOW, MINUTE) + MINUTE


def minutes(most: int) -> st.SearchStrategy[int]:
    """Seconds, in whole minutes."""
    return st.integers(1, most // MINUTE).map(lambda count: count * MINUTE)


rules = st.builds(
    Rules, st.sampled_from(Width), minutes(3 * DAY), minutes(40 * DAY), st.just(LIMITS)
)
ago = minutes(60 * DAY)
cuts = st.lists(st.integers(0, 30), max_size=3).map(
    lambda days: tuple(sorted({MIDNIGHT + day * DAY for day in days}))
)


@st.composite
def progresses(draw: st.DrawFn) -> Progress:
    """A book that began some time ago, read until some time ago, and may have failed on the way."""
    epoch = floor(NOW, MINUTE) - draw(ago)
    horizon = draw(
        st.none()
        | st.integers(epoch // MINUTE, NOW // MINUTE + 1).map(lambda minute: minute * MINUTE)
    )
    gap = draw(st.none() | minutes(5 * DAY))
    unread = (
        (Window(max(epoch, horizon - gap), horizon),) if horizon and gap and horizon > epoch else ()
    )
    return Progress(epoch, draw(st.booleans()), horizon, unread)


def covered(made: Plan, start: int, end: int) -> bool:
    """Whether the steps leave nothing of [start, end) out."""
    left: tuple[Window, ...] = (Window(start, end),) if start < end else ()
    for step in made.steps:
        left = without(left, step.window)
    return not left


@given(progresses(), rules, cuts)
def test_no_step_asks_for_what_openai_would_not_answer(
    progress: Progress, rules: Rules, cuts: Sequence[int]
) -> None:
    """Every step starts on its width, has no more buckets than one call may, and does not cross a
    change of grouping.
    """
    for step in plan(progress, NOW, rules, hours=True, days=True, cuts=cuts).steps:
        assert step.window.start % step.width == 0
        assert step.window.end - step.window.start <= LIMITS[step.width] * step.width
        assert not any(step.window.start < cut < step.window.end for cut in cuts)


@given(progresses(), rules, cuts)
def test_everything_within_reconcile_is_read(
    progress: Progress, rules: Rules, cuts: Sequence[int]
) -> None:
    """When all belts are due they cover every second since the epoch, as far back as `reconcile`,
    without overlap in a belt.
    """
    made = plan(progress, NOW, rules, hours=True, days=True, cuts=cuts)
    oldest = (
        max(progress.epoch, floor(NOW - rules.reconcile, DAY))
        if progress.complete
        else progress.epoch
    )
    assert covered(made, oldest, made.end)
    ordered = sorted(step.window for step in made.steps)
    assert all(one.end <= other.start for one, other in itertools.pairwise(ordered))


@given(progresses(), rules)
def test_nothing_wider_than_a_minute_holds_the_beginning(progress: Progress, rules: Rules) -> None:
    """The day in which counting began is read in minutes for ever, unless it began at midnight."""
    for step in plan(progress, NOW, rules, hours=True, days=True).steps:
        assert (
            step.width == Width.MINUTE
            or step.window.start >= progress.whole_days_from
            or step.window.end <= progress.epoch
        )


@given(progresses(), rules, st.booleans(), st.booleans())
def test_a_gap_is_due_at_once_and_only_once(
    progress: Progress, rules: Rules, hours: bool, days: bool
) -> None:
    """What no reading has covered is part of the next plan, whatever is due; once it is read, there
    are no gaps any more.
    """
    made = plan(progress, NOW, rules, hours=hours, days=days)
    assert all(covered(made, gap.start, gap.end) for gap in made.gaps)
    unread = made.unread
    for step in made.steps:
        unread = without(unread, step.window)
    again = plan(
        Progress(progress.epoch, True, made.end, unread), NOW + 60, rules, hours=False, days=False
    )
    if progress.complete:
        assert (again.gaps, [lost for lost in again.lost if lost in made.lost]) == ((), [])


@given(progresses(), rules, cuts)
def test_a_failed_poll_forgets_nothing(
    progress: Progress, rules: Rules, cuts: Sequence[int]
) -> None:
    """If no step succeeds, the next plan still knows all that is unread, and the time that has
    passed since.
    """
    made = plan(progress, NOW, rules, hours=False, days=False, cuts=cuts)
    later = plan(
        Progress(progress.epoch, progress.complete, made.end, made.unread),
        NOW + 600,
        rules,
        hours=False,
        days=False,
        cuts=cuts,
    )
    for window in made.unread:
        low = (
            max(window.start, floor(NOW + 600 - rules.reconcile, DAY))
            if progress.complete
            else window.start
        )
        assert covered(later, low, window.end)


@pytest.mark.parametrize(
    ("settle", "reconcile", "calls"),
    [
        (3 * HOUR, 7 * DAY, 1),
        (3 * HOUR, 90 * DAY, 1),
        (23 * HOUR, 7 * DAY, 1),
        (48 * HOUR, 90 * DAY, 3),
        (5 * MINUTE, 0, 1),
    ],
)
def test_a_steady_poll_costs_the_fresh_window(settle: int, reconcile: int, calls: int) -> None:
    """Between two reconciliations a poll is as many calls as the fine belt needs, however far
    `reconcile` reaches.
    """
    progress = Progress(MIDNIGHT - 100 * DAY, True, END - 60)
    made = plan(
        progress, NOW, Rules(Width.MINUTE, settle, reconcile, LIMITS), hours=False, days=False
    )
    assert (len(made.steps), {step.coarse for step in made.steps}) == (calls, {False})


def test_a_gap_is_read_in_as_few_calls_as_can_be() -> None:
    """Six days of downtime are one call for the fine belt and one of at most 168 hours; days fill
    the rest.
    """
    made = plan(Progress(MIDNIGHT, True, END - 6 * DAY), NOW, RULES, hours=False, days=False)
    assert [(step.width, step.coarse) for step in made.steps] == [
        (Width.MINUTE, False),
        (Width.HOUR, True),
    ]
    made = plan(Progress(MIDNIGHT, True, END - 6 * DAY), NOW, RULES, hours=True, days=True)
    assert [(step.width, step.coarse) for step in made.steps] == [
        (Width.MINUTE, False),
        (Width.HOUR, True),
        (Width.DAY, True),
    ]


def test_a_longer_gap_is_told_lost() -> None:
    """What lies between the last reading and `reconcile` can't be read any more: it is told, once."""
    made = plan(Progress(MIDNIGHT, True, MIDNIGHT + 5 * DAY), NOW, RULES, hours=True, days=True)
    assert made.lost == (Window(MIDNIGHT + 5 * DAY, MIDNIGHT + 13 * DAY),)
    assert made.gaps == (Window(MIDNIGHT + 13 * DAY, floor(NOW - 3 * HOUR, HOUR)),)
    again = plan(
        Progress(MIDNIGHT, True, made.end, made.unread), NOW + 60, RULES, hours=True, days=True
    )
    assert again.lost == ()


def test_the_first_poll_reads_all_since_the_epoch() -> None:
    """Before the first full poll nothing is lost, however far back counting begins: hours, not
    days, and no belt is left out.
    """
    made = plan(Progress(NOW // 60 * 60 - 30 * DAY), NOW, RULES, hours=False, days=False)
    assert made.lost == ()
    assert covered(made, floor(NOW - 30 * DAY, MINUTE), made.end)
    assert Width.DAY not in {step.width for step in made.steps}


@pytest.mark.parametrize("back", [HOUR, DAY, 30 * DAY])
def test_a_clock_that_goes_back_loses_nothing(back: int) -> None:
    """With the clock behind the last reading no gap is seen and none is told lost; when time
    returns, it is read again.
    """
    progress = Progress(MIDNIGHT, True, END)
    made = plan(progress, NOW - back, RULES, hours=False, days=False)
    assert (made.gaps, made.lost) == ((), ())
    returned = plan(
        Progress(MIDNIGHT, True, made.end, made.unread), NOW, RULES, hours=True, days=True
    )
    assert covered(returned, max(MIDNIGHT, made.end, floor(NOW - 7 * DAY, DAY)), END)


def test_a_clock_before_the_epoch_reads_but_does_not_count() -> None:
    """With the clock before the epoch the current bucket alone is read."""
    made = plan(
        Progress(MIDNIGHT, True, MIDNIGHT + HOUR), MIDNIGHT - DAY, RULES, hours=True, days=True
    )
    assert [step.window for step in made.steps] == [Window(MIDNIGHT - DAY, MIDNIGHT - DAY + MINUTE)]


@pytest.mark.parametrize("width", list(Width))
def test_the_current_bucket_is_read_too(width: Width) -> None:
    """The freshest window ends with the bucket that is still going on, whatever its width."""
    made = plan(
        Progress(MIDNIGHT, True, END),
        NOW,
        Rules(width, 3 * HOUR, 7 * DAY, LIMITS),
        hours=False,
        days=False,
    )
    assert made.steps[0].window.end == floor(NOW, width) + width
    assert {step.width for step in made.steps} == {width}
