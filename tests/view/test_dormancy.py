"""Series that do not change for long become dormant, and return with their total."""

import random

import pytest

from otel_openai_usage.domain.source_state import SourceState, StoredSeries
from otel_openai_usage.view.attributes import AttributePolicy
from tests.domain.shelf import source_state
from tests.view.test_series_index import QUICK, REQUESTS, TOKENS, Stage, of

HOUR = 3600
DAY = 86400
FORGETTING = AttributePolicy(name_wait=0, zero_hold=60, forget=14 * DAY, make_room=7 * DAY)


@pytest.fixture
def one() -> SourceState:
    """A source whose first reading is complete."""
    return source_state()


def use(stage: Stage, one: SourceState, project: str, total: int) -> StoredSeries:
    """The total of a project changes now."""
    moved = stage.use(one, of(project), (total, 1), released=True)
    moved.changed = int(stage.now)
    return moved


def let_pass(stage: Stage, days: float) -> None:
    """Let days pass. The recorder calls `forget` every six hours."""
    for _ in range(int(days * 4)):
        stage.now += 6 * HOUR
        stage.series_index.forget(stage.now)
    stage.publish()


def test_a_dormant_series_returns_with_its_total(
    one: SourceState,
) -> None:
    """A series that does not change is shown for 14 days. When it changes again, it is shown at once
    with its total.
    """
    stage = Stage(FORGETTING, [one])
    use(stage, one, "quiet", 7)
    let_pass(stage, 13.75)
    assert stage.values(TOKENS, "project_id") == {("quiet",): 7}
    use(stage, one, "other", 1)
    let_pass(stage, 0.5)
    assert stage.values(TOKENS, "project_id") == {("other",): 1}
    assert stage.values(REQUESTS, "project_id") == {("other",): 1}
    use(stage, one, "quiet", 9)
    stage.publish()
    assert stage.values(TOKENS, "project_id") == {("other",): 1, ("quiet",): 9}


def test_dormant_series_take_no_memory(one: SourceState) -> None:
    """However many series became dormant, the index holds only the live ones."""
    stage = Stage(FORGETTING, [one])
    for week in range(10):
        for nth in range(20):
            use(stage, one, f"{week}/{nth}", 5)
        let_pass(stage, 7)
    series_index = stage.series_index
    live = {f"{week}/{nth}" for week in (8, 9) for nth in range(20)}
    assert {key[0] for key in stage.values(TOKENS, "project_id")} == live
    assert len(series_index._placements) == 40
    assert len(series_index._dormant) == 0
    assert series_index.counts() == {TOKENS: (40, 0), REQUESTS: (40, 0)}


def test_a_sum_keeps_its_silent_members(one: SourceState) -> None:
    """A series with several members is live while any of them changes, and all return with one."""
    policy = AttributePolicy(name_wait=0, drop=frozenset({"project_id"}), forget=14 * DAY)
    stage = Stage(policy, [one])
    use(stage, one, "a", 10)
    let_pass(stage, 10)
    use(stage, one, "b", 5)
    let_pass(stage, 10)
    assert stage.total() == 15
    let_pass(stage, 10)
    assert stage.values() == {}
    use(stage, one, "b", 6)
    stage.publish()
    assert stage.total() == 16
    use(stage, one, "a", 11)
    stage.publish()
    assert (stage.total(), stage.total(REQUESTS)) == (17, 2)


def test_a_full_instrument_replaces_the_longest_silent_series(one: SourceState) -> None:
    """At `max_series` a new series takes the place of the one that did not change for longest. If
    all changed lately, it joins the overflow series.
    """
    stage = Stage(
        AttributePolicy(name_wait=0, zero_hold=0, max_series=3, forget=14 * DAY, make_room=7 * DAY),
        [one],
    )
    for days, name in ((0, "a"), (1, "b"), (4, "c")):
        let_pass(stage, days)
        use(stage, one, name, 1)
    use(stage, one, "early", 1)
    assert {member.stored_series for member in stage.overflow_members} == {
        one.series[of("early")].id
    }
    let_pass(stage, 3.25)
    use(stage, one, "d", 1)
    stage.publish()
    assert {key[0] for key in stage.values(TOKENS, "project_id")} == {"b", "c", "d", None}


def test_a_replaced_series_returns_beyond_the_limit(one: SourceState) -> None:
    """A series that made room for others returns as itself, also after a restart: its total would be
    a jump in the overflow series.
    """
    stage = Stage(AttributePolicy(name_wait=0, zero_hold=0, max_series=2, make_room=7 * DAY), [one])
    use(stage, one, "a", 50)
    let_pass(stage, 8)
    use(stage, one, "b", 1)
    use(stage, one, "c", 1)
    stage.publish()
    assert stage.values(TOKENS, "project_id") == {("b",): 1, ("c",): 1}
    stage.start()
    assert stage.values(TOKENS, "project_id") == {("b",): 1, ("c",): 1}
    use(stage, one, "a", 51)
    stage.publish()
    assert stage.values(TOKENS, "project_id") == {("a",): 51, ("b",): 1, ("c",): 1}
    assert stage.overflow_members == []


@pytest.mark.parametrize("drop", [frozenset[str](), frozenset({"project_id"})])
@pytest.mark.parametrize("seed", range(10))
def test_no_series_ever_falls_and_a_restart_shows_the_same(
    one: SourceState, seed: int, drop: frozenset[str]
) -> None:
    """In months of random changes no series falls, and what changed lately is all shown."""
    rng = random.Random(seed)
    stage = Stage(AttributePolicy(name_wait=0, zero_hold=0, drop=drop, forget=14 * DAY), [one])
    highest: dict[object, float] = {}
    totals: dict[str, int] = {}
    for _ in range(120):
        let_pass(stage, rng.choice((0.25, 1, 1, 5)))
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


def test_without_forget_no_series_becomes_dormant(one: SourceState) -> None:
    """With the default policy a series is shown for ever."""
    stage = Stage(QUICK, [one])
    use(stage, one, "a", 1)
    let_pass(stage, 400)
    assert stage.total() == 1
