"""Our estimate against genai-prices itself, for every model of OpenAI that it lists."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from genai_prices import Usage, data_snapshot
from genai_prices.types import ModelInfo
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otel_openai_usage.domain.endpoints import ENDPOINTS
from otel_openai_usage.domain.model import Window
from otel_openai_usage.domain.pricing import estimate
from otel_openai_usage.domain.reconciliation import Move
from otel_openai_usage.providers.openai.prices import Prices
from tests.testing.test_harness import MIDNIGHT, scene, values

COMPLETIONS = ENDPOINTS["completions"]
OPENAI = next(each for each in data_snapshot.get_snapshot().providers if each.id == "openai")
PRICES = Prices()

PARTS = (
    "input_text", "input_audio", "input_image",
    "input_cached_text", "input_cached_audio", "input_cached_image",
    "input_cache_write_30m", "input_cache_write_12h",
    "output_text", "output_audio", "output_image",
)  # fmt: skip
"""What a token is: the other numbers of a row are sums of these."""

TIERS = ("", "default", "flex", "priority", "scale")
TIMES = tuple(
    int(datetime(*day, 12, tzinfo=UTC).timestamp()) for day in ((2025, 6, 1), (2026, 11, 20))
)


def row(**parts: int) -> dict[str, int]:
    """The seventeen numbers of a row whose tokens have these parts, as OpenAI adds them up."""
    found = {**dict.fromkeys(PARTS, 0), **parts}
    uncached = found["input_text"] + found["input_audio"] + found["input_image"]
    cached = sum(found[f"input_cached_{name}"] for name in ("text", "audio", "image"))
    written = found["input_cache_write_30m"] + found["input_cache_write_12h"]
    return {
        **found,
        "input_uncached": uncached,
        "input_cached": cached,
        "input_cache_write": written,
        "input": uncached + cached + written,
        "output": sum(found[f"output_{name}"] for name in ("text", "audio", "image")),
        "requests": 1,
    }


def listed(model: ModelInfo, used: dict[str, int], time: int, context: dict[str, str]) -> Decimal:
    """What the list says, used in full: its audio tokens are cached ones, too."""
    usage = {
        "input_tokens": used["input"],
        "output_tokens": used["output"],
        "cache_read_tokens": used["input_cached"],
        "cache_write_tokens": used["input_cache_write"],
    }
    for name in ("text", "audio", "image"):
        cached = used[f"input_cached_{name}"]
        usage[f"input_{name}_tokens"] = used[f"input_{name}"] + cached
        usage[f"cache_{name}_read_tokens"] = cached
        usage[f"output_{name}_tokens"] = used[f"output_{name}"]
    said = model.calc_price(
        Usage(**usage),
        OPENAI,
        genai_request_timestamp=datetime.fromtimestamp(time, UTC),
        price_context=context,
    )
    return said.total_price


def estimated(model: str, used: dict[str, int], time: int, **dims: str) -> Decimal | None:
    """What we estimate for a row; None without a price."""
    named = {"model": model, **dims}
    key = tuple(named.get(name) for name in COMPLETIONS.dimensions)
    amounts = tuple(used[measure.name] for measure in COMPLETIONS.measures)
    found = estimate(COMPLETIONS, "acme", [Move(time + 1, key, amounts, True)], PRICES)
    return found.growth.get(key)


def names_itself(model: ModelInfo) -> str | None:
    """A name that the list takes for this model, None if it takes its id for another one."""
    return model.id if OPENAI.find_model(model.id) is model else None


MODELS = [(names_itself(model), model) for model in OPENAI.models if names_itself(model)]


@settings(max_examples=25, deadline=None)
@given(
    st.fixed_dictionaries({name: st.integers(0, 9000) for name in PARTS}),
    st.sampled_from(TIERS),
    st.sampled_from(TIMES),
)
@example(dict.fromkeys(PARTS, 1000), "", TIMES[1])
@example(dict.fromkeys(PARTS, 1000), "priority", TIMES[1])
def test_every_model_costs_what_the_list_says(parts: dict[str, int], tier: str, time: int) -> None:
    """For all models and any row, the estimate minus the list used in full is 0."""
    used = row(**parts)
    context = {"service_tier": tier} if tier else {}
    compared = 0
    for name, model in MODELS:
        said = estimated(str(name), used, time, batch="false", service_tier=tier)
        if said is None:
            continue
        assert said - listed(model, used, time, context) == 0, name
        compared += 1
    assert compared > 0.8 * len(MODELS)


@settings(max_examples=10, deadline=None)
@given(st.fixed_dictionaries({name: st.integers(0, 9000) for name in PARTS}))
def test_batches_cost_what_the_list_says(parts: dict[str, int]) -> None:
    """Wherever the list has prices of batches, the estimate is exactly those."""
    used = row(**parts)
    context = {"processing": "batch"}
    compared = 0
    for name, model in MODELS:
        if not any("processing" in variant.when for variant in model.price_variants or ()):
            continue
        said = estimated(str(name), used, TIMES[1], batch="true")
        assert said is not None
        assert said - listed(model, used, TIMES[1], context) == 0, name
        compared += 1
    assert compared > 10


def test_every_priced_model_is_estimated() -> None:
    """A model that the list has token prices for is never left out."""
    used = row(input_text=10, output_text=0)
    time = datetime.fromtimestamp(TIMES[1], UTC)
    for name, model in MODELS:
        has_price = getattr(model.get_prices(time), "input_mtok", None) is not None
        assert (estimated(str(name), used, TIMES[1]) is not None) == has_price, name


@pytest.mark.parametrize(
    ("model", "share"), [("gpt-image-1.5", "0.67"), ("gpt-realtime-mini", "0.05")]
)
def test_the_finer_numbers_matter(model: str, share: str) -> None:
    """Without them, estimates of image models were two thirds too low."""
    parts = {"input_text": 100, "output_text": 0, "output_image": 10_000}
    if model == "gpt-realtime-mini":
        parts = {"input_audio": 1000, "input_cached_audio": 9000, "output_audio": 300}
    used = row(**parts)
    old = dict(used) | {name: 0 for name in used if "image" in name or "cached_" in name}
    whole = estimated(model, used, TIMES[1])
    coarse = estimated(model, old, TIMES[1])
    assert whole is not None
    assert coarse is not None
    assert abs(whole - coarse) / whole >= Decimal(share)


async def test_the_exporter_estimates_what_the_list_says(tmp_path: Path) -> None:
    """From OpenAI's answer to the page: the estimate of each model is the list used in full, for
    what the simulated organization really used.
    """
    async with scene(tmp_path) as stage:
        usage = {"endpoints": ["completions"], "group_by": ["model", "service_tier", "batch"]}
        harness = stage.harness(usage=usage, attributes={"zero_hold": "0s"})
        await harness.start()
        await harness.poll()
        shown = values(harness.page(), "openai_api_estimated_cost_total")
        await harness.close()
        now = int(stage.clock.time) // 60 * 60
        group_by = ("model", "service_tier", "batch")
        totals = stage.world.totals("completions", Window(MIDNIGHT, now), group_by)
    names = [measure.name for measure in COMPLETIONS.measures]
    expected: dict[str, Decimal] = {}
    for dims, amounts in totals.items():
        named = dict(zip(COMPLETIONS.dimensions, dims, strict=True))
        model = OPENAI.find_model(named["model"] or "")
        if model is None:
            continue
        context = {"service_tier": named["service_tier"]} if named["service_tier"] else {}
        if named["batch"] == "true":
            context["processing"] = "batch"
        used = dict(zip(names, map(int, amounts), strict=True))
        said = listed(model, used, now, context)
        expected[str(named["model"])] = expected.get(str(named["model"]), Decimal(0)) + said
    found: dict[str, float] = {}
    for labels, value in shown.items():
        name = labels.partition('model="')[2].partition('"')[0]
        found[name] = found.get(name, 0) + value
    assert len(expected) > 2
    assert found == pytest.approx({name: float(said) for name, said in expected.items()})
