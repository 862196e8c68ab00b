"""Who gets series of its own, and who shares the overflow series."""

from otel_openai_usage.domain.series_marks import OverflowMember
from otel_openai_usage.view.capacity import RETRY_AFTER, Capacity

TOKENS = "openai.api.tokens"


def test_a_stored_series_needs_a_place_for_each_of_its_series() -> None:
    """With three places and one series, two further series fit, and three do not."""
    capacity = Capacity(3, [])
    assert capacity.has_place(TOKENS, 1, series=1, needed=2)
    assert not capacity.has_place(TOKENS, 1, series=1, needed=3)


def test_a_reserved_place_is_beyond_the_limit() -> None:
    """A stored series that made room for others has a place, and only in that instrument."""
    capacity = Capacity(1, [])
    capacity.reserve(TOKENS, [7])
    assert capacity.has_place(TOKENS, 7, series=1, needed=1)
    assert not capacity.has_place("openai.api.requests", 7, series=1, needed=1)


def test_a_new_overflow_member_is_returned_once() -> None:
    """The store has to remember a new member, but not those that it has already."""
    capacity = Capacity(1, [OverflowMember(TOKENS, 1)])
    capacity.add_overflow_member(TOKENS, 2)
    assert capacity.take_new_members() == [OverflowMember(TOKENS, 2)]
    assert capacity.take_new_members() == []
    assert capacity.is_overflow_member(TOKENS, 1)
    assert capacity.overflow_count(TOKENS) == 2


def test_a_full_instrument_is_searched_again_after_an_hour_or_a_clock_step() -> None:
    """A search without result counts for an hour, and not if the clock was set back."""
    capacity = Capacity(1, [])
    assert not capacity.is_full(TOKENS, now=1000)
    capacity.mark_full(TOKENS, now=1000)
    assert capacity.is_full(TOKENS, now=1000 + RETRY_AFTER - 1)
    assert not capacity.is_full(TOKENS, now=1000 + RETRY_AFTER)
    assert not capacity.is_full(TOKENS, now=999)
