"""Series that are silent for long are let go, and come back as if nothing had been."""

import random

import pytest

from otel_openai_usage.domain.source_state import SourceState, StoredSeries
from otel_openai_usage.view.attributes import AttributePolicy
from tests.domain.shelf import source_state
from tests.view.test_series_index import QUICK, REQUESTS, TOKENS, Stage, of

HOUR = 3600
DAY = 86400
FORGETFUL = AttributePolicy(name_wait=0, zero_hold=60, forget=14 * DAY, make_room=7 * DAY)


@pytest.fixture
def one() -> SourceState:
    """A book that has been polled before."""
    return source_state()


def use(stage: Stage, one: SourceState, stored_series: str, total: int) -> StoredSeries:
    """An old series moves now."""
    moved = stage.use(one, of(stored_series), (total, 1), released=True)
    moved.changed = int(stage.now)
    return moved


def sleep(stage: Stage, days: float) -> None:
    """Time passes; the keeper looks in now and then."""
    for _ in range(int(days * 4)):
        stage.now += 6 * HOUR
        stage.series_index.forget(stage.now)
    stage.publish()


def test_a_series_is_forgotten_after_long_silence_and_returns_with_its_total(
    one: SourceState,
) -> None:
    """Shown as it stood for 14 days, then no more; when it moves again it is there at once with all
    that it ever counted.
    """
    stage = Stage(FORGETFUL, [one])
    use(stage, one, "quiet", 7)
    sleep(stage, 13.75)
    assert stage.values(TOKENS, "project_id") == {("quiet",): 7}
    use(stage, one, "other", 1)
    sleep(stage, 0.5)
    assert stage.values(TOKENS, "project_id") == {("other",): 1}
    assert stage.values(REQUESTS, "project_id") == {("other",): 1}
    use(stage, one, "quiet", 9)
    stage.publish()
    assert stage.values(TOKENS, "project_id") == {("other",): 1, ("quiet",): 9}


def test_nothing_is_left_of_what_was_forgotten(one: SourceState) -> None:
    """However many came and went, the Shape holds what lives."""
    stage = Stage(FORGETFUL, [one])
    for week in range(10):
        for nth in range(20):
            use(stage, one, f"{week}/{nth}", 5)
        sleep(stage, 7)
    series_index = stage.series_index
    live = {f"{week}/{nth}" for week in (8, 9) for nth in range(20)}
    assert {key[0] for key in stage.values(TOKENS, "project_id")} == live
    assert len(series_index._placements) == 40
    assert len(series_index._dormant) == 0
    assert series_index.counts() == {TOKENS: (40, 0), REQUESTS: (40, 0)}


def test_a_sum_keeps_its_silent_parts(one: SourceState) -> None:
    """Where an attribute is dropped, a series lives as long as any of its parts; all of them come
    back with one.
    """
    policy = AttributePolicy(name_wait=0, drop=frozenset({"project_id"}), forget=14 * DAY)
    stage = Stage(policy, [one])
    use(stage, one, "a", 10)
    sleep(stage, 10)
    use(stage, one, "b", 5)
    sleep(stage, 10)
    assert stage.total() == 15
    sleep(stage, 10)
    assert stage.values() == {}
    use(stage, one, "b", 6)
    stage.publish()
    assert stage.total() == 16
    use(stage, one, "a", 11)
    stage.publish()
    assert (stage.total(), stage.total(REQUESTS)) == (17, 2)


def test_a_full_instrument_lets_the_longest_silent_make_room(one: SourceState) -> None:
    """At `max_series` a newcomer takes the place of the one that has been silent for longest, if
    that is long; else it is folded.
    """
    stage = Stage(
        AttributePolicy(name_wait=0, zero_hold=0, max_series=3, forget=14 * DAY, make_room=7 * DAY),
        [one],
    )
    for days, name in ((0, "a"), (1, "b"), (4, "c")):
        sleep(stage, days)
        use(stage, one, name, 1)
    use(stage, one, "early", 1)
    assert {fold.stored_series for fold in stage.folded} == {one.series[of("early")].id}
    sleep(stage, 3.25)
    use(stage, one, "d", 1)
    stage.publish()
    assert {key[0] for key in stage.values(TOKENS, "project_id")} == {"b", "c", "d", None}


def test_what_made_room_comes_back_as_itself(one: SourceState) -> None:
    """Its series is never folded, not after a restart either: beyond the limit rather than a jump
    in the overflow series.
    """
    stage = Stage(AttributePolicy(name_wait=0, zero_hold=0, max_series=2, make_room=7 * DAY), [one])
    use(stage, one, "a", 50)
    sleep(stage, 8)
    use(stage, one, "b", 1)
    use(stage, one, "c", 1)
    stage.publish()
    assert stage.values(TOKENS, "project_id") == {("b",): 1, ("c",): 1}
    stage.start()
    assert stage.values(TOKENS, "project_id") == {("b",): 1, ("c",): 1}
    use(stage, one, "a", 51)
    stage.publish()
    assert stage.values(TOKENS, "project_id") == {("a",): 51, ("b",): 1, ("c",): 1}
    assert stage.folded == []


@pytest.mark.parametrize("drop", [frozenset[str](), frozenset({"project_id"})])
@pytest.mark.parametrize("seed", range(10))
def test_no_series_ever_falls_and_a_restart_shows_the_same(
    one: SourceState, seed: int, drop: frozenset[str]
) -> None:
    """Through months of comings and goings: what is shown of a series never falls, and what moved
    lately is all there.
    """
    rng = random.Random(seed)
    stage = Stage(AttributePolicy(name_wait=0, zero_hold=0, drop=drop, forget=14 * DAY), [one])
    highest: dict[object, float] = {}
    totals: dict[str, int] = {}
    for _ in range(120):
        sleep(stage, rng.choice((0.25, 1, 1, 5)))
        for name in rng.sample("abcdefgh", rng.choice((0, 1, 2))):
            totals[name] = totals.get(name, 0) + rng.randint(1, 9)
            use(stage, one, name, totals[name])
        if rng.random() < 0.05:
            stage.start()
        stage.publish()
        for key, value in stage.values(TOKENS, "project_id").items():
            assert value >= highest.get(key, 0)
            highest[key] = value
        recent = {
            stored_series.dims[0]
            for stored_series in one.series.values()
            if stage.now - stored_series.changed < 14 * DAY
        }
        if drop:
            assert stage.total() == (sum(totals.values()) if recent else 0)
        else:
            assert {name: stage.values(TOKENS, "project_id")[name,] for name in recent} == {
                name: totals[str(name)] for name in recent
            }


def test_quick_looks_never_forget(one: SourceState) -> None:
    """Without a rule nothing is forgotten."""
    stage = Stage(QUICK, [one])
    use(stage, one, "a", 1)
    sleep(stage, 400)
    assert stage.total() == 1
