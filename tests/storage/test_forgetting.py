"""`state forget` moves a customer to `(forgotten)`: nothing of it is left, every sum stays."""

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from otel_openai_usage.cli import answer
from otel_openai_usage.composition.stores import open_writer, queries_opener
from otel_openai_usage.config import Location
from otel_openai_usage.domain.metered import Event
from otel_openai_usage.domain.model import Width
from otel_openai_usage.engine import recording
from otel_openai_usage.ingest.intake import metered_sources
from otel_openai_usage.providers.openai.prices import Prices
from otel_openai_usage.storage.ports import Writer
from otel_openai_usage.storage.results import UsageRow
from tests.domain.shelf import MIDNIGHT
from tests.storage.conftest import OpenStore

MODEL = "gpt-4o-2024-08-06"


def meter(store: Writer, *events: tuple[str, int, int], attributes: Sequence[str] = ()) -> None:
    """Customers' output tokens, in hours of the day."""
    states = metered_sources(store, ["default", "other"], attributes, MIDNIGHT)
    found = []
    for number, (customer, hour, output) in enumerate(events):
        identity = f"{customer}{hour}{number}".encode().ljust(16)[:16]
        dims = (customer, MODEL, "openai", None, *["x" for _ in attributes])
        time = MIDNIGHT + hour * Width.HOUR
        organization = "other" if hour % 2 else None
        found.append(Event(identity, b"", time, dims, (1, output, 0, 0, 1), organization))
    recording.record_events(store, states, found, MIDNIGHT + Width.DAY, Width.DAY, prices=Prices())


def rows(location: Location) -> list[UsageRow]:
    """Sums by organization and customer."""
    with queries_opener(location)() as stored:
        assert stored.totals_disagreeing() is None
        return stored.usage(
            MIDNIGHT, MIDNIGHT + Width.DAY, by=("organization", "subject"), record="metered"
        )


def sums(found: Sequence[UsageRow]) -> tuple[int, int, int, Decimal]:
    """Of everything."""
    return (
        sum(row.input for row in found),
        sum(row.output for row in found),
        sum(row.requests for row in found),
        sum((row.estimate or Decimal(0) for row in found), Decimal(0)),
    )


def test_sums_stay_and_the_customer_is_gone(open_store: OpenStore, location: Location) -> None:
    """Two customers are forgotten one after the other: rows, totals and costs add up as before."""
    store = open_store()
    meter(store, ("acme", 0, 5), ("acme", 1, 7), ("bolt", 0, 11), ("bolt", 3, 13), ("cord", 0, 17))
    before = sums(rows(location))
    assert before[3] > 0
    assert store.forget(lambda customer: customer == "acme") == 1
    assert store.forget(lambda customer: customer == "bolt") == 1
    assert store.forget(lambda customer: customer == "acme") == 0
    found = rows(location)
    assert sums(found) == before
    assert {row.group: row.output for row in found} == {
        ("default", "(forgotten)"): 16,
        ("default", "cord"): 17,
        ("other", "(forgotten)"): 20,
    }
    store.close()
    # Counting goes on, with the totals that were moved.
    again = open_store()
    states = metered_sources(again, ["default"], (), MIDNIGHT)
    totals = {one.dims[0]: one.total[1] for one in states["default"].series.values()}
    assert totals == {"(forgotten)": 16, "cord": 17}
    shown = {one.dims[0]: one.estimate for one in states["default"].series.values()}
    assert sum(cost for cost in shown.values() if cost) == sum(
        row.estimate or 0 for row in found if row.group[0] == "default"
    )


def test_attributes_of_events_stay(open_store: OpenStore, location: Location) -> None:
    """Only the customer is forgotten, not the team."""
    store = open_store()
    meter(store, ("acme", 0, 5), ("bolt", 0, 6), attributes=["team"])
    store.forget(lambda customer: customer in ("acme", "bolt"))
    with queries_opener(location)() as stored:
        found = stored.usage(MIDNIGHT, MIDNIGHT + Width.DAY, by=("key",), record="metered")
    (key,) = {row.group[0] for row in found if row.output}
    assert json.loads(key or "") == {
        "subject": "(forgotten)", "model": MODEL, "type": "openai", "team": "x",
    }  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of a state file with customers."""
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"state": {"path": str(tmp_path / "state.db")}}))
    store = open_writer(tmp_path / "state.db")
    meter(store, ("a customer of ours", 0, 5), ("bolt", 0, 6))
    store.close()
    return path


def test_the_command_leaves_no_trace_in_the_file(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends with 0; the file has no byte of the name any more. Once more it is not known: 1."""
    command = ["state", "forget", "-c", str(config), "--subject", "a customer of ours"]
    assert b"a customer of ours" in (tmp_path / "state.db").read_bytes()
    assert answer(command) == 0
    assert "all sums are the same" in capsys.readouterr().out
    assert {row.group[1] for row in rows(tmp_path / "state.db")} == {"(forgotten)", "bolt"}
    for file in tmp_path.glob("state.db*"):
        assert b"a customer of ours" not in file.read_bytes()
    assert answer(command) == 1
    assert "nothing is stored of" in capsys.readouterr().err


def test_a_customer_may_be_named_by_its_hash(config: Path, tmp_path: Path) -> None:
    """Who sees only hashes can forget a customer by one."""
    from otel_openai_usage.domain.pseudonyms import Pseudonyms

    store = open_writer(tmp_path / "state.db")
    shown = Pseudonyms(frozenset({"subject"}), store.hash_key()).of("subject", "bolt")
    store.close()
    assert answer(["state", "forget", "-c", str(config), "--subject", shown]) == 0
    assert "bolt" not in {row.group[1] for row in rows(tmp_path / "state.db")}


def test_a_running_exporter_must_be_stopped_first(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would write the customer again: the command says so, and changes nothing."""
    store = open_writer(tmp_path / "state.db")
    try:
        assert answer(["state", "forget", "-c", str(config), "--subject", "bolt"]) == 1
        assert "stop it first" in capsys.readouterr().err
        assert "bolt" in {row.group[1] for row in rows(tmp_path / "state.db")}
    finally:
        store.close()
