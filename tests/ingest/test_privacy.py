"""`attributes.hash`: no customer's name leaves the state, and each has one hash everywhere."""

import re
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from otel_openai_usage.composition.stores import queries_opener
from otel_openai_usage.dashboard.data import read
from otel_openai_usage.domain.pseudonyms import Pseudonyms
from otel_openai_usage.errors import StateError
from otel_openai_usage.reports import export
from otel_openai_usage.storage.sqlite.store import Store
from otel_openai_usage.view.attributes import AttributePolicy
from tests.ingest.conftest import NOW, Service, event

Open = Callable[..., Awaitable[Service]]
HASHED = {"attributes__hash": ["subject", "team"], "events__attributes": {"team": "$.team"}}
DATA = {"model": "gpt-4o", "input_tokens": 1, "team": "red"}


def subjects(service: Service) -> set[object]:
    """The values of `subject` on the board."""
    points = service.exporter.board.current().points["openai.metered.tokens"]
    return {point.series.attributes["subject"] for point in points}


async def test_series_and_files_have_the_same_hash(open_service: Open) -> None:
    """Scrape, OTLP (one board), export and dashboard show one hash, and no name."""
    service = await open_service(**HASHED)
    await service.post([event(1, data=DATA), event(2, subject="bob", data=DATA)])
    await service.shown()
    shown = subjects(service)
    assert len(shown) == 2
    assert all(re.fullmatch("[0-9a-f]{16}", str(value)) for value in shown)
    opener = queries_opener(Path(service.exporter.store.path))
    text = "".join(
        export.lines(
            opener, date(2026, 11, 21), date(2026, 11, 22), "csv", hashed=["subject", "team"]
        )
    )
    assert all(str(value) in text for value in shown)
    assert not {"alice", "bob", "red"} & set(re.findall(r"\w+", text))
    with opener() as stored:
        pseudonyms = Pseudonyms(frozenset({"subject"}), stored.hash_key())
        data = read(stored, "default", NOW, pseudonyms=pseudonyms)
    assert {value for value, _ in data.options["customer"]} == shown


async def test_hashes_survive_a_restart_and_sums_stay(open_service: Open) -> None:
    """The key is kept in the state; another state has other hashes."""
    service = await open_service(**HASHED)
    await service.post(event(1, data=DATA))
    before = await service.shown()
    service = await open_service(lambda: NOW + 500, **HASHED)
    assert await service.shown() == before
    key = service.exporter.store.hash_key()
    assert service.exporter.store.hash_key() == key
    with closing(Store(":memory:")) as other:
        assert other.hash_key() != key


def test_a_hash_hides_the_name_behind_it() -> None:
    """With `user_id` hashed there is no `user_name`."""
    policy = AttributePolicy(pseudonyms=Pseudonyms(frozenset({"user_id", "project_id"}), b"k"))
    raw = {"user_id": "u", "user_name": "Ann", "project_id": "p", "project_name": "Atlas"}
    shown = policy.attributes({**raw})
    assert shown.keys() == {"user_id", "project_id"}
    assert not set(raw.values()) & set(shown.values())


def test_a_reader_needs_the_key(tmp_path: Path) -> None:
    """A state that no exporter hashed with has no key: the reader says what to do."""
    Store(tmp_path / "state.db").close()
    with pytest.raises(StateError, match="start the exporter once"):
        list(
            export.lines(
                queries_opener(tmp_path / "state.db"), date.min, date.max, "csv", hashed=["subject"]
            )
        )


def test_our_own_customers_are_not_hashed() -> None:
    """`(unmetered)` is nobody's name."""
    pseudonyms = Pseudonyms(frozenset({"subject"}), b"k")
    assert pseudonyms.of("subject", "(unmetered)") == "(unmetered)"
    assert pseudonyms.of("subject", "alice") != "alice"
    assert pseudonyms.of("model", "gpt-4o") == "gpt-4o"
