"""The life of a series: waits for its name, is 0 first for the whole hold, and never goes back."""

import pytest

from otel_openai_usage.core.book import Book, Leaf
from otel_openai_usage.core.kinds import USAGE_KINDS
from otel_openai_usage.core.model import Dims, Names
from otel_openai_usage.core.shape import Look, Shape
from tests.core.shelf import MIDNIGHT, book

TOKENS = "openai.api.tokens"
DAY = 86400
EMBEDDINGS = USAGE_KINDS["embeddings"]


class Stage:
    """Does with a Shape what the keeper does. `now` may step; `mono` only passes."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self.book: Book = book()
        self.now = float(MIDNIGHT)
        self.mono = 0.0
        self.version = 0
        self.names: dict[str, Names] = {}
        self.start()

    def start(self) -> None:
        """A process begins on the same state."""
        self.shape = Shape(self.look)
        self.shape.load([self.book], self.names, self.now, self.mono)
        self.publish()

    def use(self, dims: Dims, tokens: int) -> Leaf:
        """So many tokens of an attribute set, all in all."""
        leaf = self.book.leaves.get(dims)
        if leaf is None:
            leaf = Leaf(len(self.book.leaves) + 1, dims, (0, 0), (0, 0), False, MIDNIGHT, MIDNIGHT)
            self.book.leaves[dims] = self.book.by_id[leaf.id] = leaf
        leaf.total = leaf.shown = (tokens, 1)
        self.shape.add(self.book, leaf, self.now, self.mono)
        return leaf

    def publish(self, later: float = 0) -> None:
        """Show what is to be shown."""
        self.mono += later
        self.now += later
        self.shape.resume(self.now, self.mono)
        self.shape.released(self.shape.due(self.mono, None))
        self.version += 1
        self.points = self.shape.points(self.mono, self.version)

    def values(self, label: str, instrument: str = TOKENS) -> dict[object, float]:
        return {
            point.series.attributes.get(label): point.value
            for point in self.points.get(instrument, ())
        }


def user(name: str) -> Dims:
    """One user of one project and model."""
    return ("p", name, None, "m")


def test_who_joins_a_sum_late_is_zero_for_the_whole_hold() -> None:
    """A series that joins a sum shortly before that sum's hold is over has its own hold."""
    stage = Stage(Look(name_wait=0, zero_hold=60))
    first = stage.use(user("a"), 5)
    from decimal import Decimal

    first.estimate = first.estimate_shown = Decimal(5)
    stage.shape.add(stage.book, first, stage.now, stage.mono)
    stage.publish()
    stage.publish(55)
    second = stage.use(user("b"), 7)
    second.estimate = second.estimate_shown = Decimal(7)
    stage.shape.add(stage.book, second, stage.now, stage.mono)
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
    """The clock steps while a series waits: it is shown after 30 s, neither earlier nor later."""
    stage = Stage(Look(zero_hold=0))
    stage.use(user("a"), 5)
    stage.publish(10)
    stage.now += step
    stage.publish(19)
    assert stage.values("user_id") == {}
    stage.publish(1)
    assert stage.values("user_id").keys() == {"a"}


def test_names_that_are_read_meanwhile_do_not_begin_the_wait_anew() -> None:
    """Reading other names does not make a series wait longer, nor hide one that is shown."""
    stage = Stage(Look(zero_hold=0))
    stage.use(user("a"), 5)
    other = Names({"q": "Other"}, {}, {})
    for nth in range(3):
        stage.publish(10)
        stage.names = {"default": Names({"q": f"Other {nth}"}, {}, {})}
        stage.shape.renamed(stage.names, stage.now, stage.mono)
        stage.publish()
    assert stage.values("project_name").keys() == {"unknown"}
    stage.use(("q", None, None, "m"), 3)
    stage.publish()
    stage.publish()
    stage.shape.renamed({"default": other}, stage.now, stage.mono)
    stage.publish()
    assert stage.values("project_name") == {"unknown": 5, "Other": 3}


@pytest.mark.parametrize("drop", [frozenset[str](), frozenset({"user_id"})])
def test_nothing_sends_a_series_back_to_zero(drop: frozenset[str]) -> None:
    """A restart, a late name, a rename, and a return after silence: the value stays."""
    stage = Stage(Look(zero_hold=60, drop=drop, forget=14 * DAY))
    stage.use(user("a"), 5)
    stage.publish(30)
    stage.publish(60)
    assert set(stage.values("project_name").values()) == {5}
    for name in ("Late", "Renamed"):
        stage.names = {"default": Names({"p": name}, {}, {})}
        stage.shape.renamed(stage.names, stage.now, stage.mono)
        stage.publish()
        assert stage.values("project_name") == {name: 5}
        stage.start()
        assert stage.values("project_name") == {name: 5}
    stage.publish(15 * DAY)
    stage.shape.forget(stage.now)
    stage.publish()
    assert stage.values("project_name") == {}
    leaf = stage.use(user("a"), 6)
    leaf.changed = int(stage.now)
    stage.publish()
    assert stage.values("project_name") == {"Renamed": 6}
