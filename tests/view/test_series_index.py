"""What a series shows: 0 first, its names, the right sums, and never less than before."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_openai_usage.domain.endpoints import COSTS, USAGE_ENDPOINTS
from otel_openai_usage.domain.model import NO_NAMES, Amounts, Dims, Names
from otel_openai_usage.domain.series_marks import HighWaterMark, OverflowMember
from otel_openai_usage.domain.snapshot import AttributeValue
from otel_openai_usage.domain.source_state import SourceState, StoredSeries
from otel_openai_usage.view.attributes import AttributePolicy
from otel_openai_usage.view.series_index import SeriesIndex
from tests.domain.shelf import MIDNIGHT, source_state

TOKENS = "openai.api.tokens"
REQUESTS = "openai.api.requests"
COMPLETIONS = USAGE_ENDPOINTS["completions"]


@dataclass
class Stage:
    """Calls a SeriesIndex as the recorder does, at a time that the test sets."""

    policy: AttributePolicy = field(default_factory=AttributePolicy)
    source_states: Sequence[SourceState] = ()
    names: Mapping[str, Names] = field(default_factory=dict)
    overflow_members: list[OverflowMember] = field(default_factory=list)
    high_water_marks: list[HighWaterMark] = field(default_factory=list)
    attempted: int | None = None
    now: float = MIDNIGHT
    version: int = 0

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start a process on the same state."""
        self.series_index = SeriesIndex(self.policy, self.overflow_members, self.high_water_marks)
        self.overflow_members += self.series_index.load(self.source_states, self.names, self.now)
        self.publish()

    def publish(self, later: float = 0) -> None:
        """Publish what changed."""
        self.now += later
        self.overflow_members += self.series_index.resume(self.now)
        self.series_index.release(self.series_index.releasable(self.now, self.attempted))
        self.version += 1
        self.points = self.series_index.points(self.now, self.version)

    def use(
        self,
        one: SourceState,
        dims: Dims,
        amounts: Amounts,
        *,
        released: bool = False,
        total: Amounts | None = None,
    ) -> StoredSeries:
        """Apply a reading: `amounts` are the new totals to show."""
        stored_series = one.series.get(dims)
        if stored_series is None:
            id_ = 1000 * one.id + len(one.series)
            stored_series = StoredSeries(
                id_, dims, amounts, amounts, released, int(self.now), int(self.now)
            )
            one.series.add(stored_series)
        stored_series.total = total or amounts
        stored_series.shown = amounts
        self.overflow_members += self.series_index.add(one, stored_series, self.now)
        return stored_series

    def name(self, **projects: str | None) -> None:
        """Apply names of projects."""
        known = self.names.get("default", NO_NAMES)
        self.names = {"default": Names({**known.projects, **projects}, known.api_keys, known.users)}
        members, marks = self.series_index.rename(self.names, self.now)
        self.overflow_members += members
        self.high_water_marks += marks

    def values(
        self, instrument: str = TOKENS, *by: str
    ) -> dict[tuple[AttributeValue | None, ...], int | float]:
        """Return the published values by some attributes. They must tell all series apart."""
        found: dict[tuple[AttributeValue | None, ...], int | float] = {}
        for point in self.points.get(instrument, ()):
            key = tuple(point.series.attributes.get(name) for name in by)
            assert key not in found
            found[key] = point.value
        return found

    def total(self, instrument: str = TOKENS) -> float:
        """Return the sum of the points of an instrument."""
        return sum(point.value for point in self.points.get(instrument, ()))


def of(project: str | None, model: str = "m") -> Dims:
    """Return dimensions of embeddings."""
    return (project, None, None, model)


@pytest.fixture
def one() -> SourceState:
    """A source whose first reading is complete."""
    return source_state()


QUICK = AttributePolicy(name_wait=0, zero_hold=60)


# --- zero first


def test_a_new_series_is_zero_first(one: SourceState) -> None:
    """A series that is new after the first poll is 0 for `zero_hold`. Then it has its value, with
    the usage that came meanwhile.
    """
    stage = Stage(QUICK, [one])
    stage.use(one, of(None), (7, 1))
    stage.publish()
    assert stage.values() == {(): 0}
    stage.use(one, of(None), (9, 1))
    stage.publish(59)
    assert (stage.values(), stage.series_index.waits) == ({(): 0}, True)
    stage.publish(1)
    assert (stage.values(), stage.values(REQUESTS), stage.series_index.waits) == (
        {(): 9},
        {(): 1},
        False,
    )


def test_what_the_first_poll_finds_is_shown_at_once(one: SourceState) -> None:
    """What the first poll finds does not begin at 0: Prometheus would show a spike."""
    stage = Stage(QUICK, [one])
    stage.use(one, of(None), (7, 1), released=True)
    stage.publish()
    assert stage.values() == {(): 7}


def test_zero_waits_for_an_attempt_of_otlp(one: SourceState) -> None:
    """With OTLP a series stays 0 until OTLP tried to send a snapshot that has it, however long that
    takes.
    """
    stage = Stage(QUICK, [one], attempted=0)
    stage.use(one, of(None), (7, 1))
    stage.publish()
    seen = stage.version
    stage.attempted = seen - 1
    stage.publish(3600)
    assert stage.values() == {(): 0}
    stage.attempted = seen
    stage.publish()
    assert stage.values() == {(): 7}


def test_a_restart_does_not_go_back_to_zero(one: SourceState) -> None:
    """After a restart, a series that had its value has it at once. A series that was 0 is 0 for
    `zero_hold` again.
    """
    stage = Stage(QUICK, [one])
    stage.use(one, of("a"), (7, 1))
    stage.publish()
    stage.publish(60)
    stage.use(one, of("b"), (5, 1))
    stage.publish()
    stage.start()
    assert stage.values(TOKENS, "project_id") == {("a",): 7, ("b",): 0}
    stage.publish(60)
    assert stage.values(TOKENS, "project_id") == {("a",): 7, ("b",): 5}


@pytest.mark.parametrize(
    "policy",
    [
        AttributePolicy(name_wait=0, drop=frozenset({"project_id", "project_name"})),
        AttributePolicy(name_wait=0, rename={"model": "gen_ai.response.model"}),
        AttributePolicy(name_wait=0, skip_zero=True),
        AttributePolicy(name_wait=0, max_series=1),
    ],
)
def test_another_policy_does_not_go_back_to_zero(one: SourceState, policy: AttributePolicy) -> None:
    """After a restart with other rules for attributes, every series has its value at once."""
    stage = Stage(QUICK, [one])
    stage.use(one, of("a"), (7, 1))
    stage.use(one, of("b"), (5, 1))
    stage.publish()
    stage.publish(60)
    stage.policy = policy
    stage.start()
    assert stage.total() == 12


def test_a_late_name_does_not_go_back_to_zero(one: SourceState) -> None:
    """A series that gets its name late has its value under the new name."""
    stage = Stage(QUICK, [one])
    stage.use(one, of("a"), (7, 1))
    stage.publish()
    stage.publish(60)
    assert stage.values(TOKENS, "project_name") == {("unknown",): 7}
    stage.name(a="Atlas")
    stage.publish()
    assert stage.values(TOKENS, "project_name") == {("Atlas",): 7}


def test_another_name_does_not_restart_the_hold(one: SourceState) -> None:
    """If the name of another project changes, a new series is not 0 for longer."""
    stage = Stage(QUICK, [one])
    stage.use(one, of("old"), (1, 1), released=True)
    stage.use(one, of(None), (7, 1))
    stage.publish()
    for number in range(6):
        stage.name(old=f"name {number}")
        stage.publish(10)
    assert stage.values(TOKENS, "project_id") == {("old",): 1, (None,): 7}


def test_with_skip_zero_a_late_measure_is_zero_first_too() -> None:
    """With skip_zero, a token type that is first used later begins at 0, although its attribute set
    was shown before.
    """
    one = source_state(COMPLETIONS)
    dims = (None,) * len(COMPLETIONS.dimensions)
    stage = Stage(AttributePolicy(name_wait=0, skip_zero=True), [one])
    stage.use(one, dims, (7, 0, 0, 0, 0, 0, 1), released=True)
    stage.publish()
    assert stage.values(TOKENS, "token_type") == {("input",): 7}
    stage.use(one, dims, (9, 4, 0, 0, 0, 0, 1))
    stage.publish()
    assert stage.values(TOKENS, "token_type") == {("input",): 9, ("output",): 0}
    stage.publish(60)
    assert stage.values(TOKENS, "token_type") == {("input",): 9, ("output",): 4}
    stage.use(one, dims, (9, 5, 2, 0, 0, 0, 1))
    stage.publish()
    assert stage.values(TOKENS, "token_type") == {
        ("input",): 9,
        ("output",): 5,
        ("input_cached",): 0,
    }


def test_without_skip_zero_every_token_type_is_shown(one: SourceState) -> None:
    """A token type that was not used is shown as 0, so that its first use is an increase."""
    full = source_state(COMPLETIONS)
    stage = Stage(QUICK, [full])
    stage.use(full, (None,) * len(COMPLETIONS.dimensions), (7, 0, 0, 0, 0, 0, 1), released=True)
    stage.publish()
    assert sorted(stage.values(TOKENS, "token_type").values()) == [0, 0, 0, 0, 0, 7]


# --- names


def test_a_restart_waits_for_no_name(one: SourceState) -> None:
    """The first scrape after a restart has what the store has, although names are not read yet:
    it was shown before.
    """
    stage = Stage(AttributePolicy(zero_hold=0), [one])
    stage.use(one, of("a"), (7, 1))
    stage.publish(30)
    stage.publish()
    assert one.series[of("a")].released
    stage.start()
    assert stage.values(TOKENS, "project_name") == {("unknown",): 7}


def test_a_new_series_waits_for_its_name(one: SourceState) -> None:
    """A series whose project has no name yet is shown after 30 s, as `unknown`."""
    stage = Stage(AttributePolicy(zero_hold=0), [one])
    stage.use(one, of("a"), (7, 1))
    stage.publish(29)
    assert stage.values() == {}
    stage.publish(1)
    stage.publish()
    assert stage.values(TOKENS, "project_name") == {("unknown",): 7}


@pytest.mark.parametrize(("name", "shown"), [("Atlas", "Atlas"), (None, "unknown")])
def test_a_name_that_comes_ends_the_wait(one: SourceState, name: str | None, shown: str) -> None:
    """The series is shown as soon as its name is read, or OpenAI has none."""
    stage = Stage(AttributePolicy(zero_hold=0), [one])
    stage.use(one, of("a"), (7, 1))
    stage.publish(5)
    stage.name(a=name)
    stage.publish()
    stage.publish()
    assert stage.values(TOKENS, "project_name") == {(shown,): 7}


def test_a_name_that_leaves_a_shared_series_lowers_nothing(one: SourceState) -> None:
    """Without ids, projects with one name share a series. If a project leaves it, the series keeps
    its value, and reports the difference as pending.
    """
    stage = Stage(AttributePolicy(name_wait=0, drop=frozenset({"project_id"})), [one])
    stage.use(one, of("a"), (7, 1), released=True)
    stage.use(one, of("b"), (5, 1), released=True)
    stage.publish()
    assert stage.values(TOKENS, "project_name") == {("unknown",): 12}
    stage.name(a="Atlas")
    stage.publish()
    assert stage.values(TOKENS, "project_name") == {("unknown",): 12, ("Atlas",): 7}
    for _ in range(2):
        assert [pending for _, pending in stage.series_index.restated_pending()[TOKENS]] == [7]
        assert stage.values(TOKENS, "project_name") == {("unknown",): 12, ("Atlas",): 7}
        stage.start()
    stage.use(one, of("b"), (20, 1))
    stage.publish()
    assert stage.values(TOKENS, "project_name") == {("unknown",): 20, ("Atlas",): 7}
    assert TOKENS not in stage.series_index.restated_pending()


USES = st.tuples(st.sampled_from("ab"), st.sampled_from("mn"), st.integers(1, 9))
RENAMES = st.tuples(st.sampled_from("ab"), st.sampled_from(["Atlas", "Borg"]))
EVENTS = st.lists(
    st.tuples(USES | RENAMES, st.sampled_from(["restart", "silence", ""])), max_size=12
)


@pytest.mark.parametrize("drop", [{"project_id"}, {"project_id", "model"}])
@settings(max_examples=200)
@given(EVENTS, st.booleans(), st.sampled_from([2, 100]))
def test_whatever_is_renamed_nothing_falls(
    drop: set[str],
    life: list[tuple[tuple[str, str, int] | tuple[str, str], str]],
    skip: bool,
    most: int,
) -> None:
    """With names but without ids, no series falls: not by names, renames, dormancy, overflow or
    restarts.
    """
    one = source_state()
    highest = dict[tuple[str, object], float]()
    policy = AttributePolicy(
        name_wait=0,
        zero_hold=0,
        drop=frozenset(drop),
        skip_zero=skip,
        forget=14 * 86400,
        max_series=most,
    )
    stage = Stage(policy, [one])
    for event, after in life:
        if len(event) == 3:
            dims = of(*event[:2])
            old = one.series.get(of(*event[:2]))
            stage.use(one, dims, (event[2] + (int(old.shown[0]) if old else 0), 1)).changed = int(
                stage.now
            )
        else:
            stage.name(**{event[0]: event[1]})
        stage.publish()
        stage.publish()
        if after == "restart":
            stage.start()
        elif after == "silence":
            stage.now += 15 * 86400
            stage.series_index.forget(stage.now)
        stage.publish()
        for instrument, points in stage.points.items():
            for point in points:
                key = (instrument, tuple(sorted(point.series.attributes.items())))
                assert point.value >= highest.get(key, 0)
                highest[key] = point.value


@pytest.mark.parametrize("gone", ["renamed", "silent"])
def test_a_cost_that_returns_does_not_begin_with_zero(one: SourceState, gone: str) -> None:
    """An estimated cost that was shown before returns with its value, although its new member has
    its first price now.
    """
    costs = "openai.api.estimated_cost"
    stage = Stage(
        AttributePolicy(name_wait=0, drop=frozenset({"project_id"}), forget=14 * 86400), [one]
    )
    priced = stage.use(one, of("a"), (7, 1), released=True)
    other = stage.use(one, of("b"), (7, 1), released=True)
    priced.estimate = priced.estimate_shown = Decimal(5)
    stage.series_index.add(one, priced, stage.now)
    stage.publish()
    stage.publish(60)
    assert stage.values(costs, "project_name") == {("unknown",): 5}
    if gone == "renamed":
        stage.name(a="Atlas")
    else:
        stage.now += 15 * 86400
        other.changed = int(stage.now)
        stage.series_index.forget(stage.now)
    other.estimate = other.estimate_shown = Decimal(1)
    stage.series_index.add(one, other, stage.now)
    stage.publish()
    assert stage.values(costs, "project_name")["unknown",] == (5 if gone == "renamed" else 6)


def test_a_reused_name_continues_at_its_value(one: SourceState) -> None:
    """A series disappears when no project has its name. It returns with no less than it showed,
    also after a restart.
    """
    stage = Stage(AttributePolicy(name_wait=0, drop=frozenset({"project_id"})), [one])
    stage.name(a="Atlas", b="Borg")
    stage.use(one, of("a"), (7, 1), released=True)
    stage.publish()
    stage.name(a="Old Atlas")
    stage.publish()
    assert stage.values(TOKENS, "project_name") == {("Old Atlas",): 7}
    stage.start()
    stage.name(b="Atlas")
    stage.use(one, of("b"), (2, 1))
    stage.publish()
    assert stage.values(TOKENS, "project_name") == {("Old Atlas",): 7, ("Atlas",): 7}
    assert [pending for _, pending in stage.series_index.restated_pending()[TOKENS]] == [5]
    stage.use(one, of("b"), (9, 1))
    stage.publish()
    assert stage.values(TOKENS, "project_name") == {("Old Atlas",): 7, ("Atlas",): 9}


def test_a_rename_may_make_a_zero_first_series_dormant(one: SourceState) -> None:
    """If a rename finds that a series, which is 0 first, did not change for too long, the series
    becomes dormant and publishing continues.
    """
    policy = AttributePolicy(name_wait=0, drop=frozenset({"project_id"}), forget=14 * 86400)
    stage = Stage(policy, [one])
    stage.use(one, of("a"), (7, 1))
    stage.use(one, of("b"), (5, 1))
    stage.publish()
    stage.now += 15 * 86400
    stage.use(one, of("b"), (6, 1)).changed = int(stage.now)
    stage.name(b="Borg")
    stage.publish()
    stage.publish(60)
    assert stage.values(TOKENS, "project_name") == {("Borg",): 6}
    assert not stage.series_index.waits


def test_with_ids_a_rename_marks_nothing(one: SourceState) -> None:
    """With ids, a rename takes no member from a series, so the store remembers nothing."""
    stage = Stage(QUICK, [one])
    stage.use(one, of("a"), (7, 1), released=True)
    stage.publish()
    stage.name(a="Atlas")
    stage.publish()
    assert stage.high_water_marks == []


# --- adding up


STORED_SERIES = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", None]),
        st.sampled_from(["m", "n", "o"]),
        st.integers(0, 100),
        st.integers(0, 9),
    ),
    max_size=12,
)
ATTRIBUTES = [
    "project_id",
    "project_name",
    "user_id",
    "api_key_id",
    "api_key_name",
    "model",
    "batch",
    "organization",
]


@given(
    STORED_SERIES,
    st.sets(st.sampled_from(ATTRIBUTES)),
    st.integers(1, 8),
    st.booleans(),
    st.lists(st.sampled_from("abc"), max_size=4),
)
def test_no_policy_changes_the_sum(
    stored_series_list: list[tuple[str | None, str, int, int]],
    drop: set[str],
    most: int,
    skip_zero: bool,
    named: list[str],
) -> None:
    """The sum of all series is the sum of all stored series, whatever is dropped, renamed, omitted
    or in the overflow series, also after a restart.
    """
    first = source_state()
    second = source_state(id_=2, organization="other")
    stage = Stage(
        AttributePolicy(
            name_wait=0, zero_hold=0, drop=frozenset(drop), max_series=most, skip_zero=skip_zero
        ),
        [first, second],
    )
    before: dict[int, float] = {}
    for number, (project, model, tokens, requests) in enumerate(stored_series_list):
        one = (first, second)[number % 2]
        old = one.series.get(of(project, model))
        used = (
            (tokens, requests) if old is None else (old.shown[0] + tokens, old.shown[1] + requests)
        )
        stage.use(one, of(project, model), used)
        if named and number % 3 == 2:
            stage.name(**{named.pop(): "Atlas"})
        stage.publish()
        stage.publish()
        before = {id(point.series): point.value for point in stage.points.get(TOKENS, ())}
    for _ in range(2):
        stage.publish()
        every = [
            stored_series for one in stage.source_states for stored_series in one.series.values()
        ]
        assert stage.total() - pending(stage, TOKENS) == sum(
            stored_series.total[0] for stored_series in every
        )
        assert stage.total(REQUESTS) - pending(stage, REQUESTS) == sum(
            stored_series.total[1] for stored_series in every
        )
        assert (
            len(stage.points.get(TOKENS, ())) <= most + 2
        )  # one overflow series for each organization
        stage.start()
        stage.publish()
    assert len(before) <= most + 2


def pending(stage: Stage, instrument: str) -> float:
    """Return how much more is shown than OpenAI reports."""
    return sum(amount for _, amount in stage.series_index.restated_pending().get(instrument, ()))


def test_dropping_adds_up(one: SourceState) -> None:
    """A series without an attribute adds up the series with it. A new member makes it grow at
    once.
    """
    stage = Stage(
        AttributePolicy(name_wait=0, drop=frozenset({"project_id", "project_name"})), [one]
    )
    stage.use(one, of("a"), (7, 1), released=True)
    stage.publish()
    stage.use(one, of("b"), (5, 1))
    stage.publish()
    assert stage.values() == {(): 12}


def test_first_come_stay(one: SourceState) -> None:
    """Beyond `max_series`, later series share one with organization, operation and token type. They
    stay there for good, also with a higher limit.
    """
    stage = Stage(AttributePolicy(name_wait=0, zero_hold=0, max_series=2), [one])
    for number, project in enumerate("abcd"):
        stage.use(one, of(project), (10**number, 1))
    stage.publish()
    stage.publish()
    assert stage.values(TOKENS, "project_id") == {("a",): 1, ("b",): 10, (None,): 1100}
    overflow = next(
        point.series.attributes
        for point in stage.points[TOKENS]
        if "project_id" not in point.series.attributes
    )
    assert overflow == {
        "organization": "default",
        "operation": "embeddings",
        "token_type": "input",
        "otel.metric.overflow": True,
    }
    stage.policy = AttributePolicy(name_wait=0, zero_hold=0, max_series=100)
    stage.start()
    assert stage.values(TOKENS, "project_id") == {("a",): 1, ("b",): 10, (None,): 1100}
    assert stage.series_index.counts()[TOKENS] == (3, 2)


@pytest.mark.parametrize("most", [6, 8, 11])
def test_a_stored_series_overflows_as_a_whole(most: int) -> None:
    """If the limit is in the middle of an attribute set, all its token types overflow, and a restart
    shows the same series.
    """
    full = source_state(COMPLETIONS)
    stage = Stage(AttributePolicy(name_wait=0, zero_hold=0, max_series=most), [full])
    for number, model in enumerate("abc"):
        stage.use(
            full,
            (None, None, None, model, None, None, None),
            (10**number,) * 6 + (1,),
            released=True,
        )
    stage.publish()
    before = stage.values(TOKENS, "model", "token_type")
    assert {model for model, _ in before} == {"a", None}
    stage.start()
    assert stage.values(TOKENS, "model", "token_type") == before


def test_a_series_that_waits_takes_no_place(one: SourceState) -> None:
    """A series that waits for its name while the limit is reached does not take the place of one
    that is shown.
    """
    stage = Stage(AttributePolicy(zero_hold=0, max_series=1), [one])
    stage.name(there="Here")
    stage.use(one, of("late"), (7, 1))
    stage.use(one, of("there"), (5, 1), released=True)
    stage.publish()
    assert stage.values(TOKENS, "project_id") == {("there",): 5}
    stage.name(late="Atlas", there="There")
    stage.publish()
    stage.publish()
    assert stage.values(TOKENS, "project_name") == {("There",): 5, (None,): 7}


# --- what OpenAI takes back


def test_what_openai_takes_back_is_pending(one: SourceState) -> None:
    """If a total falls, the counter stays. The difference is reported with the series' attributes
    until new usage exceeds it.
    """
    stage = Stage(QUICK, [one])
    stage.use(one, of(None), (9, 2), released=True, total=(6, 2))
    stage.publish()
    assert stage.values() == {(): 9}
    attributes = {
        "organization": "default",
        "operation": "embeddings",
        "model": "m",
        "token_type": "input",
    }
    assert stage.series_index.restated_pending() == {TOKENS: [(attributes, 3)]}
    stage.use(one, of(None), (12, 2))
    stage.publish()
    assert (stage.values(), stage.series_index.restated_pending()) == ({(): 12}, {})


# --- start times and types


def test_every_counter_carries_the_time_its_counting_began() -> None:
    """Every point of a source starts at the source's epoch, in nanoseconds, in every process."""
    early = source_state(epoch=MIDNIGHT)
    late = source_state(epoch=MIDNIGHT + 77 * 60, id_=2, organization="other")
    stage = Stage(QUICK, [early, late])
    for one in (early, late):
        stage.use(one, of(None), (7, 1), released=True)
    for _ in range(2):
        stage.publish()
        starts = {
            point.series.attributes["organization"]: point.series.start
            for points in stage.points.values()
            for point in points
        }
        assert starts == {"default": MIDNIGHT * 10**9, "other": (MIDNIGHT + 77 * 60) * 10**9}
        stage.start()


def test_a_series_never_changes_its_type() -> None:
    """A count is an int and money is a float, at 0 and above."""
    counts = source_state()
    money = source_state(COSTS, id_=2)
    stage = Stage(AttributePolicy(name_wait=0, zero_hold=10), [counts, money])
    stage.use(counts, of(None), (7, 1))
    stage.use(money, (None, "item", None, None, None, "usd"), (3, 1))
    for _ in range(2):
        stage.publish(10)
        assert {type(point.value) for point in stage.points[TOKENS]} == {int}
        assert {type(point.value) for point in stage.points["openai.api.cost"]} == {float}


def test_what_did_not_change_is_the_same_object(one: SourceState) -> None:
    """A list of points, and a series, that did not change is the same object in the next snapshot."""
    other = source_state(COSTS, id_=2)
    stage = Stage(QUICK, [one, other])
    stage.use(one, of(None), (7, 1), released=True)
    stage.use(other, (None, "item", None, None, None, "usd"), (3, 1), released=True)
    stage.publish()
    before = stage.points
    stage.use(one, of(None), (8, 1))
    stage.publish()
    assert stage.points["openai.api.cost"] is before["openai.api.cost"]
    assert identities(stage.points[TOKENS]) == identities(before[TOKENS])


def identities(points: Iterable[object]) -> list[int]:
    """Return the identity of each point's series."""
    return [id(getattr(point, "series", None)) for point in points]


def test_a_renamed_series_says_that_it_continues() -> None:
    """After a rename the series has the total of another, now and after a restart; one that comes
    later does not.
    """
    stage = Stage(AttributePolicy(name_wait=0, token_types=frozenset({"input"})))
    one = source_state(COMPLETIONS)
    stage.source_states = [one]
    stage.start()
    project = COMPLETIONS.dimensions.index("project_id")
    dims = tuple("p" if place == project else None for place in range(len(COMPLETIONS.dimensions)))
    stage.use(one, dims, (5, *COMPLETIONS.zero[1:]), released=True)
    stage.publish()
    stage.name(p="Search")
    stage.use(one, COMPLETIONS.dimensions, (6, *COMPLETIONS.zero[1:]), released=True)
    stage.publish()

    def continuing() -> list[bool]:
        return [point.series.continues for point in stage.points[TOKENS]]

    assert continuing() == [True, False]
    ids = stage.series_index.continued
    stage.series_index = SeriesIndex(stage.policy)
    stage.series_index.continued = ids
    stage.series_index.load(stage.source_states, stage.names, stage.now)
    stage.publish()
    assert continuing() == [True, False]


# --- which measures have series


def test_the_configuration_chooses_the_token_types() -> None:
    """Each chosen token type has a series, and no other; requests always have one."""
    chosen = frozenset({"output", "input_image", "input_cache_write_12h"})
    state = source_state(COMPLETIONS)
    stage = Stage(AttributePolicy(name_wait=0, token_types=chosen), [state])
    dims: Dims = ("p", None, None, "m", None, None, None)
    amounts = tuple(range(1, 1 + len(COMPLETIONS.measures)))
    stage.use(state, dims, amounts, released=True)
    stage.publish()
    names = [measure.name for measure in COMPLETIONS.measures]
    expected = {(name,): amounts[names.index(name)] for name in chosen}
    assert stage.values(TOKENS, "token_type") == expected
    assert stage.total(REQUESTS) == amounts[names.index("requests")]


def test_a_number_that_came_with_an_upgrade_has_its_own_start(one: SourceState) -> None:
    """Before it counts it has no series, not even one of 0; then it is 0 first, and its start time
    is that midnight.
    """
    midnight = MIDNIGHT + 86_400
    one.counted_from = {0: midnight}
    stage = Stage(QUICK, [one])
    stage.use(one, of("p"), (0, 4), released=False)
    stage.publish()
    stage.publish(60)
    assert (stage.values(), stage.total(REQUESTS)) == ({}, 4)
    stage.now = midnight + 300
    stage.use(one, of("p"), (7, 5))
    stage.publish()
    assert stage.values() == {(): 0}
    stage.publish(60)
    assert stage.values() == {(): 7}
    (tokens,) = stage.points[TOKENS]
    (requests,) = stage.points[REQUESTS]
    assert tokens.series.start == midnight * 1_000_000_000
    assert requests.series.start == one.progress.epoch * 1_000_000_000
    stage.start()
    assert stage.values() == {(): 7}
