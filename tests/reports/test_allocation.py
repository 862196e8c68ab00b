"""Every file of an export divides each bill among customers, to the last digit."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from otel_openai_usage.composition.stores import open_writer, queries_opener
from otel_openai_usage.domain.endpoints import COSTS, USAGE_ENDPOINTS
from otel_openai_usage.domain.metered import Event
from otel_openai_usage.domain.model import Dims, Width, Window
from otel_openai_usage.engine import recording
from otel_openai_usage.ingest.intake import metered_sources
from otel_openai_usage.reports import export
from otel_openai_usage.simulator import past
from otel_openai_usage.simulator.world import World
from otel_openai_usage.storage.ports import Writer
from tests.domain.shelf import MIDNIGHT

DAY = date(2026, 11, 2)
MODEL = "gpt-4o-2024-08-06"
COMPLETIONS = USAGE_ENDPOINTS["completions"]


class Shop:
    """A store with the usage, the bill and the customers of one day."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = open_writer(path)
        self._events = 0

    def use(self, organization: str = "default", **tokens: int) -> None:
        """OpenAI reports tokens of project p1."""
        dims = _dims(COMPLETIONS.dimensions, project_id="p1", model=MODEL)
        amounts = tuple(tokens.get(measure.name, 0) for measure in COMPLETIONS.measures)
        self._keep(organization, "completions", {dims: amounts})

    def bill(self, costs: dict[tuple[str | None, str], str], organization: str = "default") -> None:
        """OpenAI bills line items of project p1, by line item and currency."""
        rows = {}
        for (line_item, currency), cost in costs.items():
            dims = _dims(COSTS.dimensions, project_id="p1", line_item=line_item, currency=currency)
            rows[dims] = (Decimal(cost), Decimal(1000))
        self._keep(organization, "costs", rows)

    def _keep(
        self, organization: str, name: str, rows: Mapping[Dims, tuple[int | Decimal, ...]]
    ) -> None:
        endpoint = COSTS if name == "costs" else USAGE_ENDPOINTS[name]
        state = self.store.source_state(organization, endpoint, MIDNIGHT, endpoint.group_by)
        window = Window(MIDNIGHT, MIDNIGHT + Width.DAY)
        recording.record_range(
            self.store, state, window, Width.DAY, {MIDNIGHT: rows}, MIDNIGHT + Width.DAY
        )

    def meter(
        self, *customers: tuple[str, int], organization: str = "default", **more: str
    ) -> None:
        """Customers' output tokens."""
        states = metered_sources(self.store, [organization], more, MIDNIGHT)
        events = []
        for customer, output in customers:
            self._events += 1
            dims = (customer, MODEL, "openai", None, *more.values())
            identity = self._events.to_bytes(16, "big")
            events.append(Event(identity, b"", MIDNIGHT, dims, (0, output, 0, 0, 1)))
        recording.record_events(self.store, states, events, MIDNIGHT + 60, Width.DAY)

    def exported(self, form: str = "csv", **options: object) -> list[dict[str, str]]:
        """The lines of the day's file."""
        text = "".join(
            export.lines(queries_opener(self.path), DAY, DAY, form, **options)  # type: ignore[arg-type]
        )
        return list(csv.DictReader(io.StringIO(text)))


def _dims(names: tuple[str, ...], **values: str | None) -> Dims:
    return tuple(values.get(name) for name in names)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """A new store."""
    found = Shop(tmp_path / "state.db")
    yield found
    found.store.close()


OUTPUT = f"{MODEL}, output"
BILL = {
    (OUTPUT, "usd"): "1.0000000001",
    (f"{MODEL}, input", "usd"): "0.10",
    ("web search tool calls", "usd"): "0.07",
    (None, "eur"): "-2.5",
}


def test_records_have_the_parts_of_each_bill(shop: Shop) -> None:
    """Records `allocated` name customer and amount; `cost` stays the bill; the column is the last."""
    shop.use(output=100, input=10)
    shop.bill(BILL)
    shop.meter(("acme", 30), ("bolt", 20), ("acme", 10))
    lines = shop.exported()
    assert list(lines[0])[-1] == "allocated_cost"
    found = {
        (line["line_item"], line["currency"], line["subject"]): line["allocated_cost"]
        for line in lines
        if line["record"] == "allocated"
    }
    assert found == {
        (OUTPUT, "usd", "acme"): "0.4000000000",
        (OUTPUT, "usd", "bolt"): "0.2000000000",
        (OUTPUT, "usd", "(unmetered)"): "0.4000000001",
        (f"{MODEL}, input", "usd", "(unmetered)"): "0.10",
        ("web search tool calls", "usd", "(shared)"): "0.07",
        ("", "eur", "(shared)"): "-2.5",
    }
    assert sum(Decimal(line["cost"] or 0) for line in lines) == Decimal("-1.3299999999")
    (part, *_) = [line for line in lines if line["record"] == "allocated"]
    assert (part["date"], part["project_id"], part["width"]) == ("2026-11-02", "p1", "1d")
    assert not part["cost"]


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_focus_rows_are_replaced_by_their_parts(shop: Shop, version: str) -> None:
    """BilledCost and quantity still sum to the bill, in each currency."""
    shop.use(output=100)
    shop.bill(BILL)
    shop.meter(("acme", 30), ("bolt", 20))
    lines = shop.exported("focus", version=version)
    whole = shop.exported("focus", version=version, allocates=False)
    assert (len(lines), len(whole)) == (6, 4)
    for currency in ("USD", "EUR"):
        for column in ("BilledCost", "EffectiveCost", "ConsumedQuantity", "PricingQuantity"):
            assert _sum(lines, column, currency) == _sum(whole, column, currency)
    found = {line["x_Customer"]: line for line in lines if line["SkuId"] == OUTPUT}
    assert found.keys() == {"acme", "bolt", "(unmetered)"}
    acme = found["acme"]
    assert (acme["BilledCost"], acme["ConsumedQuantity"]) == ("0.3000000000", "300")
    assert not any(line["x_Customer"] for line in whole)
    if version == "1.3":
        details = json.loads(acme["AllocatedMethodDetails"])
        assert details == {"Elements": [{"AllocatedRatio": 0.3, "UsageUnit": "Tokens"}]}
        assert acme["AllocatedMethodId"] == "MeteredTokens"
        assert acme["AllocatedResourceId"] == acme["AllocatedResourceName"] == "acme"
        assert json.loads(acme["AllocatedTags"]) == {"customer": "acme"}


def _sum(lines: list[dict[str, str]], column: str, currency: str) -> Decimal:
    values = [line[column] for line in lines if line["BillingCurrency"] == currency]
    return sum((Decimal(value) for value in values if value), Decimal(0))


def test_a_bill_that_changes_is_allocated_again(shop: Shop) -> None:
    """The parts follow the bill of the moment, as often as OpenAI corrects it."""
    shop.use(output=4)
    shop.meter(("acme", 1))
    for cost in ("1.00", "0.80", "0.99"):
        shop.bill({(OUTPUT, "usd"): cost})
        found = {
            line["subject"]: Decimal(line["allocated_cost"])
            for line in shop.exported()
            if line["record"] == "allocated"
        }
        assert sum(found.values()) == Decimal(cost)
        assert found["acme"] in (Decimal(cost) / 4, Decimal("0.24"))


def test_without_events_bills_stay_whole(shop: Shop) -> None:
    """An organization that takes no events has no parts; another one is not concerned."""
    shop.bill({(OUTPUT, "usd"): "1"})
    shop.bill({(OUTPUT, "usd"): "2"}, organization="other")
    shop.meter(("acme", 1), organization="other")
    parts = [line for line in shop.exported() if line["record"] == "allocated"]
    assert [(line["organization"], line["allocated_cost"]) for line in parts] == [("other", "2")]
    assert [line["x_Customer"] for line in shop.exported("focus")] == ["", "acme"]


def test_events_may_bring_their_project(shop: Shop) -> None:
    """`events.attributes.project_id` says whose bill an event explains; it has a column of its own."""
    shop.use(output=10)
    shop.bill({(OUTPUT, "usd"): "1.0"})
    shop.meter(("acme", 5), project_id="p1")
    shop.meter(("bolt", 5), project_id="p2")
    lines = shop.exported()
    parts = {line["subject"]: line["allocated_cost"] for line in lines if line["allocated_cost"]}
    assert parts == {"acme": "0.5", "(unmetered)": "0.5"}
    metered = [line for line in lines if line["record"] == "metered"]
    assert [(line["project_id"], line["attributes"]) for line in metered] == [
        ("p1", ""),
        ("p2", ""),
    ]


def test_a_simulated_month_sums_to_its_bill(tmp_path: Path) -> None:
    """The world's own bill and events: every day, project and line item adds up exactly."""
    store: Writer = open_writer(tmp_path / "state.db")
    world = World(seed=7)
    end = MIDNIGHT + 3 * Width.DAY
    past.fill(store, world, "default", MIDNIGHT, end)
    events = metered_sources(store, ["default"], (), MIDNIGHT)["default"]
    from otel_openai_usage.simulator import customers

    hours = {
        hour: customers.metered(world, Window(hour, hour + Width.HOUR))
        for hour in range(MIDNIGHT, end, Width.HOUR)
    }
    recording.record_range(store, events, Window(MIDNIGHT, end), Width.HOUR, hours, end)
    store.close()
    text = "".join(
        export.lines(queries_opener(tmp_path / "state.db"), DAY, DAY + timedelta(2), "csv")
    )
    billed: dict[tuple[str, ...], Decimal] = {}
    parts: dict[tuple[str, ...], Decimal] = {}
    for line in csv.DictReader(io.StringIO(text)):
        key = tuple(line[name] for name in ("date", "project_id", "line_item", "currency"))
        if line["record"] == "cost":
            billed[key] = billed.get(key, Decimal(0)) + Decimal(line["cost"])
        elif line["record"] == "allocated":
            parts[key] = parts.get(key, Decimal(0)) + Decimal(line["allocated_cost"])
    assert billed == parts
    assert len(billed) > 20
