"""Prices from genai-prices' data file: read when it changes, refused as a whole if it is wrong."""

import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from genai_prices import data_snapshot
from genai_prices import types as listed
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_openai_usage.commands.check import findings
from otel_openai_usage.config import load_mapping
from otel_openai_usage.domain.endpoints import ENDPOINTS
from otel_openai_usage.providers.openai import price_list
from otel_openai_usage.providers.openai.price_list import WrongList
from otel_openai_usage.providers.openai.prices import OLD_AFTER_DAYS, Prices
from otel_openai_usage.testing import Harness
from tests.testing.test_harness import HOUR, MIDNIGHT, Scene, scene, values

COMPLETIONS = ENDPOINTS["completions"]
NOW = 1793577600
DAY = 86400
OPENAI = next(each for each in data_snapshot.get_snapshot().providers if each.id == "openai")


def model(name: str, prices: object, **more: object) -> dict[str, object]:
    """A model as the data file has it."""
    return {"id": name, "match": {"equals": name}, "prices": prices, **more}


def data(*models: object) -> list[dict[str, object]]:
    """A data file with these models of OpenAI, and another provider whose models are odd."""
    other: dict[str, object] = {"id": "other", "name": "Other", "models": [{"odd": True}]}
    return [other, {"id": "openai", "name": "OpenAI", "api_pattern": "x", "models": list(models)}]


def write(path: Path, document: object, *, at: int = NOW) -> Path:
    """Replace a file as a program does that downloads it."""
    part = path.with_suffix(".part")
    part.write_text(document if isinstance(document, str) else json.dumps(document))
    os.utime(part, (at, at))
    part.replace(path)
    return path


def input_price(prices: Prices, name: str = "new", time: int = NOW) -> Decimal | None:
    """What a million tokens in cost."""
    rates = prices.rates("acme", COMPLETIONS, {"model": name}, time)
    return None if rates is None or rates[0] is None else rates[0] * 1_000_000


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """The list of the file replaces that of the package; a newer one replaces it at once."""
    file = write(tmp_path / "data.json", data(model("new", {"input_mtok": 3, "output_mtok": 4})))
    prices = Prices(file=file)
    prices.refresh(NOW)
    assert input_price(prices) == 3
    assert input_price(prices, "gpt-4o") is None
    assert prices.dated == NOW
    newer = {"providers": data(model("new", {"input_mtok": 0.1, "output_mtok": 4})), "units": {}}
    write(file, newer, at=NOW + 60)
    assert input_price(prices) == 3
    prices.refresh(NOW + 60)
    assert input_price(prices) == Decimal("0.1")


def test_validity_dates_are_kept(tmp_path: Path) -> None:
    """A row is priced by the price that is valid at its time, whatever its place in the list."""
    dated = [
        {"prices": {"input_mtok": 10}},
        {"constraint": {"start_date": "2026-11-01"}, "prices": {"input_mtok": 2}},
    ]
    half = {
        "when": {"service_tier": "flex"},
        "prices": {"input_mtok": {"base": 1, "tiers": [{"start": 272000, "price": 3}]}},
        "constraint": {"start_date": "2026-11-01"},
    }
    file = write(tmp_path / "data.json", data(model("new", dated, price_variants=[half])))
    prices = Prices(file=file)
    prices.refresh(NOW)
    before = int(datetime(2026, 10, 31, 23, tzinfo=UTC).timestamp())
    after = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp())
    assert input_price(prices, time=before) == 10
    assert input_price(prices, time=after) == 2
    flex = {"model": "new", "service_tier": "flex"}
    rates = prices.rates("acme", COMPLETIONS, flex, after)
    assert rates is not None
    assert rates[0] == Decimal(1) / 1_000_000


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("", "Input data was truncated"),
        ("[{", "truncated"),
        ("<html>", "not the data of genai-prices"),
        ([], "no provider has the id 'openai'"),
        ({"providers": 3}, "$.providers"),
        (data(), "has no models"),
        (data({"id": "new"}), "match"),
        (data(model("new", {"input_mtok": -1})), "'new': input_mtok: expected a price from 0"),
        (data(model("new", {"input_mtok": "cheap"})), "$[0].prices"),
        (data(model("new", [])), "an empty list of prices"),
        (data(model("new", {}, match={"sounds_like": "x"})), "kind that is not known"),
        (data(model("new", {}, match={"regex": "("})), "its regex '('"),
        (data(model("new", [{"constraint": {}, "prices": {}}])), "a constraint of a kind"),
        ("[" * 10_000, "not the data of genai-prices"),
    ],
)
def test_a_wrong_file_is_refused_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, document: object, told: str
) -> None:
    """It is reported once, with what is wrong, and the last good list stays."""
    good = data(model("new", {"input_mtok": 3}))
    file = write(tmp_path / "data.json", good)
    prices = Prices(file=file)
    prices.refresh(NOW)
    write(file, document, at=NOW + 1)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            prices.refresh(NOW)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [getattr(record, "event", "") for record in warnings] == ["price_file_wrong"]
    assert told in warnings[0].getMessage()
    assert len(warnings[0].getMessage()) < 1000
    assert input_price(prices) == 3
    write(file, data(model("new", {"input_mtok": 5})), at=NOW + 2)
    prices.refresh(NOW)
    assert input_price(prices) == 5
    assert prices.problem == ""


def test_without_its_file_the_list_of_the_package_is_used(tmp_path: Path) -> None:
    """A missing file ends nothing, and is read when it comes."""
    file = tmp_path / "data.json"
    prices = Prices(file=file)
    prices.refresh(NOW)
    assert "No such file" in prices.problem
    assert input_price(prices, "gpt-4o") == Decimal("2.5")
    write(file, data(model("new", {"input_mtok": 3})))
    prices.refresh(NOW)
    assert input_price(prices) == 3


def test_an_old_list_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After 90 days one line says so; a newer file ends that."""
    file = write(tmp_path / "data.json", data(model("new", {"input_mtok": 3})))
    prices = Prices(file=file)
    prices.refresh(NOW + OLD_AFTER_DAYS * DAY)
    assert caplog.records == []
    for _ in range(3):
        prices.refresh(NOW + (OLD_AFTER_DAYS + 1) * DAY)
    assert [getattr(record, "event", "") for record in caplog.records] == ["price_list_old"]
    assert OLD_AFTER_DAYS == 90


def test_the_package_is_as_new_as_its_newest_price() -> None:
    """Prices that begin in the future do not make a list newer."""
    assert 0 < price_list.packaged().dated <= Path(listed.__file__).stat().st_mtime


def as_data(value: Any) -> Any:  # noqa: PLR0911 - one line for each type
    """A part of the package's list as the data file has it."""
    if isinstance(value, listed.ModelPrice):
        return {name: as_data(price) for name, price in vars(value).items() if price is not None}
    if isinstance(value, listed.TieredPrices):
        tiers = [{"start": tier.start, "price": as_data(tier.price)} for tier in value.tiers]
        return {"base": as_data(value.base), "tiers": tiers}
    if isinstance(value, (listed.ClauseOr, listed.ClauseAnd)):
        (name, clauses), *_ = vars(value).items()
        return {name.rstrip("_"): [as_data(each) for each in clauses]}
    if isinstance(value, list):
        return [as_data(each) for each in value]
    if isinstance(value, Decimal):
        return float(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "__dataclass_fields__"):
        found = {name: as_data(getattr(value, name)) for name in value.__dataclass_fields__}
        return {name: each for name, each in found.items() if each is not None}
    return value


def test_the_whole_list_survives_its_file(tmp_path: Path) -> None:
    """Read from a file, every model of the package's list has the prices that it had."""
    models = [
        {
            "id": each.id,
            "match": as_data(each.match),
            "prices": as_data(each.prices),
            "price_variants": as_data(each.price_variants),
        }
        for each in OPENAI.models
    ]
    found = price_list.from_file(write(tmp_path / "data.json", data(*models)))
    time = datetime(2026, 11, 20, tzinfo=UTC)
    for before, after in zip(OPENAI.models, found.provider.models, strict=True):
        for context in ({}, {"service_tier": "flex"}, {"processing": "batch"}):
            assert after.get_prices(time, context) == before.get_prices(time, context)
        assert after.is_match(before.id) == before.is_match(before.id)


@settings(max_examples=60)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["id", "match", "prices", "or", "equals", "constraint", "x"]), inner
    ),
    max_leaves=12,
))  # fmt: skip
def test_no_file_raises_anything_else(part: object) -> None:
    """Whatever stands in a model, the file is good or refused with a sentence."""
    for document in (part, data(part), data(model("new", part)), data(model("new", {"x": part}))):
        with suppress(WrongList):
            price_list.decode(json.dumps(document).encode())


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Scene]:
    """A small organization."""
    async with scene(tmp_path) as found:
        yield found


async def test_a_running_exporter_uses_the_new_prices(stage: Scene, tmp_path: Path) -> None:
    """Usage that is recorded after a change costs the new price, without a restart; the page has
    the list's age.
    """
    everything = {"regex": "."}
    free = model("free", {"input_mtok": 0, "output_mtok": 0}, match=everything)
    file = write(tmp_path / "data.json", data(free), at=MIDNIGHT)
    harness = stage.harness(prices={"file": str(file)}, attributes={"zero_hold": "0s"})
    await harness.start()
    await harness.poll()
    name = 'operation="completions"'
    estimates = values(harness.page(), "openai_api_estimated_cost_total")
    assert {value for labels, value in estimates.items() if name in labels} == {0}
    age = r"otel_openai_usage_price_list_age_seconds"
    lines = [line for line in harness.page().decode().splitlines() if line.startswith(age)]
    # Of the machine's clock: our health does not follow the clock of a test.
    assert [float(line.split()[-1]) > 0 for line in lines] == [True]
    write(file, data({**free, "prices": {"input_mtok": 1, "output_mtok": 1}}), at=MIDNIGHT + 60)
    stage.clock.time += HOUR
    await harness.poll()
    await harness.upkeep()
    later = values(harness.page(), "openai_api_estimated_cost_total")
    assert max(value for labels, value in later.items() if name in labels) > 0
    await harness.close()


def test_check_says_what_is_wrong_with_the_file(tmp_path: Path) -> None:
    """A wrong file fails, a good one is named with its age."""
    file = write(tmp_path / "data.json", "{")
    document = {
        "prices": {"file": str(file)},
        "organizations": [{"admin_key": "sk-admin-simulated"}],
        "state": {"path": ":memory:"},
        "prometheus": {"enabled": False},
    }
    said = [str(each) for each in findings(load_mapping(document, {}), {}, offline=True)]
    assert any(line.startswith("fail  prices.file: ") and "truncated" in line for line in said)
    file.write_text(json.dumps(data(model("new", {}))))
    said = [str(each) for each in findings(load_mapping(document, {}), {}, offline=True)]
    assert f"ok    prices.file: {file}, 0 days old" in said


async def test_new_prices_are_seen_without_polls(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An exporter that only takes events reads a changed file in its upkeep."""
    file = write(tmp_path / "data.json", data(model("new", {"input_mtok": 3})))
    harness = Harness(
        {
            "usage": {"enabled": False},
            "costs": {"enabled": False},
            "limits": {"enabled": False},
            "names": {"enabled": False},
            "legacy": {"enabled": False},
            "events": {"enabled": True, "port": 0},
            "prices": {"file": str(file)},
            "state": {"path": str(tmp_path / "state.db")},
            "prometheus": {"enabled": False},
        }
    )
    with caplog.at_level(logging.INFO):
        await harness.start()
        write(file, data(model("new", {"input_mtok": 4}), model("newer", {})), at=NOW + 60)
        await harness.upkeep()
        await harness.close()
    read = [each for each in caplog.records if getattr(each, "event", "") == "price_file_read"]
    assert [getattr(each, "models", 0) for each in read] == [1, 2]
