"""What is written is what is read, all of it or nothing, and nothing if there is nothing to write."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings

from otel_openai_usage import pipeline
from otel_openai_usage.core.book import Book
from otel_openai_usage.core.kinds import COSTS
from otel_openai_usage.core.ledger import total
from otel_openai_usage.core.model import Amounts, Dims, Names, Rows, Width, Window
from otel_openai_usage.core.retention import Retention
from otel_openai_usage.core.shape import Floor, Folded
from otel_openai_usage.errors import BadResponse, StateError
from otel_openai_usage.state.sqlite import Store
from tests.core.shelf import (
    DAY,
    EMBEDDINGS,
    HOUR,
    MIDNIGHT,
    MINUTE,
    Shelf,
    coarser,
    parse,
    read,
    totals,
    used,
    who,
)
from tests.core.test_laws import LATER, MINUTES, TODAY, WIDTHS, Noise, readings, usage

NOON = MIDNIGHT + 12 * HOUR


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with a file of its own."""
    store = Store(tmp_path / "state.db")
    yield store
    store.close()


def opened(store: Store, organization: str = "default") -> Book:
    """The book of embeddings, as the store has it."""
    return store.book(organization, EMBEDDINGS, MIDNIGHT, EMBEDDINGS.group_by)


def sums(store: Store, book: Book) -> dict[Dims, Amounts]:
    """The sum of all rows since the epoch."""
    found: dict[Dims, Amounts] = {}
    for row in store.rows_within(book, Width, book.progress.epoch, LATER + 9 * DAY):
        found[row.dims] = total(found.get(row.dims, book.kind.zero), row.amounts)
    return used(found)


def content(book: Book) -> object:
    """All that a book keeps."""
    leaves = [
        (leaf.id, leaf.dims, leaf.total, leaf.shown, leaf.released, leaf.first_seen, leaf.changed)
        for leaf in book.leaves.values()
    ]
    return (book.id, book.progress, book.groupings, leaves, book.last_success, book.newest_bucket)


def test_a_book_comes_back_as_it_was(store: Store, tmp_path: Path) -> None:
    """Leaves, totals, how far was read, what is unread and the groupings survive closing and
    opening.
    """
    book = opened(store)
    read(store, book, Width.MINUTE, {NOON: {who("a"): (5, 1), who(None): (0, 0)}}, NOON + 60)
    pipeline.finish(store, book, NOON + 60)
    read(
        store,
        book,
        Width.MINUTE,
        {NOON: {who("a"): (3, 1)}, NOON + 60: {who("new"): (2, 1)}},
        NOON + 120,
    )
    book.regroup(("model",), MIDNIGHT + DAY)
    store.regroup(book)
    pipeline.keep(store, book, NOON + 130)
    store.close()
    again = Store(tmp_path / "state.db")
    assert content(opened(again)) == content(book)
    assert again.instance_id == store.instance_id
    again.close()


@settings(max_examples=25)
@given(readings, usage)
def test_the_file_tells_what_dictionaries_tell(noise: Noise, final: Mapping[int, Rows]) -> None:
    """For any readings SQLite has the totals and rows that dictionaries have, compaction included,
    and so has a reopened book.
    """
    store = Store(":memory:")
    shelf = Shelf()
    one = opened(store)
    other = shelf.book("default", EMBEDDINGS, MIDNIGHT, EMBEDDINGS.group_by)
    one.progress = other.progress
    now = LATER
    for number, (width, coarse, said, later) in enumerate([*noise, (MINUTE, False, final, 60)]):
        now += later
        for where, book in ((store, one), (shelf, other)):
            read(
                where,
                book,
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


def test_money_keeps_all_its_digits(store: Store) -> None:
    """Amounts with 34 digits come back as they were, from totals and from rows."""
    book = store.book("default", COSTS, MIDNIGHT, COSTS.group_by)
    amount = Decimal("1234567.890123456789012345678901234567")
    dims = (None, "item", None, None, None, "usd")
    read(
        store,
        book,
        Width.DAY,
        {
            MIDNIGHT: {dims: (amount, Decimal("1E-27"))},
            MIDNIGHT + DAY: {dims: (amount, Decimal(0))},
        },
        LATER,
    )
    again = store.book("default", COSTS, MIDNIGHT, COSTS.group_by)
    assert again.leaves[dims].total == (
        Decimal("2469135.780246913578024691357802469134"),
        Decimal("1E-27"),
    )
    assert [
        row.amounts[0] for row in store.rows_within(again, Width, MIDNIGHT, MIDNIGHT + DAY)
    ] == [amount]


def test_two_organizations_share_a_file_and_nothing_else(store: Store) -> None:
    """Rows, suspicions and groupings of one organization are not another's."""
    one = opened(store)
    other = opened(store, "other")
    read(store, one, Width.MINUTE, {NOON: {who(): (5, 1)}}, NOON + 60)
    read(store, one, Width.HOUR, {NOON: {who(): (3, 1)}}, NOON + 60, coarse=True)
    read(store, other, Width.MINUTE, {NOON: {who(): (7, 1)}}, NOON + 60)
    other.regroup((), MIDNIGHT + DAY)
    store.regroup(other)
    assert (sums(store, one), sums(store, other)) == ({who(): (5, 1)}, {who(): (7, 1)})
    assert store.suspicions(other, Width.HOUR, MIDNIGHT, LATER) == {}
    assert len(store.suspicions(one, Width.HOUR, MIDNIGHT, LATER)) == 1
    assert len(opened(store).groupings) == 1


def test_names_and_folds_and_releases_are_remembered(store: Store) -> None:
    """Names that are known, what is folded, what must not fall and what was shown as 0 survive; an
    id without a name is asked for again.
    """
    book = opened(store)
    leaf = read(store, book, Width.MINUTE, {NOON: {who(): (5, 1)}}, NOON + 60).leaves[0]
    store.release([leaf])
    store.fold([Folded("openai.api.tokens", leaf.id)])
    held = [
        Floor("openai.api.tokens", ("otel.metric.overflow", True, "token_type", "input"), 10**17),
        Floor(
            "openai.api.estimated_cost",
            ("project_name", "Ä"),
            Decimal("0.10000000000000000000000000000000001"),
        ),
    ]
    store.fold(
        [Folded("openai.api.tokens", leaf.id)],
        [replace(floor, amount=floor.amount - 1) for floor in held],
    )
    store.fold([], held)
    store.keep_names("default", Names({"a": "Atlas", "b": None}, {"k": "Key"}, {}))
    assert opened(store).leaves[who()].released
    assert store.folds() == [Folded("openai.api.tokens", leaf.id)]
    assert sorted(store.floors(), key=lambda floor: -floor.amount) == held
    assert store.names("default") == Names({"a": "Atlas"}, {"k": "Key"}, {})


# --- nothing, or all


BROKEN = ("readings", "dims", "sources", "suspicions")


@pytest.mark.parametrize("table", BROKEN)
def test_a_commit_that_breaks_half_way_leaves_nothing(store: Store, table: str) -> None:
    """Wherever a transaction breaks, file and book are as before, and the same reading counts once
    when it works again.
    """
    book = opened(store)
    read(store, book, Width.MINUTE, {NOON: {who("a"): (5, 1)}}, NOON + 60)
    read(store, book, Width.HOUR, {NOON: {who("a"): (2, 1)}}, NOON + 60, coarse=True)
    before = content(book)
    dump = list(store._db.iterdump())
    for event in ("INSERT", "UPDATE", "DELETE"):
        store._db.execute(
            f"CREATE TEMP TRIGGER broken_{event} BEFORE {event} ON {table} BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )
    both: list[Callable[[], object]] = [
        lambda: read(
            store, book, Width.MINUTE, {NOON: {who("a"): (9, 1), who("b"): (1, 1)}}, NOON + 120
        ),
        lambda: read(store, book, Width.HOUR, {NOON: {who("a"): (1, 1)}}, NOON + 120, coarse=True),
    ]
    broken = 0
    for attempt in both[:1] if table != "suspicions" else both[1:]:
        with pytest.raises(StateError, match="broken"):
            attempt()
        broken += 1
    assert broken == 1
    assert (content(book), list(store._db.iterdump())) == (before, dump)
    for event in ("INSERT", "UPDATE", "DELETE"):
        store._db.execute(f"DROP TRIGGER broken_{event}")
    both[0]()
    assert totals(book) == {who("a"): (9, 1), who("b"): (1, 1)} == sums(store, book)


def test_nothing_new_is_nothing_written(store: Store, tmp_path: Path) -> None:
    """Polls that bring nothing new change no byte of the file nor of what waits to be written back."""
    book = opened(store)
    said: dict[int, Rows] = {NOON + minute * 60: {who("a"): (5, 1)} for minute in range(60)}
    window = Window(NOON, NOON + HOUR)
    read(store, book, Width.MINUTE, said, NOON + HOUR, window=window, fine_from=NOON)
    pipeline.finish(store, book, NOON + HOUR)
    changes = store._db.total_changes
    written = files(tmp_path)
    for minute in range(14):
        read(
            store,
            book,
            Width.MINUTE,
            said,
            NOON + HOUR + 60 * minute,
            window=window,
            fine_from=NOON,
        )
        read(
            store,
            book,
            Width.HOUR,
            coarser(said, HOUR),
            NOON + HOUR + 60 * minute,
            window=window,
            coarse=True,
        )
        pipeline.finish(store, book, NOON + HOUR + 60 * minute)
    assert (store._db.total_changes, files(tmp_path)) == (changes, written)


def files(folder: Path) -> dict[str, bytes]:
    """The database and its log."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.suffix != ".db-shm" and "-shm" not in path.name
    }


def test_parsing_is_as_written() -> None:
    """The readings of these tests are what they say (the tests' own JSON)."""
    assert parse(json.dumps([[["a", None], [1, "0.5"]]]).encode()) == {
        ("a", None): (1, Decimal("0.5"))
    }


def test_rows_that_add_up_beyond_64_bits_are_still_tidied(store: Store) -> None:
    """Hours whose sum no integer column holds become a day like any other, and the history can be
    read: nothing stops for good.
    """
    book = opened(store)
    most = 10**16
    minutes = {MIDNIGHT + n * MINUTE: {who(): (most, 1)} for n in range(DAY // MINUTE)}
    read(store, book, Width.MINUTE, minutes, MIDNIGHT + DAY, fine_from=MIDNIGHT + DAY)
    read(store, book, Width.MINUTE, {MIDNIGHT + DAY: {}}, LATER, fine_from=MIDNIGHT + DAY)
    while store.tidy(book, Retention(hours=MIDNIGHT + 2 * DAY, days=MIDNIGHT - DAY)):
        pass
    (day,) = store.rows_within(book, Width, MIDNIGHT, MIDNIGHT + DAY)
    assert day.width == Width.DAY
    assert day.amounts == (int(float(most * DAY // MINUTE)), DAY // MINUTE)
    assert totals(book) == {who(): (most * DAY // MINUTE, DAY // MINUTE)}


def test_a_row_that_no_column_holds_is_refused_whole(store: Store) -> None:
    """A day's reading far below its minutes would be stored as a difference beyond 64 bits: the
    reading is refused, and nothing of it is kept.
    """
    book = opened(store)
    minutes = {MIDNIGHT + n * MINUTE: {who(): (10**16, 1)} for n in range(DAY // MINUTE)}
    read(store, book, Width.MINUTE, minutes, MIDNIGHT + DAY)
    before = totals(book)
    day: dict[int, Rows] = {MIDNIGHT: {who(): (5, 1)}}
    read(store, book, Width.DAY, day, LATER, coarse=True)
    with pytest.raises(BadResponse, match="too large to be stored"):
        read(store, book, Width.DAY, day, LATER + 2 * HOUR, coarse=True)
    assert totals(book) == before
