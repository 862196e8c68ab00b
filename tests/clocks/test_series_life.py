"""The waits in the life of a series, while the clock steps."""

from decimal import Decimal

import pytest

from otel_openai_usage.domain.endpoints import USAGE_ENDPOINTS
from otel_openai_usage.domain.model import Dims, Names
from otel_openai_usage.domain.source_state import SourceState, StoredSeries
from otel_openai_usage.view.attributes import AttributePolicy
from otel_openai_usage.view.series_index import SeriesIndex
from tests.domain.shelf import MIDNIGHT, source_state

TOKENS = "openai.api.tokens"
DAY = 86400
EMBEDDINGS = USAGE_ENDPOINTS["embeddings"]


class Stage:
    """Calls a SeriesIndex as the recorder does. `now` may step, `mono` never steps."""

    def __init__(self, policy: AttributePolicy) -> None:
        self.policy = policy
        self.source_state: SourceState = source_state()
        self.now = float(MIDNIGHT)
        self.mono = 0.0
        self.version = 0
        self.names: dict[str, Names] = {}
        self.start()

    def start(self) -> None:
        """Start a process on the same state."""
        self.series_index = SeriesIndex(self.policy)
        self.series_index.load([self.source_state], self.names, self.now, self.mono)
        self.publish()

    def use(self, dims: Dims, tokens: int) -> StoredSeries:
        """Apply a reading: the total tokens of an attribute set."""
        stored_series = self.source_state.series.get(dims)
        if stored_series is None:
            stored_series = StoredSeries(
                len(self.source_state.series) + 1, dims, (0, 0), (0, 0), False, MIDNIGHT, MIDNIGHT
            )
            self.source_state.series.add(stored_series)
        stored_series.total = stored_series.shown = (tokens, 1)
        self.series_index.add(self.source_state, stored_series, self.now, self.mono)
        return stored_series

    def publish(self, later: float = 0) -> None:
        """Publish what changed."""
        self.mono += later
        self.now += later
        self.series_index.resume(self.now, self.mono)
        self.series_index.release(self.series_index.releasable(self.mono, None))
        self.version += 1
        self.points = self.series_index.points(self.mono, self.version)

    def values(self, label: str, instrument: str = TOKENS) -> dict[object, float]:
        return {
            point.series.attributes.get(label): point.value
            for point in self.points.get(instrument, ())
        }


def user(name: str) -> Dims:
    """Return the dimensions of a user of one project and model."""
    return ("p", name, None, "m")


def test_a_series_that_joins_a_sum_late_is_zero_for_the_whole_hold() -> None:
    """A series is 0 for `zero_hold`, also if its sum was 0 for nearly as long before."""
    stage = Stage(AttributePolicy(name_wait=0, zero_hold=60))
    first = stage.use(user("a"), 5)
    first.estimate = first.estimate_shown = Decimal(5)
    stage.series_index.add(stage.source_state, first, stage.now, stage.mono)
    stage.publish()
    stage.publish(55)
    second = stage.use(user("b"), 7)
    second.estimate = second.estimate_shown = Decimal(7)
    stage.series_index.add(stage.source_state, second, stage.now, stage.mono)
    stage.publish()
    stage.publish(6)
    stage.publish()
    assert stage.values("user_id") == {"a": 5, "b": 0}
    assert stage.values("model", "openai.api.estimated_cost") == {"m": 12}
    stage.publish(50)
    assert stage.values("user_id") == {"a": 5, "b": 0}
    stage.publish(5)
    assert stage.values("user_id") == {"a": 5, "b": 7}


@pytest.mark.parametrize("step", [-20 * DAY, -3600, 3600, 20 * DAY])
def test_the_wait_for_a_name_is_thirty_seconds_whatever_the_clock_does(step: float) -> None:
    """If the clock steps while a series waits, it is shown after 30 s, not earlier or later."""
    stage = Stage(AttributePolicy(zero_hold=0))
    stage.use(user("a"), 5)
    stage.publish(10)
    stage.now += step
    stage.publish(19)
    assert stage.values("user_id") == {}
    stage.publish(1)
    assert stage.values("user_id").keys() == {"a"}


def test_other_names_do_not_restart_the_wait() -> None:
    """Other names do not make a series wait longer, and hide none that is shown."""
    stage = Stage(AttributePolicy(zero_hold=0))
    stage.use(user("a"), 5)
    other = Names({"q": "Other"}, {}, {})
    for nth in range(3):
        stage.publish(10)
        stage.names = {"default": Names({"q": f"Other {nth}"}, {}, {})}
        stage.series_index.rename(stage.names, stage.now, stage.mono)
        stage.publish()
    assert stage.values("project_name").keys() == {"unknown"}
    stage.use(("q", None, None, "m"), 3)
    stage.publish()
    stage.publish()
    stage.series_index.rename({"default": other}, stage.now, stage.mono)
    stage.publish()
    assert stage.values("project_name") == {"unknown": 5, "Other": 3}


@pytest.mark.parametrize("drop", [frozenset[str](), frozenset({"user_id"})])
def test_no_series_goes_back_to_zero(drop: frozenset[str]) -> None:
    """A series keeps its value in a restart, a late name, a rename and a return from dormancy."""
    stage = Stage(AttributePolicy(zero_hold=60, drop=drop, forget=14 * DAY))
    stage.use(user("a"), 5)
    stage.publish(30)
    stage.publish(60)
    assert set(stage.values("project_name").values()) == {5}
    for name in ("Late", "Renamed"):
        stage.names = {"default": Names({"p": name}, {}, {})}
        stage.series_index.rename(stage.names, stage.now, stage.mono)
        stage.publish()
        assert stage.values("project_name") == {name: 5}
        stage.start()
        assert stage.values("project_name") == {name: 5}
    stage.publish(15 * DAY)
    stage.series_index.forget(stage.now)
    stage.publish()
    assert stage.values("project_name") == {}
    stored_series = stage.use(user("a"), 6)
    stored_series.changed = int(stage.now)
    stage.publish()
    assert stage.values("project_name") == {"Renamed": 6}
