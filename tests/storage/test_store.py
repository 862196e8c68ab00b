"""A store returns what was written, commits all of it or nothing, and writes nothing if nothing is
new.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from otel_openai_usage.composition.stores import open_writer
from otel_openai_usage.domain.endpoints import COSTS
from otel_openai_usage.domain.model import Amounts, Dims, Names, Rows, Width, Window
from otel_openai_usage.domain.reconciliation import total
from otel_openai_usage.domain.retention import Retention
from otel_openai_usage.domain.series_marks import HighWaterMark, OverflowMember
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.engine import maintenance, polling
from otel_openai_usage.errors import BadResponse, StateError
from otel_openai_usage.storage.ports import Writer
from otel_openai_usage.storage.sqlite.store import Store
from tests.domain.shelf import (
    DAY,
    EMBEDDINGS,
    HOUR,
    MIDNIGHT,
    MINUTE,
    Shelf,
    coarser,
    read,
    totals,
    used,
    who,
)
from tests.domain.test_laws import LATER, MINUTES, TODAY, WIDTHS, Noise, readings, usage
from tests.real.postgres import Postgres
from tests.storage.conftest import OpenStore

NOON = MIDNIGHT + 12 * HOUR


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Store]:
    """A store with a file of its own."""
    store = Store(tmp_path / "state.db")
    yield store
    store.close()


def opened(store: Writer, organization: str = "default") -> SourceState:
    """The stored state of embeddings."""
    return store.source_state(organization, EMBEDDINGS, MIDNIGHT, EMBEDDINGS.group_by)


def sums(store: Writer, source_state: SourceState) -> dict[Dims, Amounts]:
    """The sum of all rows since the epoch."""
    found: dict[Dims, Amounts] = {}
    for row in store.rows_within(source_state, Width, source_state.progress.epoch, LATER + 9 * DAY):
        found[row.dims] = total(found.get(row.dims, source_state.endpoint.zero), row.amounts)
    return used(found)


def content(source_state: SourceState) -> object:
    """Everything that a source state contains."""
    stored_series_list = [
        (
            stored_series.id,
            stored_series.dims,
            stored_series.total,
            stored_series.shown,
            stored_series.released,
            stored_series.first_seen,
            stored_series.changed,
        )
        for stored_series in source_state.series.values()
    ]
    return (
        source_state.id,
        source_state.progress,
        source_state.groupings,
        stored_series_list,
        source_state.status.last_success,
        source_state.status.newest_bucket,
    )


def test_a_source_survives_a_restart(open_store: OpenStore) -> None:
    """Series, totals, progress, unread windows and groupings survive a restart."""
    store = open_store()
    source_state = opened(store)
    read(
        store, source_state, Width.MINUTE, {NOON: {who("a"): (5, 1), who(None): (0, 0)}}, NOON + 60
    )
    polling.finish(store, source_state, NOON + 60)
    read(
        store,
        source_state,
        Width.MINUTE,
        {NOON: {who("a"): (3, 1)}, NOON + 60: {who("new"): (2, 1)}},
        NOON + 120,
    )
    source_state.groupings = source_state.groupings.changed_to(("model",), MIDNIGHT + DAY)
    store.save_groupings(source_state, source_state.groupings)
    polling.write_progress(store, source_state, source_state.progress, NOON + 130)
    store.close()
    again = open_store()
    assert content(opened(again)) == content(source_state)
    assert again.instance_id == store.instance_id


@settings(max_examples=25)
@given(readings, usage)
def test_sqlite_agrees_with_dictionaries(noise: Noise, final: Mapping[int, Rows]) -> None:
    """For any readings SQLite has the same totals and rows as dictionaries, also after downsampling
    and a restart.
    """
    _agrees_with_dictionaries(Store(":memory:"), noise, final)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=readings, final=usage)
def test_postgres_agrees_with_dictionaries(
    postgres: Postgres, noise: Noise, final: Mapping[int, Rows]
) -> None:
    """For any readings PostgreSQL has the same totals and rows as dictionaries."""
    _agrees_with_dictionaries(open_writer(postgres.location()), noise, final)


def _agrees_with_dictionaries(store: Writer, noise: Noise, final: Mapping[int, Rows]) -> None:
    shelf = Shelf()
    one = opened(store)
    other = shelf.source_state("default", EMBEDDINGS, MIDNIGHT, EMBEDDINGS.group_by)
    one.progress = other.progress
    now = LATER
    for number, (width, coarse, said, later) in enumerate([*noise, (MINUTE, False, final, 60)]):
        now += later
        for where, source_state in ((store, one), (shelf, other)):
            read(
                where,
                source_state,
                WIDTHS[width],
                coarser(said, width),
                now,
                window=TODAY,
                coarse=coarse,
                hours=coarser(said, HOUR),
                fine_from=MINUTES[number % len(MINUTES)],
            )
        assert totals(one) == totals(other) == sums(store, one) == shelf.counted(other)
    assert totals(opened(store)) == totals(one)
    store.close()


def test_money_keeps_all_its_digits(store: Writer) -> None:
    """Amounts with 34 digits come back as they were, from totals and from rows."""
    source_state = store.source_state("default", COSTS, MIDNIGHT, COSTS.group_by)
    amount = Decimal("1234567.890123456789012345678901234567")
    dims = (None, "item", None, None, None, "usd")
    read(
        store,
        source_state,
        Width.DAY,
        {
            MIDNIGHT: {dims: (amount, Decimal("1E-27"))},
            MIDNIGHT + DAY: {dims: (amount, Decimal(0))},
        },
        LATER,
    )
    again = store.source_state("default", COSTS, MIDNIGHT, COSTS.group_by)
    assert again.series[dims].total == (
        Decimal("2469135.780246913578024691357802469134"),
        Decimal("1E-27"),
    )
    assert [
        row.amounts[0] for row in store.rows_within(again, Width, MIDNIGHT, MIDNIGHT + DAY)
    ] == [amount]


def test_two_organizations_share_a_file_and_nothing_else(store: Writer) -> None:
    """Rows, pending decreases and groupings belong to one organization."""
    one = opened(store)
    other = opened(store, "other")
    read(store, one, Width.MINUTE, {NOON: {who(): (5, 1)}}, NOON + 60)
    read(store, one, Width.HOUR, {NOON: {who(): (3, 1)}}, NOON + 60, coarse=True)
    read(store, other, Width.MINUTE, {NOON: {who(): (7, 1)}}, NOON + 60)
    store.save_groupings(other, other.groupings.changed_to((), MIDNIGHT + DAY))
    assert (sums(store, one), sums(store, other)) == ({who(): (5, 1)}, {who(): (7, 1)})
    assert store.pending_decreases(other, Width.HOUR, MIDNIGHT, LATER) == {}
    assert len(store.pending_decreases(one, Width.HOUR, MIDNIGHT, LATER)) == 1
    assert len(opened(store).groupings.entries) == 1


def test_names_overflow_and_releases_survive(store: Writer) -> None:
    """Names, overflow members, high-water marks and released series survive.

    An id without a name does not: it is looked up again.
    """
    source_state = opened(store)
    stored_series = read(
        store, source_state, Width.MINUTE, {NOON: {who(): (5, 1)}}, NOON + 60
    ).delta.series[0]
    store.mark_released([stored_series])
    store.add_overflow([OverflowMember("openai.api.tokens", stored_series.id)])
    held = [
        HighWaterMark(
            "openai.api.tokens", ("otel.metric.overflow", True, "token_type", "input"), 10**17
        ),
        HighWaterMark(
            "openai.api.estimated_cost",
            ("project_name", "Ä"),
            Decimal("0.10000000000000000000000000000000001"),
        ),
    ]
    store.add_overflow(
        [OverflowMember("openai.api.tokens", stored_series.id)],
        [replace(floor, amount=floor.amount - 1) for floor in held],
    )
    store.add_overflow([], held)
    store.set_names("default", Names({"a": "Atlas", "b": None}, {"k": "Key"}, {}))
    assert opened(store).series[who()].released
    assert store.overflow_members() == [OverflowMember("openai.api.tokens", stored_series.id)]
    assert sorted(store.high_water_marks(), key=lambda floor: -floor.amount) == held
    assert store.names("default") == Names({"a": "Atlas"}, {"k": "Key"}, {})


# --- nothing, or all


BROKEN = ("readings", "dims", "sources", "suspicions")


@pytest.mark.parametrize("table", BROKEN)
def test_a_commit_that_breaks_half_way_leaves_nothing(sqlite: Store, table: str) -> None:
    """If a transaction fails at any table, file and source state are as before, and the same
    reading counts once afterwards.
    """
    source_state = opened(sqlite)
    read(sqlite, source_state, Width.MINUTE, {NOON: {who("a"): (5, 1)}}, NOON + 60)
    read(sqlite, source_state, Width.HOUR, {NOON: {who("a"): (2, 1)}}, NOON + 60, coarse=True)
    before = content(source_state)
    dump = list(sqlite._db.iterdump())
    for event in ("INSERT", "UPDATE", "DELETE"):
        sqlite._db.execute(
            f"CREATE TEMP TRIGGER broken_{event} BEFORE {event} ON {table} BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )
    both: list[Callable[[], object]] = [
        lambda: read(
            sqlite,
            source_state,
            Width.MINUTE,
            {NOON: {who("a"): (9, 1), who("b"): (1, 1)}},
            NOON + 120,
        ),
        lambda: read(
            sqlite, source_state, Width.HOUR, {NOON: {who("a"): (1, 1)}}, NOON + 120, coarse=True
        ),
    ]
    broken = 0
    for attempt in both[:1] if table != "suspicions" else both[1:]:
        with pytest.raises(StateError, match="broken"):
            attempt()
        broken += 1
    assert broken == 1
    assert (content(source_state), list(sqlite._db.iterdump())) == (before, dump)
    for event in ("INSERT", "UPDATE", "DELETE"):
        sqlite._db.execute(f"DROP TRIGGER broken_{event}")
    both[0]()
    assert (
        totals(source_state) == {who("a"): (9, 1), who("b"): (1, 1)} == sums(sqlite, source_state)
    )


def test_nothing_new_is_nothing_written(sqlite: Store, tmp_path: Path) -> None:
    """Polls without news change no byte of the file and its log."""
    source_state = opened(sqlite)
    said: dict[int, Rows] = {NOON + minute * 60: {who("a"): (5, 1)} for minute in range(60)}
    window = Window(NOON, NOON + HOUR)
    read(sqlite, source_state, Width.MINUTE, said, NOON + HOUR, window=window, fine_from=NOON)
    polling.finish(sqlite, source_state, NOON + HOUR)
    changes = sqlite._db.total_changes
    written = files(tmp_path)
    for minute in range(14):
        read(
            sqlite,
            source_state,
            Width.MINUTE,
            said,
            NOON + HOUR + 60 * minute,
            window=window,
            fine_from=NOON,
        )
        read(
            sqlite,
            source_state,
            Width.HOUR,
            coarser(said, HOUR),
            NOON + HOUR + 60 * minute,
            window=window,
            coarse=True,
        )
        polling.finish(sqlite, source_state, NOON + HOUR + 60 * minute)
    assert (sqlite._db.total_changes, files(tmp_path)) == (changes, written)


def files(folder: Path) -> dict[str, bytes]:
    """The database and its log."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.suffix != ".db-shm" and "-shm" not in path.name
    }


def test_sums_beyond_64_bits_are_downsampled(sqlite: Store) -> None:
    """Hours whose sum exceeds 64 bits are downsampled to a day like others."""
    source_state = opened(sqlite)
    most = 10**16
    minutes = {MIDNIGHT + n * MINUTE: {who(): (most, 1)} for n in range(DAY // MINUTE)}
    read(sqlite, source_state, Width.MINUTE, minutes, MIDNIGHT + DAY, fine_from=MIDNIGHT + DAY)
    read(sqlite, source_state, Width.MINUTE, {MIDNIGHT + DAY: {}}, LATER, fine_from=MIDNIGHT + DAY)
    while maintenance.maintain(
        sqlite, source_state, Retention(hours=MIDNIGHT + 2 * DAY, days=MIDNIGHT - DAY)
    ):
        pass
    (day,) = sqlite.rows_within(source_state, Width, MIDNIGHT, MIDNIGHT + DAY)
    assert day.width == Width.DAY
    assert day.amounts == (int(float(most * DAY // MINUTE)), DAY // MINUTE)
    assert totals(source_state) == {who(): (most * DAY // MINUTE, DAY // MINUTE)}


def test_a_row_beyond_64_bits_is_refused(store: Writer) -> None:
    """If the difference between a day's reading and its minutes exceeds 64 bits, the reading is
    refused and nothing of it is stored.
    """
    source_state = opened(store)
    minutes = {MIDNIGHT + n * MINUTE: {who(): (10**16, 1)} for n in range(DAY // MINUTE)}
    read(store, source_state, Width.MINUTE, minutes, MIDNIGHT + DAY)
    before = totals(source_state)
    day: dict[int, Rows] = {MIDNIGHT: {who(): (5, 1)}}
    read(store, source_state, Width.DAY, day, LATER, coarse=True)
    with pytest.raises(BadResponse, match="too large to be stored"):
        read(store, source_state, Width.DAY, day, LATER + 2 * HOUR, coarse=True)
    assert totals(source_state) == before
