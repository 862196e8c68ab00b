"""Quantities of the bill have units, and quantities of two units are never added up."""

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from otel_openai_usage.composition.stores import queries_opener
from otel_openai_usage.domain.endpoints import COSTS
from otel_openai_usage.domain.model import Width
from otel_openai_usage.providers.openai.money import quantity_units, results
from otel_openai_usage.reports import export
from otel_openai_usage.storage.quantity_units import QuantityUnits
from otel_openai_usage.storage.sqlite.store import Store
from tests.domain.shelf import MIDNIGHT
from tests.reports.test_export import dims, keep


def cost(item: str | None, quantity: object, unit: str | None) -> dict[str, Any]:
    """A costs result."""
    amount = {"value": 1, "currency": "usd"}
    return {"amount": amount, "line_item": item, "quantity": quantity, "quantity_unit": unit}


def body(*rows: dict[str, Any]) -> bytes:
    """Results of one bucket."""
    return json.dumps(rows).encode()


def test_quantities_of_one_unit_are_kept() -> None:
    """A line item in one unit keeps its quantity; the unit may be missing or unknown to us."""
    rows = body(
        cost("gpt-5, input", 10, "tokens"),
        cost("gpt-5, output", 4, None),
        cost("storage", 2.5, "gibibyte_hours"),
    )
    assert [amounts[1] for _, amounts in results(COSTS, rows)] == [10, 4, Decimal("2.5")]
    assert quantity_units(COSTS, rows) == {
        "gpt-5, input": {"tokens"},
        "storage": {"gibibyte_hours"},
    }


def test_quantities_of_two_units_are_not_added() -> None:
    """One line item in two units, and rows without a line item, have no quantity; the cost stays."""
    rows = body(
        cost("gpt-image-1", 10, "images"),
        cost("gpt-image-1", 4000, "tokens"),
        cost(None, 7, "tokens"),
    )
    assert [amounts for _, amounts in results(COSTS, rows)] == [(1, 0), (1, 0), (1, 0)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A state with costs of a day, and the units that were learnt."""
    store = Store(tmp_path / "state.db")
    said = {
        dims(COSTS, line_item=item, currency="usd"): (Decimal(6), Decimal(3))
        for item in ("a", "b", "c", "d")
    }
    keep(store, COSTS, Width.DAY, {MIDNIGHT: said})
    units = QuantityUnits(store, "default")
    units.learn({"a": {"1000_tokens"}, "b": {"images"}})
    units.learn({"b": {"tokens"}, "c": {"wishes_granted"}})
    store.close()
    return tmp_path / "state.db"


def test_focus_says_the_unit(path: Path) -> None:
    """FOCUS has OpenAI's unit, `Units` where it is not known, and no quantity where a line item was
    counted in two units at different times.
    """
    day = datetime.fromtimestamp(MIDNIGHT, UTC).date()
    text = "".join(export.lines(queries_opener(path), day, day, "focus"))
    found = {
        line["SkuId"]: (line["ConsumedQuantity"], line["ConsumedUnit"], line["PricingUnit"])
        for line in csv.DictReader(io.StringIO(text))
    }
    assert found == {
        "a": ("3", "1000 Tokens", "1000 Tokens"),
        "b": ("", "", ""),
        "c": ("3", "Wishes Granted", "Wishes Granted"),
        "d": ("3", "Units", "Units"),
    }


def test_the_export_says_the_unit(path: Path) -> None:
    """Records of costs have OpenAI's unit beside the quantity, where a line item has only one."""
    day = datetime.fromtimestamp(MIDNIGHT, UTC).date()
    text = "".join(export.lines(queries_opener(path), day, day, "csv"))
    found = {line["line_item"]: line["quantity_unit"] for line in csv.DictReader(io.StringIO(text))}
    assert found == {"a": "1000_tokens", "b": "", "c": "wishes_granted", "d": ""}


def test_units_survive_a_restart(path: Path) -> None:
    """What was learnt before a restart is added to, and nothing is written when nothing is new."""
    store = Store(path)
    units = QuantityUnits(store, "default")
    writes: list[str] = []
    store.set_note = lambda key, value: writes.append(value)  # type: ignore[method-assign]
    units.learn({"a": {"1000_tokens"}})
    assert writes == []
    units.learn({"a": {"tokens"}})
    assert json.loads(writes[0])["a"] == ["1000_tokens", "tokens"]
    store.close()
