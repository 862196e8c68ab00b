"""Several replicas on one database: leases, fencing, and events that any of them takes."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal

import pytest

from otel_openai_usage.config import DatabaseLocation
from otel_openai_usage.domain.endpoints import USAGE_ENDPOINTS
from otel_openai_usage.domain.metered import METERED, AddedUsage, Event, hours
from otel_openai_usage.domain.model import Names
from otel_openai_usage.domain.ownership import Beat, Claim, Lease, organization_scope
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.engine import polling, recording
from otel_openai_usage.errors import NotOwner, StateInUse
from otel_openai_usage.storage.postgres.shared_store import SharedStore
from otel_openai_usage.storage.postgres.store import Store
from tests.real.postgres import Postgres

SCOPE = organization_scope("default")
COMPLETIONS = USAGE_ENDPOINTS["completions"]
HOUR = 1_700_000_000 // 3600 * 3600


@pytest.fixture
def location(postgres: Postgres) -> DatabaseLocation:
    """An empty schema."""
    return postgres.location(lease=0.4)


@pytest.fixture
def replica(location: DatabaseLocation) -> Iterator[Callable[[], SharedStore]]:
    """Starts one replica more."""
    stores: list[SharedStore] = []

    def start() -> SharedStore:
        stores.append(SharedStore(location))
        return stores[-1]

    yield start
    for store in stores:
        store.close()


def own(store: SharedStore, claim: Claim | None = None) -> int:
    """Take the lease of the default organization."""
    token = store.claim(claim or Claim(Lease(SCOPE, "", 0)))
    assert token is not None
    store.hold({SCOPE: token})
    return token


def opened(store: SharedStore) -> SourceState:
    """The source of completions."""
    return store.source_state("default", COMPLETIONS, 0, COMPLETIONS.group_by)


# --- leases


def test_a_lease_has_one_owner(replica: Callable[[], SharedStore]) -> None:
    """Of two replicas that see a free lease, one gets it."""
    first = replica()
    second = replica()
    own(first)
    assert second.claim(Claim(Lease(SCOPE, "", 0))) is None
    look = second.beat()
    assert [(lease.scope, lease.token) for lease in look.leases] == [(SCOPE, 1)]
    assert len(look.beats) == 2


def test_only_the_owner_writes(replica: Callable[[], SharedStore]) -> None:
    """Without the lease nothing of the organization is committed, whatever it is."""
    first = replica()
    second = replica()
    own(first)
    source_state = opened(first)
    second.hold({SCOPE: 0})
    with pytest.raises(NotOwner, match="another replica owns organization default"):
        polling.write_progress(second, source_state, source_state.progress, 5)
    with pytest.raises(NotOwner):
        second.set_names("default", Names({"proj": "name"}, {}, {}))
    with pytest.raises(NotOwner):
        second.set_note("a", "b")
    assert first.note("a") is None


def test_an_owner_that_was_taken_for_dead_commits_nothing(
    replica: Callable[[], SharedStore],
) -> None:
    """A taker deletes the owner's row and raises the token. The owner's next beat says so."""
    frozen = replica()
    taker = replica()
    token = own(frozen)
    source_state = opened(frozen)
    name = frozen.beat().replica
    seen = next(beat for beat in taker.beat().beats if beat.replica == name)
    stale = Claim(Lease(SCOPE, name, token), Beat(name, seen.beats - 1))
    assert taker.claim(stale) is None, "it has said since that it lives"
    assert own(taker, Claim(Lease(SCOPE, name, token), seen)) == token + 1
    with pytest.raises(NotOwner):
        polling.write_progress(frozen, source_state, source_state.progress, 5)
    look = frozen.beat()
    assert not look.is_known
    assert look.replica != name


def test_a_take_over_waits_for_a_commit_under_way(replica: Callable[[], SharedStore]) -> None:
    """The token is locked until the commit ends, so the taker finds what was committed."""
    owner = replica()
    taker = replica()
    token = own(owner)
    source_state = opened(owner)
    name = owner.beat().replica
    beat = next(beat for beat in taker.beat().beats if beat.replica == name)
    inside = threading.Event()
    go_on = threading.Event()
    checked = owner._require_owned

    def slow(connection: object, scope: str | None) -> None:
        checked(connection, scope)  # type: ignore[arg-type]
        inside.set()
        go_on.wait(5)

    owner._require_owned = slow  # type: ignore[method-assign]
    moved = replace(source_state.progress, horizon=77)
    writer = threading.Thread(
        target=polling.write_progress, args=(owner, source_state, moved, 5), daemon=True
    )
    writer.start()
    assert inside.wait(5)
    taken: list[int] = []
    taking = threading.Thread(
        target=lambda: taken.append(own(taker, Claim(Lease(SCOPE, name, token), beat))), daemon=True
    )
    taking.start()
    taking.join(0.2)
    assert taken == []
    go_on.set()
    taking.join(5)
    writer.join(5)
    assert taken == [token + 1]
    assert opened(taker).progress.horizon == 77


def test_one_process_and_replicas_exclude_each_other(
    location: DatabaseLocation, replica: Callable[[], SharedStore]
) -> None:
    """Whoever wants the whole state is refused while a replica lives, and the other way round."""
    first = replica()
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.05):
            first.beat()

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(StateInUse, match="is in use by another otel-openai-usage"):
            Store(location)
    finally:
        stop.set()
        thread.join()
    first.close()
    whole = Store(location)
    with pytest.raises(StateInUse):
        replica()
    whole.close()
    replica()


def test_the_whole_state_can_be_taken_from_silent_replicas(
    location: DatabaseLocation, replica: Callable[[], SharedStore]
) -> None:
    """After a lease without a beat one process gets the state, and the replica writes nothing."""
    silent = replica()
    own(silent)
    source_state = opened(silent)
    whole = Store(location)
    with pytest.raises(NotOwner):
        polling.write_progress(silent, source_state, source_state.progress, 5)
    whole.close()


def test_a_database_that_lost_commits_is_noticed(
    location: DatabaseLocation, replica: Callable[[], SharedStore], postgres: Postgres
) -> None:
    """The replica owns nothing any more, says how many commits are gone, and its next token is above
    every one that it saw.
    """
    store = replica()
    own(store)
    store.beat()
    for number in range(5):
        store.set_note("number", str(number))
    schema = location.url.rpartition("%3D")[2]
    postgres.execute("UPDATE replica_commits SET number = number - 3", schema)
    postgres.execute("UPDATE leases SET owner = '', token = 0", schema)
    store.beat()
    assert store.lost_commits == 3
    look = store.beat()
    assert not look.is_known
    assert own(store, Claim(Lease(SCOPE, "", 0))) == 2
    assert store.beat().is_known
    assert store.lost_commits == 3


# --- events


def events(numbers: Sequence[int], tokens: int = 10) -> list[Event]:
    """One event for each number. The same number is the same event."""
    return [
        Event(
            identity=number.to_bytes(16, "big"),
            content=tokens.to_bytes(16, "big"),
            time=HOUR + number,
            dims=(f"customer {number % 3}", "gpt-5", None, None),
            amounts=(tokens, 1, 0, 0, 1),
        )
        for number in numbers
    ]


def queue(store: SharedStore, some: Sequence[Event]) -> tuple[int, int, int]:
    """As `ingest` stores events."""

    def to_usage(fresh: Sequence[Event]) -> dict[str, AddedUsage]:
        costs = {(event.dims, HOUR // 86400 * 86400): Decimal("0.5") for event in fresh}
        return {"default": AddedUsage(hours(fresh, HOUR + 10**6), costs)}

    return store.queue_events(some, METERED, 0, int(time.time()), to_usage)


def count(store: SharedStore, source_state: SourceState) -> None:
    """As the owner counts what waits."""
    recording.count_queued(store, source_state, HOUR)


def test_the_same_events_at_several_replicas_count_once(
    replica: Callable[[], SharedStore],
) -> None:
    """Three replicas get overlapping events at the same time. The owner's totals have each once."""
    stores = [replica() for _ in range(3)]
    own(stores[0])
    source_state = stores[0].source_state("default", METERED, 0, METERED.group_by)
    accepted = [0, 0, 0]
    repeated = [0, 0, 0]

    def send(which: int) -> None:
        for first in range(0, 300, 20):
            found = queue(stores[which], events(range(first, first + 40)))
            accepted[which] += found[0]
            repeated[which] += found[1]

    threads = [threading.Thread(target=send, args=(which,)) for which in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(accepted) == 320
    assert sum(accepted) + sum(repeated) == 3 * 15 * 40
    assert stores[1].waiting_organizations() == ["default"]
    count(stores[0], source_state)
    assert stores[1].waiting_organizations() == []
    assert sum(series.total[0] for series in source_state.series.values()) == 3200
    again = stores[0].source_state("default", METERED, 0, METERED.group_by)
    totals = {dims: series.total for dims, series in source_state.series.items()}
    assert {dims: series.total for dims, series in again.series.items()} == totals


def test_other_content_of_a_known_event_is_a_conflict(replica: Callable[[], SharedStore]) -> None:
    """The first content counts; a batch may have an event twice."""
    store = replica()
    assert queue(store, events([1, 1, 2])) == (2, 1, 0)
    assert queue(store, events([2, 3], tokens=11)) == (1, 0, 1)


def test_events_are_counted_only_by_the_owner(replica: Callable[[], SharedStore]) -> None:
    """What waits is not lost when a replica that is no owner tries to count it."""
    owner = replica()
    other = replica()
    own(owner)
    source_state = owner.source_state("default", METERED, 0, METERED.group_by)
    queue(other, events(range(5)))
    with pytest.raises(NotOwner):
        count(other, source_state)
    count(owner, source_state)
    assert sum(series.total[0] for series in source_state.series.values()) == 50
    estimates = [series.estimate for series in source_state.series.values()]
    assert estimates == [Decimal("0.5")] * 3
