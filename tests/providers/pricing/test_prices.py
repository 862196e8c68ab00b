from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from otel_openai_usage.domain.endpoints import ENDPOINTS, LEGACY
from otel_openai_usage.domain.model import Amounts
from otel_openai_usage.domain.pricing import Rates, Unpriced, estimate
from otel_openai_usage.domain.reconciliation import Move
from otel_openai_usage.errors import ConfigError
from otel_openai_usage.providers.openai.prices import Prices

NOW = int(datetime(2026, 11, 2, tzinfo=UTC).timestamp())
COMPLETIONS = ENDPOINTS["completions"]


def cost(
    prices: Prices,
    model: str,
    organization: str = "acme",
    time: int = NOW,
    endpoint: str = "completions",
    **amounts: object,
) -> Decimal | None:
    """What these amounts cost; None without a price. `batch` and `service_tier` are dimensions."""
    dims: dict[str, str] = {
        name: str(amounts.pop(name)) for name in ("batch", "service_tier") if name in amounts
    }
    dims["model"] = model
    rates: Rates | None = prices.rates(organization, ENDPOINTS[endpoint], dims, time)
    if rates is None:
        return None
    names = [measure.name for measure in ENDPOINTS[endpoint].measures]
    return sum(
        (
            Decimal(str(amount)) * (rates[names.index(name)] or 0)
            for name, amount in amounts.items()
        ),
        Decimal(0),
    )


def amounts(*first: int) -> Amounts:
    """Amounts of completions: their first numbers, and 0 for the others."""
    return first + COMPLETIONS.zero[len(first) :]


@pytest.fixture(scope="module")
def prices() -> Prices:
    """List prices alone."""
    return Prices()


def test_cached_input_is_part_of_input(prices: Prices) -> None:
    """A million tokens, half of them cached: half at the full price, half at the cached one, never
    both.
    """
    said = cost(prices, "gpt-4o-2024-08-06", input=1_000_000, output=100_000, input_cached=500_000)
    assert said == Decimal("1.25") + Decimal("0.625") + 1


def test_the_price_is_that_of_the_bucket(prices: Prices) -> None:
    """o3 cost 10 dollars for a million tokens on 2025-05-01, and 2 on 2025-08-01."""
    for day, dollars in (
        (datetime(2025, 5, 1, tzinfo=UTC), 10),
        (datetime(2025, 8, 1, tzinfo=UTC), 2),
    ):
        assert cost(prices, "o3-2025-04-16", time=int(day.timestamp()), input=1_000_000) == dollars


def test_batches_and_tiers_have_their_own_prices(prices: Prices) -> None:
    """A batch costs half, also before the list said so; flex costs what the list says."""
    assert cost(prices, "gpt-5-2025-08-07", input=1_000_000, output=0, batch="true") == Decimal(
        "0.625"
    )
    early = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp())
    assert cost(prices, "gpt-5-2025-08-07", time=early, input=1_000_000, batch="true") == Decimal(
        "0.625"
    )
    assert cost(prices, "gpt-5-2025-08-07", input=1_000_000, batch="false") == Decimal("1.25")
    assert cost(prices, "gpt-5-2025-08-07", input=1_000_000, service_tier="priority") == Decimal(
        "2.5"
    )


def test_what_is_not_counted_in_tokens(prices: Prices) -> None:
    """Characters, seconds and searches have prices; moderations are free; sessions and old images
    have none.
    """
    assert cost(prices, "tts-1", endpoint="audio_speeches", characters=1_000_000) == 15
    assert cost(prices, "whisper-1", endpoint="audio_transcriptions", audio=3600) == Decimal("0.36")
    assert cost(prices, "gpt-5", endpoint="web_search_calls", searches=1000) == 10
    assert cost(prices, "", endpoint="file_search_calls", searches=1000) == Decimal("2.5")
    assert cost(prices, "omni-moderation-2024-09-26", endpoint="moderations", input=10**9) == 0
    assert cost(prices, "dall-e-3", endpoint="images", images=1) is None
    assert cost(prices, "", endpoint="code_interpreter_sessions", sessions=1) is None


def test_prices_of_ones_own() -> None:
    """A private model has the price that it is given, a discount is taken off the list, another
    organization pays the list.
    """
    self_metrics = {
        "*": {"discount": "0.1"},
        "private": {"input": 3, "output": "4.5"},
        "code_interpreter_sessions": {"sessions": 0.03},
    }
    prices = Prices({"acme": self_metrics})
    assert cost(prices, "gpt-5-2025-08-07", input=1_000_000) == Decimal("1.125")
    assert cost(prices, "private", input=1_000_000, output=2_000_000) == 12
    assert cost(prices, "", endpoint="code_interpreter_sessions", sessions=2) == Decimal("0.06")
    assert cost(prices, "gpt-5-2025-08-07", organization="other", input=1_000_000) == Decimal(
        "1.25"
    )
    assert cost(prices, "private", organization="other", input=1) is None


def test_every_wrong_price_is_told() -> None:
    """All problems at once, each with its path."""
    with pytest.raises(ConfigError) as caught:
        Prices({"acme": {"m": {"inptu": 1, "input": "cheap"}, "n": "free", "o": {"discount": 2}}})
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "prices.overrides.acme.m.inptu",
        "prices.overrides.acme.m.input",
        "prices.overrides.acme.n",
        "prices.overrides.acme.o.discount",
    ]


def test_an_unknown_model_is_counted_never_free(prices: Prices) -> None:
    """Tokens without a price are counted by model, and nothing is estimated for them; what cancels
    out is not counted.
    """
    known = ("p", None, None, "gpt-5-2025-08-07", None, None, None)
    unknown = ("p", None, None, "gpt-99", None, None, None)
    moves = [
        Move(NOW, known, amounts(1_000_000, 0, 0, 0, 0, 0, 1), True),
        Move(NOW, unknown, amounts(7, 3, 0, 0, 0, 0, 1), True),
        Move(NOW, unknown, amounts(-2, 0, 0, 0, 0, 0, 0), True),
    ]
    found = estimate(COMPLETIONS, "acme", moves, prices)
    assert found.growth == {known: Decimal("1.25")}
    assert found.unpriced == {Unpriced("gpt-99", "tokens", "unknown_model"): 8}


def test_what_moves_to_another_bucket_keeps_its_price(prices: Prices) -> None:
    """A coarse row that fine ones replace: the cost is the same to the last digit."""
    dims = ("p", None, None, "gpt-5-2025-08-07", None, None, None)
    moves = [
        Move(NOW, dims, amounts(-123_457, 0, -1_001, 0, 0, 0, -3), True),
        Move(NOW - 60, dims, amounts(123_457, 0, 1_001, 0, 0, 0, 3), True),
    ]
    assert estimate(COMPLETIONS, "acme", moves, prices).growth == {dims: 0}


def test_before_the_epoch_it_does_not_count(prices: Prices) -> None:
    """Past usage has an estimate by the day, but no counter grows by it."""
    dims = ("p", None, None, "gpt-5-2025-08-07", None, None, None)
    found = estimate(
        COMPLETIONS, "acme", [Move(NOW, dims, amounts(1_000_000, 0, 0, 0, 0, 0, 1), False)], prices
    )
    assert (found.growth, found.days) == ({}, {(dims, NOW - 86_400): Decimal("1.25")})


def test_legacy_records_are_priced_where_they_can_be(prices: Prices) -> None:
    """Tokens of a known model have a price; images in the same kind have none, and are not free."""
    dims = tuple("gpt-4o-2024-08-06" if name == "model" else None for name in LEGACY.dimensions)
    amounts = {"input": 1_000_000}
    row = tuple(amounts.get(measure.name, 0) for measure in LEGACY.measures)
    assert estimate(LEGACY, "acme", [Move(NOW, dims, row, True)], prices).growth == {
        dims: Decimal("2.5")
    }
    picture = tuple(1 if measure.name == "images" else 0 for measure in LEGACY.measures)
    assert estimate(LEGACY, "acme", [Move(NOW, dims, picture, True)], prices).growth == {}


TOKENS_OF = {
    "input_text": "input", "input_audio": "input", "input_image": "input",
    "input_cached": "input", "input_cached_text": "input_cached",
    "input_cached_audio": "input_cached", "input_cached_image": "input_cached",
    "input_cache_write": "input", "input_cache_write_30m": "input_cache_write",
    "input_cache_write_12h": "input_cache_write", "output_text": "output",
    "output_audio": "output", "output_image": "output",
}  # fmt: skip
"""Each kind of tokens, and what it is a part of."""


@pytest.mark.parametrize("kind", TOKENS_OF)
def test_every_kind_of_tokens_has_a_price_of_ones_own(kind: str) -> None:
    """A million tokens that are all of one kind cost its own price; the others their whole's."""
    prices = Prices({"acme": {"private": {"input": 3, "output": 5, kind: 70}}})
    used: dict[str, Any] = {kind: 1_000_000}
    whole = kind
    while whole in TOKENS_OF:
        whole = TOKENS_OF[whole]
        used[whole] = 1_000_000
    assert cost(prices, "private", **used) == 70
    used.pop(kind)
    assert cost(prices, "private", **used) == {"input": 3, "output": 5}[whole]
    used |= {kind: 1_000_000, "batch": "true"}
    assert cost(prices, "private", **used) == 35
