"""What is known of the present, whatever the machine's clock says."""

from hypothesis import given
from hypothesis import strategies as st

from otel_openai_usage.domain.trusted_time import KnownTimes, Present

START = 1_795_305_700.0
DAY = 86400
STEP = st.integers(-(2**31), 2**31)


@given(st.lists(st.tuples(st.integers(0, 40 * DAY), STEP, st.booleans(), st.booleans())), STEP)
def test_the_earliest_time_has_always_come(
    steps: list[tuple[int, int, bool, bool]], first: int
) -> None:
    """With usage reported while the clock steps by seconds to decades, through restarts: the
    earliest time is never later than the true one, the best guess never earlier than the usage.
    """
    true = START
    booted = true
    wrong = first
    present = Present(true + wrong, 0, KnownTimes())
    reported = 0.0
    for pause, wrong, restarts, uses in [(0, first, False, True), *steps]:
        true += pause
        if restarts:
            known = present.known(true - booted)
            booted = true
            present = Present(true + wrong, 0, known)
        if uses:
            reported = true - 60
            present.reported(reported, true + wrong, true - booted)
        wall, mono = true + wrong, true - booted
        assert present.earliest(wall, mono) <= true
        assert present.latest(wall, mono) >= min(reported, wall)
        assert present.stamp(wall, mono) >= wall


@given(st.lists(st.tuples(st.integers(0, 40 * DAY), st.booleans())))
def test_a_right_clock_is_as_good_as_believed(steps: list[tuple[int, bool]]) -> None:
    """Under a clock that is right the earliest time lags behind by no more than the last report is
    old, and by the time that the process was stopped.
    """
    true = START
    booted = true
    stopped = 0
    present = Present(true, 0)
    for pause, restarts in steps:
        known = present.known(true - booted)
        true += pause
        if restarts:
            stopped += pause
            booted = true
            present = Present(true, 0, known)
        assert true - stopped <= present.earliest(true, true - booted) <= true
        assert present.latest(true, true - booted) == true


def test_a_clock_that_was_behind_at_the_first_start_is_believed_after_a_steady_day() -> None:
    """Without usage reported, a clock that jumps to another time is believed after a day there."""
    present = Present(0, 0)
    for hour in range(25):
        earliest = present.earliest(START + hour * 3600, hour * 3600)
        assert earliest == hour * 3600 or hour == 24
    assert earliest == START + DAY


def test_a_bucket_in_the_future_proves_nothing() -> None:
    """Usage reported of next week does not make this week look old."""
    present = Present(START, 0)
    present.reported(START + 7 * DAY, START, 0)
    assert present.earliest(START + 10 * DAY, 5) == START + 5
