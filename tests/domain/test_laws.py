"""Laws that hold for whatever OpenAI answers, in whatever order."""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from otel_openai_usage.domain.endpoints import COSTS
from otel_openai_usage.domain.model import Amounts, Dims, Rows, Width, Window
from otel_openai_usage.domain.reconciliation import difference
from otel_openai_usage.domain.source_state import SourceState
from tests.domain.shelf import (
    DAY,
    HOUR,
    MIDNIGHT,
    MINUTE,
    Shelf,
    coarser,
    read,
    shown,
    source_state,
    totals,
    used,
    who,
)

LATER = MIDNIGHT + 2 * DAY
MINUTES = [MIDNIGHT + offset for offset in (0, 60, 3540, 3600, 50_000, DAY - 60)]
TODAY = Window(MIDNIGHT, MIDNIGHT + DAY)
WIDTHS = {MINUTE: Width.MINUTE, HOUR: Width.HOUR, DAY: Width.DAY}

amounts = st.tuples(st.integers(0, 1000), st.integers(0, 9))
rows = st.dictionaries(
    st.sampled_from([who("a"), who("b"), who("a", "key"), who(None)]), amounts, max_size=3
)
usage = st.fixed_dictionaries(dict.fromkeys(MINUTES, rows))
readings = st.lists(
    st.tuples(st.sampled_from([MINUTE, HOUR, DAY]), st.booleans(), usage, st.integers(1, 2 * HOUR)),
    max_size=6,
)

Noise = list[tuple[int, bool, Mapping[int, Rows], int]]


def say(
    shelf: Shelf, one: SourceState, width: int, coarse: bool, said: Mapping[int, Rows], now: int
) -> None:
    """OpenAI says this of the day, in buckets of a width."""
    read(
        shelf,
        one,
        WIDTHS[width],
        coarser(said, width),
        now,
        window=TODAY,
        coarse=coarse,
        hours=coarser(said, HOUR),
    )


def hear(shelf: Shelf, one: SourceState, noise: Noise, now: int = LATER) -> int:
    """OpenAI says one thing after the other; the laws of every moment are watched. When it ended."""
    for width, coarse, said, later in noise:
        now += later
        before = shown(one)
        say(shelf, one, width, coarse, said, now)
        assert totals(one) == shelf.counted(one)
        lawful(one, before)
    return now


def lawful(one: SourceState, before: Mapping[Dims, Amounts]) -> None:
    """No counter fell, and none shows less than OpenAI reports."""
    for dims, stored_series in one.series.items():
        assert all(
            now >= then
            for now, then in zip(
                stored_series.shown, before.get(dims, stored_series.shown), strict=True
            )
        )
        assert all(
            now >= reported
            for now, reported in zip(stored_series.shown, stored_series.total, strict=True)
        )


def truth(said: Mapping[int, Rows]) -> dict[Dims, Amounts]:
    """All that was used."""
    return used(
        {
            dims: amounts
            for rows in coarser(said, 10 * DAY).values()
            for dims, amounts in rows.items()
        }
    )


@given(readings, usage)
def test_the_last_reading_is_what_counts(noise: Noise, final: Mapping[int, Rows]) -> None:
    """Whatever was read before, in whatever order and width, after the final fine reading the
    totals are OpenAI's.
    """
    shelf = Shelf()
    one = source_state()
    now = hear(shelf, one, noise)
    say(shelf, one, MINUTE, False, final, now)
    assert totals(one) == truth(final) == shelf.counted(one)


@given(readings, usage, st.sampled_from([MINUTE, HOUR, DAY]))
def test_coarse_readings_make_everything_good_within_an_hour(
    noise: Noise, final: Mapping[int, Rows], width: int
) -> None:
    """Beyond `settle`, two readings an hour apart end at OpenAI's totals, whatever was there
    before.
    """
    shelf = Shelf()
    one = source_state()
    now = hear(shelf, one, noise)
    for later in (1, HOUR + 1):
        if width == MINUTE and any(key[1] > MINUTE for key in shelf.readings):
            width = HOUR  # hours are never read in minutes again, but where counting began
        say(shelf, one, width, True, final, now + later)
    if width == HOUR:  # days that hold more than their hours are the days' own to mend
        for later in (1, HOUR + 1):
            say(shelf, one, DAY, True, final, now + HOUR + later)
    assert totals(one) == truth(final)


@given(usage, usage, st.sampled_from([HOUR, DAY]))
def test_fine_then_coarse_is_coarse_then_fine(
    early: Mapping[int, Rows], final: Mapping[int, Rows], width: int
) -> None:
    """It makes no difference which of two widths tells the final usage first."""
    ends = []
    for order in ((MINUTE, width), (width, MINUTE)):
        shelf = Shelf()
        one = source_state()
        say(shelf, one, MINUTE, False, early, LATER)
        for number, each in enumerate(order):
            say(shelf, one, each, each != MINUTE, final, LATER + number)
        ends.append(totals(one))
    assert ends == [truth(final), truth(final)]


@given(usage, st.sampled_from([MINUTE, HOUR, DAY]), st.booleans())
def test_reading_twice_is_reading_once(
    said: Mapping[int, Rows], width: int, forgetful: bool
) -> None:
    """The same answer again changes nothing, writes nothing and moves no leaf, with or without
    remembered fingerprints.
    """
    shelf = Shelf()
    one = source_state()
    say(shelf, one, width, False, said, LATER)
    commits = shelf.commits
    before = dict(shelf.readings)
    if forgetful:
        one.fingerprints.clear()
    absorbed = read(shelf, one, WIDTHS[width], coarser(said, width), LATER + 60, window=TODAY)
    assert (
        list(absorbed.delta.series),
        dict(absorbed.late),
        shelf.readings,
        shelf.commits,
    ) == (
        [],
        {},
        before,
        commits,
    )


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6), usage), max_size=8), usage)
def test_any_overlap_of_windows_ends_right(
    pieces: list[tuple[int, int, Mapping[int, Rows]]], final: Mapping[int, Rows]
) -> None:
    """Windows of any length that overlap in any way, the last of which tells the final usage, end
    at OpenAI's totals.
    """
    shelf = Shelf()
    one = source_state()
    for number, (first, length, said) in enumerate([*pieces, (0, 6, final)]):
        chosen = {start: said[start] for start in MINUTES[first : first + length]}
        before = shown(one)
        read(shelf, one, Width.MINUTE, chosen, LATER + number)
        assert totals(one) == shelf.counted(one)
        lawful(one, before)
    assert totals(one) == truth(final)


@given(readings, readings)
def test_two_books_never_touch_each_other(noise: Noise, other_noise: Noise) -> None:
    """What one source, or organization, reads changes no row, total or counter of another."""
    shelf = Shelf()
    one = source_state()
    other = source_state(id_=2, organization="other")
    hear(shelf, one, noise)
    mine = shown(one)
    rows_of_mine = {key: value for key, value in shelf.readings.items() if key[0] == 1}
    hear(shelf, other, other_noise)
    assert (shown(one), {key: value for key, value in shelf.readings.items() if key[0] == 1}) == (
        mine,
        rows_of_mine,
    )
    alone = Shelf()
    lonely = source_state(id_=2, organization="other")
    hear(alone, lonely, other_noise)
    assert (shown(other), totals(other)) == (shown(lonely), totals(lonely))


@given(readings, st.integers(0, 23 * 60), usage)
def test_what_was_used_before_counting_began_is_not_counted(
    noise: Noise, minute: int, final: Mapping[int, Rows]
) -> None:
    """Buckets that begin before the epoch are kept, and move no counter."""
    shelf = Shelf()
    one = source_state(epoch=MIDNIGHT + 60 * minute)
    now = hear(shelf, one, [(MINUTE, False, said, later) for _, _, said, later in noise])
    say(shelf, one, MINUTE, False, final, now)
    assert totals(one) == truth(
        {start: rows for start, rows in final.items() if start >= one.progress.epoch}
    )


@given(readings, usage, st.integers(MIDNIGHT, MIDNIGHT + DAY))
def test_compaction_moves_no_total(noise: Noise, final: Mapping[int, Rows], before: int) -> None:
    """Minutes that became hours count as they did, and are still replaced by what OpenAI says
    later.
    """
    shelf = Shelf()
    one = source_state()
    now = hear(shelf, one, noise)
    say(shelf, one, MINUTE, False, final, now)
    expected = shelf.counted(one)
    read(shelf, one, Width.MINUTE, {MINUTES[-1]: final[MINUTES[-1]]}, now + 60, fine_from=before)
    assert shelf.counted(one) == totals(one) == expected
    later = hear(shelf, one, noise, now + 120)
    say(shelf, one, MINUTE, False, final, later)
    assert totals(one) == expected


money = st.decimals(0, 10**12, places=22).map(lambda value: value.normalize())


@settings(max_examples=60)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["a", "b"]), st.tuples(money, money), min_size=1),
        min_size=1,
        max_size=6,
    )
)
def test_money_is_exact(days: list[dict[str, tuple[Decimal, Decimal]]]) -> None:
    """Costs with 34 digits are kept and added up to the last of them, through readings that revise
    them.
    """
    shelf = Shelf()
    one = source_state(COSTS)
    expected: dict[Dims, Amounts] = {}
    for said in days:
        rows: dict[Dims, Amounts] = {
            (None, item, None, None, None, "usd"): value for item, value in said.items()
        }
        read(shelf, one, Width.DAY, {MIDNIGHT: rows, MIDNIGHT + DAY: rows}, LATER)
        expected = rows
    for dims, stored_series in one.series.items():
        assert [Fraction(amount) for amount in stored_series.total] == [
            2 * Fraction(amount) for amount in expected.get(dims, (0, 0))
        ]
        assert not any(difference(stored_series.total, stored_series.total))


def test_a_doubted_bucket_is_looked_at_again() -> None:
    """A coarse reading that goes up and comes back to what it said before is taken back, though it
    was seen before.
    """
    shelf = Shelf()
    one = source_state()
    now = LATER
    first = {MIDNIGHT: {who("a"): (5, 5)}}
    second = {MIDNIGHT: {who("a"): (9, 1)}}
    for said in (first, second, first, first):
        read(shelf, one, Width.HOUR, said, now, coarse=True)
        now += HOUR + 1
    assert totals(one) == {who("a"): (5, 5)}


def test_what_another_width_superseded_is_looked_at_again() -> None:
    """A minute that an hour replaced counts again when the same minute is read again."""
    shelf = Shelf()
    one = source_state()
    minute: dict[int, Rows] = {MIDNIGHT: {who("a"): (5, 5)}}
    read(shelf, one, Width.MINUTE, minute, LATER)
    read(shelf, one, Width.HOUR, {MIDNIGHT: {}}, LATER)
    read(shelf, one, Width.MINUTE, minute, LATER)
    assert totals(one) == {who("a"): (5, 5)}
