"""Released migrations are frozen text.

Columns follow from the endpoint table, in a step of its own.
"""

import hashlib
import sqlite3
from pathlib import Path

import pytest

from otel_openai_usage.domain.endpoints import STORED, Endpoint, Measure
from otel_openai_usage.domain.metered import METERED
from otel_openai_usage.domain.model import Amounts, Dims, Width
from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.sqlite.file import open_read_only
from otel_openai_usage.storage.sqlite.migrations import MIGRATIONS
from otel_openai_usage.storage.sqlite.schema import add_missing_columns, missing_columns
from otel_openai_usage.storage.sqlite.store import Store
from tests.domain.shelf import MIDNIGHT, read, totals
from tests.storage.test_store import NOON, sums

RELEASED = (
    "eb9e8415f7655ea1a76e27f9ec6efdce26bbc045a8b04409fb2b151ee8b15906",
    "f19f689f84bd7c766942077ab095893471edcd70c0672fe17c3110fc2c4953cc",
    "a32975c28970406294ce23c89dbc6ab59d01e1b28360fa687263866137e45757",
    "0aeb185ec7f48041600ae743a5f6b74e3a5088141337932cf8b088634493619b",
    "9d99f4b0e97b9ddce359e919d59432c2145d3a4f8fdcf78422d0cf8fc17c78aa",
    "8f4ca423246b90638cb1b37ff03e64af691ca5aaf7aa485318c9152972e7a9a6",
    "20f167cac62671c7895418e48c141b405fa72da79d29c59d9205344d7aa78e82",
)
"""SHA-256 of every released migration. Append; never change one."""

SCRIPTS = sorted(Path(__file__).parent.glob("version-*.sql"))

_REQUESTS = Measure("requests", "num_model_requests", "openai.api.requests")
_ORDER = Measure("order", "num_orders", "openai.api.requests")
_FRAMES = Measure("frames", "num_frames", "openai.api.requests")


def endpoint(measures: tuple[Measure, ...], group_by: tuple[str, ...]) -> Endpoint:
    """An endpoint that no released version knew."""
    return Endpoint(
        "translations",
        "usage/translations",
        "organization.usage.translations.result",
        measures,
        group_by,
    )


KNOWN_COLUMNS = endpoint((_REQUESTS,), ("project_id", "model"))
NEW_MEASURE = endpoint((_FRAMES, _REQUESTS), ("project_id", "model"))
NEW_DIMENSION = endpoint((_REQUESTS,), ("project_id", "region"))
NEW_BOTH = endpoint((_FRAMES, _REQUESTS), ("project_id", "region"))
ENDPOINTS = [KNOWN_COLUMNS, NEW_MEASURE, NEW_DIMENSION, NEW_BOTH]
ENDPOINT_IDS = ["known columns", "new measure", "new dimension", "both"]


def test_released_migrations_never_change() -> None:
    """Each released migration is the text of its release."""
    found = [hashlib.sha256(text.encode()).hexdigest() for text in MIGRATIONS]
    assert found[: len(RELEASED)] == list(RELEASED)
    assert len(found) == len(RELEASED), "append the hash of the new migration to RELEASED"


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=ENDPOINT_IDS)
@pytest.mark.parametrize("script", [None, *SCRIPTS], ids=lambda path: path.stem if path else "new")
def test_an_added_endpoint_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Path | None, endpoint: Endpoint
) -> None:
    """A later endpoint counts in a state of every released version and in a new one, also after a
    restart, and even if its columns are called like SQL keywords.
    """
    path = tmp_path / "state.db"
    if script is None:
        Store(path).close()
    else:
        with sqlite3.connect(path) as db:
            db.executescript(script.read_text())
        db.close()
    monkeypatch.setitem(STORED, endpoint.name, endpoint)
    dims: Dims = ("proj_1", "somewhere")
    amounts: Amounts = tuple(range(7, 7 + len(endpoint.measures)))
    for _ in range(2):
        store = Store(path)
        source_state = store.source_state("default", endpoint, MIDNIGHT, endpoint.group_by)
        read(store, source_state, Width.MINUTE, {NOON: {dims: amounts}}, NOON + 60)
        assert totals(source_state) == sums(store, source_state) == {dims: amounts}
        store.close()
    with sqlite3.connect(path) as db:
        columns = ", ".join(f'"{measure.name}"' for measure in endpoint.measures)
        assert db.execute(f"SELECT {columns} FROM readings").fetchall() == [amounts]
        columns = ", ".join(f'"{name}"' for name in endpoint.group_by)
        assert db.execute(f"SELECT {columns} FROM dims").fetchall() == [dims]
    db.close()


def test_adding_columns_twice_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step that adds columns adds each of them once, however often it runs."""
    path = tmp_path / "state.db"
    Store(path).close()
    monkeypatch.setitem(STORED, NEW_BOTH.name, NEW_BOTH)
    with sqlite3.connect(path) as db:
        assert missing_columns(db) == [
            ("readings", "frames", "INTEGER"),
            ("dims", "region", "TEXT"),
        ]
        add_missing_columns(db)
        add_missing_columns(db)
        assert missing_columns(db) == []
    db.close()


def test_a_broken_column_step_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If one column can't be added, none is; the next start tries again."""
    path = tmp_path / "state.db"
    Store(path).close()
    # SQLite ignores the case of names, so this column exists already.
    broken = endpoint((_FRAMES, _REQUESTS), ("project_id", "KEY"))
    monkeypatch.setitem(STORED, broken.name, broken)
    with pytest.raises(StateError, match="migrated"):
        Store(path)
    monkeypatch.setitem(STORED, NEW_BOTH.name, NEW_BOTH)
    with sqlite3.connect(path) as db:
        assert ("readings", "frames", "INTEGER") in missing_columns(db)
    db.close()
    Store(path).close()


def test_a_reader_says_that_columns_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that only reads does not add columns; it says which ones are missing and what to
    do."""
    path = tmp_path / "state.db"
    Store(path).close()
    monkeypatch.setitem(STORED, NEW_MEASURE.name, NEW_MEASURE)
    with (
        pytest.raises(StateError, match=r"readings\.frames.*start `otel-openai-usage run` once"),
        open_read_only(path),
    ):
        pass
    Store(path).close()
    with open_read_only(path):
        pass


def test_endpoints_agree_on_columns() -> None:
    """A measure is money in every endpoint or in none, and no endpoint's column has the name of a
    column of every row.
    """
    endpoints = [*STORED.values(), METERED]
    money = {
        measure.name for endpoint in endpoints for measure in endpoint.measures if measure.money
    }
    whole = {
        measure.name for endpoint in endpoints for measure in endpoint.measures if not measure.money
    }
    assert money & whole == set()
    assert (money | whole) & {"source_id", "width", "start", "dims"} == set()
    fixed = {"id", "source_id", "key", "total", "shown", "released", "first_seen", "changed"}
    fixed |= {"estimate", "estimate_shown"}
    assert {name for endpoint in endpoints for name in endpoint.dimensions} & fixed == set()
