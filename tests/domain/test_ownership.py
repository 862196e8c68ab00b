"""A model of the ownership protocol: replicas that freeze, die, start and lose the database, each
with a clock of its own.
"""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from otel_openai_usage.domain import ownership
from otel_openai_usage.domain.ownership import Beat, Lease, Observer, Plan, plan, valid_until

SECONDS = 10.0
SCOPES = ("a", "b", "c", "d", "e")


@dataclass
class Database:
    """The rows. Each method is one transaction."""

    leases: dict[str, Lease] = field(
        default_factory=lambda: {scope: Lease(scope, "", 0, 0) for scope in SCOPES}
    )
    beats: dict[str, int] = field(default_factory=dict)

    def renew(self, replica: str, tokens: dict[str, int]) -> set[str]:
        self.beats[replica] = self.beats.get(replica, 0) + 1
        renewed = set()
        for scope, token in tokens.items():
            row = self.leases[scope]
            if row.owner == replica and row.token == token:
                self.leases[scope] = Lease(scope, replica, token, row.renewals + 1)
                renewed.add(scope)
        return renewed

    def claim(self, replica: str, seen: Lease) -> int | None:
        if self.leases[seen.scope] != seen:
            return None
        self.leases[seen.scope] = Lease(seen.scope, replica, seen.token + 1, 0)
        return seen.token + 1

    def release(self, replica: str, scope: str, token: int) -> None:
        row = self.leases[scope]
        if row.owner == replica and row.token == token:
            self.leases[scope] = Lease(scope, "", token, row.renewals)

    def commits(self, scope: str, token: int) -> bool:
        return self.leases[scope].token == token


@dataclass
class Replica:
    """A replica as `engine.ownership` drives it. Its clock has an offset and a rate of its own."""

    name: str
    database: Database
    offset: float
    rate: float
    tokens: dict[str, int] = field(default_factory=dict)
    valid: dict[str, float] = field(default_factory=dict)
    observer: Observer = field(default_factory=lambda: Observer(SECONDS))
    frozen: bool = False
    cut_off: bool = False

    def clock(self, now: float) -> float:
        return self.offset + now * self.rate

    def step(self, now: float) -> None:
        if self.frozen or self.cut_off:
            return
        clock = self.clock(now)
        renewed = self.database.renew(self.name, self.tokens)
        for scope in list(self.tokens):
            if scope in renewed:
                self.valid[scope] = valid_until(clock, SECONDS)
            else:
                self.drop(scope)
        beats = [Beat(name, count) for name, count in self.database.beats.items()]
        leases = list(self.database.leases.values())
        self.observer.saw(leases, beats, clock)
        todo = plan(self.name, SCOPES, leases, self.observer, clock)
        for scope in todo.release:
            if scope in self.tokens:
                given_up = self.tokens[scope]
                self.drop(scope)
                self.database.release(self.name, scope, given_up)
        for lease in todo.claim:
            token = self.database.claim(self.name, lease)
            if token is not None:
                self.tokens[lease.scope] = token
                self.valid[lease.scope] = valid_until(clock, SECONDS)

    def drop(self, scope: str) -> None:
        self.tokens.pop(scope)
        self.valid.pop(scope)

    def shows(self, now: float) -> set[str]:
        """What an answer that leaves now may contain. A frozen replica answers nothing."""
        clock = self.clock(now)
        if self.frozen or any(until <= clock for until in self.valid.values()):
            return set()
        return set(self.tokens)


class Cluster(RuleBasedStateMachine):
    """Up to four replicas."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.database = Database()
        self.replicas: list[Replica] = []
        self.started = 0
        self.tokens = dict.fromkeys(SCOPES, 0)

    @initialize()
    def first(self) -> None:
        self.start(0.0, 1.0)

    @rule(offset=st.floats(0, 1e6), rate=st.floats(0.99, 1.01))
    def start(self, offset: float, rate: float) -> None:
        if len(self.replicas) < 4:
            self.started += 1
            self.replicas.append(Replica(f"r{self.started}", self.database, offset, rate))

    @rule(which=st.integers(0, 3))
    def kill(self, which: int) -> None:
        if which < len(self.replicas):
            del self.replicas[which]

    @rule(which=st.integers(0, 3), frozen=st.booleans(), cut_off=st.booleans())
    def disturb(self, which: int, frozen: bool, cut_off: bool) -> None:
        if which < len(self.replicas):
            self.replicas[which].frozen = frozen
            self.replicas[which].cut_off = cut_off

    @rule(steps=st.integers(1, 25), seconds=st.floats(0.2, 1.0), order=st.permutations(range(4)))
    def go_on(self, steps: int, seconds: float, order: list[int]) -> None:
        for _ in range(steps):
            self.now += seconds
            for which in order:
                if which < len(self.replicas):
                    self.replicas[which].step(self.now)
                    self.nobody_shows_what_another_shows()

    @rule(seconds=st.floats(0.1, 30.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(which=st.integers(0, 3))
    def step_one(self, which: int) -> None:
        if which < len(self.replicas):
            self.replicas[which].step(self.now)

    @invariant()
    def nobody_shows_what_another_shows(self) -> None:
        """At no instant do two replicas show one scope."""
        shown = [scope for replica in self.replicas for scope in replica.shows(self.now)]
        assert len(shown) == len(set(shown))

    @invariant()
    def one_writer_for_each_token(self) -> None:
        """Only one replica's commits are taken, and tokens only grow."""
        for scope in SCOPES:
            writers = [
                replica.name
                for replica in self.replicas
                if scope in replica.tokens and self.database.commits(scope, replica.tokens[scope])
            ]
            assert len(writers) <= 1
            token = self.database.leases[scope].token
            assert token >= self.tokens[scope]
            self.tokens[scope] = token

    def teardown(self) -> None:
        """Once nothing disturbs the replicas any more, all scopes are owned, and evenly."""
        if not self.replicas:
            return
        for replica in self.replicas:
            replica.frozen = False
            replica.cut_off = False
        for _ in range(80):
            self.now += 1.0
            for replica in self.replicas:
                replica.step(self.now)
        counts = [len(replica.shows(self.now)) for replica in self.replicas]
        assert sum(counts) == len(SCOPES)
        assert max(counts) - min(counts) <= 1


Cluster.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestCluster = Cluster.TestCase
TestCluster.__doc__ = "The protocol keeps its invariants whatever happens to replicas and clocks."


def test_a_silent_owner_is_replaced_only_after_a_whole_lease_of_ones_own_clock() -> None:
    """The row must be seen unchanged for the length of the lease; a renewal begins it anew."""
    observer = Observer(SECONDS)
    row = Lease("a", "other", 3, 7)
    observer.saw([row], [], 100.0)
    assert plan("me", ["a"], [row], observer, 109.9) == Plan()
    assert plan("me", ["a"], [row], observer, 110.0) == Plan(claim=(row,))
    renewed = Lease("a", "other", 3, 8)
    observer.saw([renewed], [], 110.0)
    assert plan("me", ["a"], [renewed], observer, 119.0) == Plan()


def test_a_released_scope_is_taken_at_once() -> None:
    """A row without an owner needs no waiting."""
    free = Lease("a", "", 4, 0)
    assert plan("me", ["a"], [free], Observer(SECONDS), 0.0) == Plan(claim=(free,))


@pytest.mark.parametrize(
    ("owned", "total", "expected"),
    [
        ({"x": 4, "y": 0}, 4, {"x": 2, "y": 2}),
        ({"x": 2, "y": 2, "z": 0}, 4, {"x": 2, "y": 1, "z": 1}),
        ({"x": 1, "y": 0, "z": 0}, 1, {"x": 1, "y": 0, "z": 0}),
        ({"x": 0, "y": 0}, 5, {"x": 3, "y": 2}),
    ],
)
def test_shares_are_even_and_move_as_little_as_possible(
    owned: dict[str, int], total: int, expected: dict[str, int]
) -> None:
    """Shares differ by one at most, and a replica that has more keeps the odd one."""
    assert ownership._shares(owned, total) == expected


def test_a_scope_that_nobody_takes_is_taken_beyond_the_fair_share() -> None:
    """If another replica lives but does not take its share, the scope is not left alone for ever."""
    observer = Observer(SECONDS)
    free = Lease("a", "", 1, 0)
    mine = Lease("b", "me", 1, 0)
    observer.saw([free, mine], [Beat("me", 1), Beat("other", 1)], 0.0)
    assert plan("me", ["a", "b"], [free, mine], observer, 5.0) == Plan()
    observer.saw([free, mine], [Beat("me", 2), Beat("other", 2)], 30.0)
    assert plan("me", ["a", "b"], [free, mine], observer, 30.0) == Plan(claim=(free,))
