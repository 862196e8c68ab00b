"""Everything that is kept can be written out, each kind in its columns, and nothing is added that
is not of the same time.
"""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from otel_openai_usage.composition.stores import queries_opener
from otel_openai_usage.domain.endpoints import COSTS, ENDPOINTS, STORED, USAGE_ENDPOINTS, Endpoint
from otel_openai_usage.domain.metered import METERED, Event
from otel_openai_usage.domain.model import Amounts, Dims, Names, Rows, Width, Window
from otel_openai_usage.domain.retention import Retention
from otel_openai_usage.engine import maintenance, recording
from otel_openai_usage.ingest.intake import metered_sources
from otel_openai_usage.reports import export, records
from otel_openai_usage.reports.tables import By
from otel_openai_usage.storage.sqlite.store import Store
from tests.domain.shelf import DAY, HOUR, MIDNIGHT, read

TODAY = date(2026, 11, 2)
LATE = MIDNIGHT + 30 * DAY
assert datetime(2026, 11, 2, tzinfo=UTC).timestamp() == MIDNIGHT


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with a file of its own."""
    opened = Store(tmp_path / "state.db")
    yield opened
    opened.close()


def dims(endpoint: Endpoint, **values: str) -> Dims:
    """Dimensions of a kind, the others null."""
    assert values.keys() <= set(endpoint.dimensions)
    return tuple(values.get(name) for name in endpoint.dimensions)


def keep(store: Store, endpoint: Endpoint, width: Width, said: Mapping[int, Rows]) -> None:
    """A reading of the past is kept, as a backfill keeps it."""
    source_state = store.source_state("default", endpoint, LATE, endpoint.group_by)
    for start, rows in said.items():
        recording.record_range(
            store, source_state, Window(start, start + width), width, {start: rows}, LATE
        )


def amounts(endpoint: Endpoint, **values: int | Decimal) -> Amounts:
    """Measures of a kind, the others 0."""
    return tuple(values.get(measure.name, 0) for measure in endpoint.measures)


def exported(
    store: Store, form: str = "json", by: By = "day", days: int = 1
) -> list[dict[str, object]]:
    """The lines of an export, without what is empty."""
    text = "".join(
        export.lines(queries_opener(Path(store.path)), TODAY, TODAY + timedelta(days - 1), form, by)
    )
    rows: Iterable[dict[str, object]] = (
        map(json.loads, text.splitlines()) if form == "json" else csv.DictReader(io.StringIO(text))
    )
    return [{name: cell for name, cell in row.items() if cell not in (None, "")} for row in rows]


def only(found: list[dict[str, object]], *names: str) -> list[tuple[object, ...]]:
    """Some columns."""
    return [tuple(row.get(name) for name in names) for row in found]


@pytest.mark.parametrize(
    "endpoint", [*STORED.values(), METERED], ids=lambda endpoint: endpoint.name
)
@pytest.mark.parametrize("form", ["csv", "json"])
def test_every_measure_and_dimension_of_every_endpoint_is_exported(
    store: Store, endpoint: Endpoint, form: str
) -> None:
    """A row of any kind comes out with all that it counts and all that distinguishes it."""
    start = MIDNIGHT
    said = {name: f"a {name}" for name in endpoint.dimensions}
    counted = {
        measure.name: Decimal(f"{index}.25") if measure.money else index
        for index, measure in enumerate(endpoint.measures, 7)
    }
    keep(
        store,
        endpoint,
        endpoint.widths[-1],
        {start: {dims(endpoint, **said): amounts(endpoint, **counted)}},
    )
    (line,) = exported(store, form)
    text = {name: str(value) for name, value in line.items()}
    assert {name: text.get(name) for name in counted} == {
        name: str(value) for name, value in counted.items()
    }
    assert {name: text.get(name) for name in said} == said
    assert (text["date"], text["start"], text["width"]) == (
        "2026-11-02",
        "2026-11-02T00:00:00Z",
        "1d",
    )


def test_columns_keep_their_place() -> None:
    """Whoever reads by position is not surprised: what there was at first comes first, in its
    order.
    """
    assert records.COLUMNS[:31] == (
        "record",
        "date",
        "organization",
        "operation",
        "project_id",
        "project_name",
        "api_key_id",
        "api_key_name",
        "user_id",
        "user_name",
        "model",
        "batch",
        "service_tier",
        "line_item",
        "requests",
        "input",
        "output",
        "input_cached",
        "input_audio",
        "output_audio",
        "input_cache_write",
        "images",
        "characters",
        "audio",
        "sessions",
        "searches",
        "estimated_cost",
        "unpriced_tokens",
        "cost",
        "quantity",
        "currency",
    )


def test_a_level_is_shown_as_it_was_last(store: Store) -> None:
    """Of a day, and of an hour, of vector stores the last level counts, not the sum; also once the
    hours have become a day.
    """
    endpoint = USAGE_ENDPOINTS["vector_stores"]
    source_state = store.source_state("default", endpoint, MIDNIGHT, endpoint.group_by)
    store.set_names("default", Names({"a": "Atlas"}, {}, {}))
    one = dims(endpoint, project_id="a")
    other = dims(endpoint, project_id="b")
    for start, rows in (
        (60, {one: (100,), other: (5,)}),
        (120, {one: (90,)}),
        (HOUR, {one: (40,)}),
        (23 * HOUR, {one: (70,)}),
    ):
        read(store, source_state, Width.MINUTE, {MIDNIGHT + start: rows}, MIDNIGHT + DAY)
    columns = ("record", "operation", "project_name", "project_id", "start", "bytes")
    day = [
        ("vector_store", "vector_stores", "Atlas", "a", "2026-11-02T00:00:00Z", 70),
        ("vector_store", "vector_stores", None, "b", "2026-11-02T00:00:00Z", 5),
    ]
    assert only(exported(store), *columns) == day
    assert only(exported(store, by="hour"), "project_id", "start", "width", "bytes") == [
        ("a", "2026-11-02T00:00:00Z", "1h", 90),
        ("b", "2026-11-02T00:00:00Z", "1h", 5),
        ("a", "2026-11-02T01:00:00Z", "1h", 40),
        ("a", "2026-11-02T23:00:00Z", "1h", 70),
    ]
    read(
        store, source_state, Width.MINUTE, {}, LATE, window=Window(LATE - 60, LATE), fine_from=LATE
    )
    while maintenance.maintain(store, source_state, Retention(LATE, MIDNIGHT - DAY)):
        pass
    assert store.rows_within(source_state, [Width.MINUTE, Width.HOUR], 0, LATE) == []
    assert only(exported(store), *columns) == day


def test_events_are_exported_by_subject(store: Store) -> None:
    """What applications reported is a record of its own kind: who, which model, and the attributes
    that are configured.
    """
    (source_state,) = metered_sources(store, ["default"], ["team"], MIDNIGHT).values()

    def event(id_: bytes, time: int, subject: str, given: int, team: str | None) -> Event:
        who = dims(
            source_state.endpoint,
            subject=subject,
            model="gpt-4o",
            type="openai",
            **({"team": team} if team else {}),
        )
        return Event(id_, b"", time, who, (given, 7, 2, 1, 1))

    events = [
        event(b"1", MIDNIGHT + 10, "alice", 13, "=red"),
        event(b"2", MIDNIGHT + HOUR, "alice", 20, "=red"),
        event(b"3", MIDNIGHT, "bob", 1, None),
    ]
    recording.record_events(store, {"default": source_state}, events, MIDNIGHT + DAY, DAY)
    assert exported(store) == [
        {
            "record": "metered",
            "date": "2026-11-02",
            "start": "2026-11-02T00:00:00Z",
            "width": "1d",
            "organization": "default",
            "model": "gpt-4o",
            "subject": "alice",
            "type": "openai",
            "attributes": {"team": "=red"},
            "requests": 2,
            "input": 33,
            "output": 14,
            "input_cached": 4,
            "reasoning": 2,
        },
        {
            "record": "metered",
            "date": "2026-11-02",
            "start": "2026-11-02T00:00:00Z",
            "width": "1d",
            "organization": "default",
            "model": "gpt-4o",
            "subject": "bob",
            "type": "openai",
            "requests": 1,
            "input": 1,
            "output": 7,
            "input_cached": 2,
            "reasoning": 1,
        },
    ]
    assert json.loads(str(exported(store, "csv")[0]["attributes"])) == {"team": "=red"}
    assert only(exported(store, by="hour"), "subject", "start", "input") == [
        ("alice", "2026-11-02T00:00:00Z", 13),
        ("bob", "2026-11-02T00:00:00Z", 1),
        ("alice", "2026-11-02T01:00:00Z", 20),
    ]


def test_hours_hold_what_is_stored_by_the_hour(store: Store) -> None:
    """By the hour a line is an hour where hours are kept, and a day where they are not: the sums
    are the same as by the day.
    """
    endpoint = ENDPOINTS["completions"]
    one = dims(endpoint, project_id="a", model="m")
    other = dims(endpoint, project_id="b", model="m")
    keep(store, endpoint, Width.DAY, {MIDNIGHT: {one: amounts(endpoint, input=1000, requests=1)}})
    hours = {
        MIDNIGHT + DAY + hour * HOUR: {one: amounts(endpoint, input=hour, requests=1)}
        for hour in (3, 4)
    }
    hours[MIDNIGHT + DAY + 4 * HOUR][other] = amounts(endpoint, input=50, requests=1)
    keep(store, endpoint, Width.HOUR, hours)
    keep(
        store,
        COSTS,
        Width.DAY,
        {
            MIDNIGHT + DAY: {
                dims(COSTS, currency="usd"): amounts(
                    COSTS, cost=Decimal("1.5"), quantity=Decimal(0)
                )
            }
        },
    )
    assert only(
        exported(store, by="hour", days=2),
        "record",
        "project_id",
        "start",
        "width",
        "input",
        "cost",
    ) == [
        ("usage", "a", "2026-11-02T00:00:00Z", "1d", 1000, None),
        ("usage", "a", "2026-11-03T03:00:00Z", "1h", 3, None),
        ("usage", "a", "2026-11-03T04:00:00Z", "1h", 4, None),
        ("usage", "b", "2026-11-03T04:00:00Z", "1h", 50, None),
        ("cost", None, "2026-11-03T00:00:00Z", "1d", None, "1.5"),
    ]
    assert only(exported(store, days=2), "project_id", "input", "unpriced_tokens") == [
        ("a", 1000, 1000),
        ("a", 7, 7),
        ("b", 50, 50),
        (None, None, None),
    ]


@pytest.mark.parametrize("form", ["csv", "json", "focus"])
def test_money_has_every_digit(store: Store, form: str) -> None:
    """Amounts of 37 digits, with an exponent, negative, and sums of them over users that were not
    separate records, lose nothing.
    """
    long = Decimal("1234567.890123456789012345678901234567")
    tiny = Decimal("1E-27")
    said = {
        dims(COSTS, line_item="long", currency="usd"): (long, tiny),
        dims(COSTS, line_item="tiny", currency="usd"): (-tiny, Decimal(0)),
    }
    keep(store, COSTS, Width.DAY, {MIDNIGHT: said})
    cost, quantity = ("BilledCost", "ConsumedQuantity") if form == "focus" else ("cost", "quantity")
    assert only(exported(store, form), cost, quantity) == [
        (f"{long}", "0.000000000000000000000000001"),
        ("-0.000000000000000000000000001", None),
    ]


def test_an_export_reads_one_span_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A year is not read before its first line is written: no question spans more than a day, by
    the hour more than an hour of hours.
    """
    asked: list[int] = []
    one = {dims(COSTS, currency="usd"): amounts(COSTS, cost=Decimal(1), quantity=Decimal(0))}
    keep(store, COSTS, Width.DAY, {MIDNIGHT: one})
    keep(store, COSTS, Width.DAY, {MIDNIGHT + 29 * DAY: one})

    def watched(self: object, start: int, end: int, **how: object) -> list[object]:
        asked.append(end - start)
        return []

    monkeypatch.setattr("otel_openai_usage.storage.sqlite.queries.SqliteQueries.usage", watched)
    exported(store, days=30)
    assert asked == [DAY] * 30 * len(records.USAGE_RECORDS)
    asked.clear()
    exported(store, by="hour", days=1)
    assert len(asked) == 25 * len(records.USAGE_RECORDS)
    assert sorted(set(asked)) == [HOUR, DAY]


def test_a_reader_that_goes_away_is_no_empty_store(store: Store, tmp_path: Path) -> None:
    """`export | head` says nothing on stderr, though not a single row could be written."""
    endpoint = USAGE_ENDPOINTS["completions"]
    rows = {dims(endpoint, model="gpt-5"): amounts(endpoint, input=7)}
    keep(store, endpoint, Width.DAY, {MIDNIGHT: rows})
    config = tmp_path / "config.yaml"
    config.write_text(f"state: {{path: {store.path}}}\n")
    days = ["--from", TODAY.isoformat(), "--to", TODAY.isoformat()]
    command = [sys.executable, "-m", "otel_openai_usage", "export", "-c", str(config), *days]
    reading_end, writing_end = os.pipe()
    os.close(reading_end)
    # Unbuffered, so that the first line already meets the closed pipe.
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(command, stdout=writing_end, stderr=subprocess.PIPE, env=env, check=False)
    os.close(writing_end)
    assert (done.returncode, done.stderr) == (0, b"")
