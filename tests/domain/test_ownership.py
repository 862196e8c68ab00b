"""A model of the ownership protocol: replicas that freeze, die, start and lose the database, each
with a clock of its own.
"""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from otel_openai_usage.domain import ownership
from otel_openai_usage.domain.ownership import Beat, Claim, Lease, Observer, Plan, plan, valid_until

SECONDS = 10.0
SCOPES = ("a", "b", "c", "d", "e")


@dataclass
class Database:
    """The rows. Each method is one transaction."""

    leases: dict[str, Lease] = field(
        default_factory=lambda: {scope: Lease(scope, "", 0) for scope in SCOPES}
    )
    beats: dict[str, int] = field(default_factory=dict)

    def beat(self, replica: str) -> bool:
        if replica not in self.beats:
            return False
        self.beats[replica] += 1
        return True

    def claim(self, replica: str, claim: Claim) -> int | None:
        dead = claim.dead
        if dead is not None and self.beats.get(dead.replica, dead.beats) != dead.beats:
            return None
        seen = claim.lease
        if replica not in self.beats or self.leases[seen.scope] != seen:
            return None
        if dead is not None:
            self.beats.pop(dead.replica, None)
        self.leases[seen.scope] = Lease(seen.scope, replica, seen.token + 1)
        return seen.token + 1

    def release(self, replica: str, scope: str, token: int) -> None:
        if self.leases[scope] == Lease(scope, replica, token):
            self.leases[scope] = Lease(scope, "", token)

    def commits(self, scope: str, token: int) -> bool:
        return self.leases[scope].token == token


@dataclass
class Replica:
    """A replica as `engine.ownership` drives it. Its clock has an offset and a rate of its own."""

    host: str
    database: Database
    offset: float
    rate: float
    lives: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    valid: float = 0.0
    observer: Observer = field(default_factory=lambda: Observer(SECONDS))
    frozen: bool = False
    cut_off: bool = False

    @property
    def name(self) -> str:
        return f"{self.host}.{self.lives}"

    def clock(self, now: float) -> float:
        return self.offset + now * self.rate

    def step(self, now: float) -> None:
        if self.frozen or self.cut_off:
            return
        clock = self.clock(now)
        if not self.database.beat(self.name):
            # Somebody declared it dead, or it is new: it begins another life.
            self.tokens.clear()
            self.lives += 1
            self.database.beats[self.name] = 0
        self.valid = valid_until(clock, SECONDS)
        beats = [Beat(name, count) for name, count in self.database.beats.items()]
        leases = list(self.database.leases.values())
        self.observer.saw(leases, beats, clock)
        for scope, token in list(self.tokens.items()):
            if self.database.leases[scope] != Lease(scope, self.name, token):
                del self.tokens[scope]
        todo = plan(self.name, SCOPES, leases, self.observer, clock)
        for scope in todo.release:
            if scope in self.tokens:
                self.database.release(self.name, scope, self.tokens.pop(scope))
        for claim in todo.claim:
            taken = self.database.claim(self.name, claim)
            if taken is not None:
                self.tokens[claim.lease.scope] = taken

    def shows(self, now: float) -> set[str]:
        """What an answer that leaves now may contain. A frozen replica answers nothing."""
        if self.frozen or self.valid <= self.clock(now):
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


@pytest.mark.parametrize("seed", range(25))
def test_long_random_lives_keep_the_invariants(seed: int) -> None:
    """As the machine above, with long disturbances: three replicas are frozen or cut off for up to
    three leases while the others go on.
    """
    chance = random.Random(seed)
    cluster = Cluster()
    for _ in range(3):
        cluster.start(chance.uniform(0, 1e6), chance.uniform(0.99, 1.01))
    for _ in range(60):
        which = chance.randrange(3)
        if chance.random() < 0.15:
            cluster.kill(which)
            cluster.start(chance.uniform(0, 1e6), chance.uniform(0.99, 1.01))
        state = chance.choice(("frozen", "cut_off", "well", "well"))
        cluster.disturb(which, state == "frozen", state == "cut_off")
        order = chance.sample(range(4), 4)
        cluster.go_on(chance.randrange(1, 60), chance.uniform(0.2, 1.0), order)
        cluster.one_writer_for_each_token()
    cluster.teardown()


def test_a_silent_owner_is_replaced_only_after_a_whole_lease_of_ones_own_clock() -> None:
    """Its count must be seen unchanged for the length of the lease; a beat begins that anew."""
    observer = Observer(SECONDS)
    row = Lease("a", "other", 3)
    beat = Beat("other", 7)
    observer.saw([row], [beat], 100.0)
    assert plan("me", ["a"], [row], observer, 109.9) == Plan()
    assert plan("me", ["a"], [row], observer, 110.0) == Plan(claim=(Claim(row, beat),))
    observer.saw([row], [Beat("other", 8)], 110.0)
    assert plan("me", ["a"], [row], observer, 119.0) == Plan()


def test_a_released_scope_is_taken_at_once() -> None:
    """A row without an owner, or whose owner has left, needs no waiting."""
    for free in (Lease("a", "", 4), Lease("a", "left", 4)):
        assert plan("me", ["a"], [free], Observer(SECONDS), 0.0) == Plan(claim=(Claim(free),))


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
    free = Lease("a", "", 1)
    mine = Lease("b", "me", 1)
    observer.saw([free, mine], [Beat("me", 1), Beat("other", 1)], 0.0)
    assert plan("me", ["a", "b"], [free, mine], observer, 5.0) == Plan()
    observer.saw([free, mine], [Beat("me", 2), Beat("other", 2)], 30.0)
    assert plan("me", ["a", "b"], [free, mine], observer, 30.0) == Plan(claim=(Claim(free),))
