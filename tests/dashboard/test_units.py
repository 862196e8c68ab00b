"""Tests of numbers as people read them."""

import pytest

from otel_openai_usage.dashboard import units
from otel_openai_usage.dashboard.chart_parts import ticks
from otel_openai_usage.dashboard.items import Item, split
from otel_openai_usage.domain.spreadsheet import safe


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "$0.00"), (0.004, "<$0.01"), (0.42, "$0.42"), (999.994, "$999.99"), (4321.4, "$4,321"), (9999.7, "$10.0k"),
     (12345, "$12.3k"), (999_960, "$1.00M"), (1_234_567, "$1.23M"), (-50.2, "−$50.20")],
)  # fmt: skip
def test_money(value: float | None, text: str) -> None:
    """Cents below a thousand, three digits above ten thousand; what costs something is never shown
    as nothing.
    """
    assert units.money(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (950, "950"), (4210, "4.21k"), (4_200_000, "4.2M"), (6_990_000_000, "6.99B")],
)
def test_counts(value: int, text: str) -> None:
    """Three significant digits, and no zeros that say nothing."""
    assert units.count(value) == text


def test_other_currencies_say_which() -> None:
    """A currency without a sign of its own stands behind the number."""
    assert (units.money(12.5, "eur"), units.money(12.5, "chf")) == ("€12.50", "12.50 CHF")


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("gpt-4o-2024-08-06, input", Item("gpt-4o-2024-08-06", "input")),
        ("gpt-4o-2024-08-06, cached input", Item("gpt-4o-2024-08-06", "cached input")),
        ("gpt-image-1 image, output", Item("gpt-image-1", "image output")),
        ("ft:gpt-4o:acme::abc, output", Item("ft:gpt-4o:acme::abc", "output")),
        ("web search tool calls", Item(None, "web search tool calls")),
        ("file search, storage", Item(None, "file search, storage")),
        (None, Item(None, "not itemised")),
    ],
)
def test_line_items_are_split_where_they_can_be(text: str | None, item: Item) -> None:
    """A line item that names no model stands for itself."""
    assert split(text) == item


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1"])
def test_a_spreadsheet_sees_text(text: str) -> None:
    """What a spreadsheet would take for a formula begins with an apostrophe, and has one before the
    sign; anything else is as it was.
    """
    assert safe(text).startswith("'")
    assert f"'{text.strip()}" in safe(text)
    assert safe("gpt-4o") == "gpt-4o"


@pytest.mark.parametrize("highest", [0.0, 0.003, 1, 7, 99, 100, 101, 12_345, 3e9])
def test_axes_have_few_round_numbers(highest: float) -> None:
    """Two to six ticks from 0, the last not below the highest value."""
    places = ticks(highest)
    assert places[0] == 0
    assert 2 <= len(places) <= 6
    assert places[-1] >= highest * 0.999


def test_an_axis_goes_below_zero_where_it_must() -> None:
    """Credits that outweigh a day's cost have space below 0, in the same steps."""
    assert ticks(10, -4) == [-5, 0, 5, 10]
    assert ticks(0, -3) == [-3, -2, -1, 0]


@pytest.mark.parametrize(
    ("text", "model", "charged"),
    [
        ("gpt-6-astra, input_tokens", "gpt-6-astra", "input"),
        ("gpt-6-astra, cached_input_tokens", "gpt-6-astra", "cached input"),
        ("gpt-5.4-mini, cache_write_30m_tokens", "gpt-5.4-mini", "cache write 30m"),
        ("gpt-5, output_tokens (priority)", "gpt-5", "output priority"),
        ("gpt-5 batch, cached_input_tokens", "gpt-5", "batch cached input"),
        ("gpt-4o-audio-preview, audio_input_tokens", "gpt-4o-audio-preview", "audio input"),
        ("gpt-4o, web search tool calls", "gpt-4o", "web search tool calls"),
        (
            "ft:gpt-4o-mini-2024-07-18:acme:bot:a1B2, output",
            "ft:gpt-4o-mini-2024-07-18:acme:bot:a1B2",
            "output",
        ),
        ("o3, reasoning_output_tokens", "o3", "reasoning output"),
        ("whisper-1, duration_seconds", "whisper-1", "duration seconds"),
    ],
)
def test_a_class_may_be_spelt_with_underscores(text: str, model: str, charged: str) -> None:
    """Token classes are understood in each of OpenAI's spellings."""
    assert split(text) == Item(model, charged)


@pytest.mark.parametrize(
    "text",
    [
        "web search tool calls",
        "Image models",
        "Storage, file search calls",
        "gpt-6-astra, dreams",
        "gpt-6-astra, cached",
        "Tax, Ireland",
        "gpt-4o",
        ", input",
    ],
)
def test_an_unknown_line_item_stays_whole(text: str) -> None:
    """What is not understood is one charge of its own, and never a model."""
    assert split(text) == Item(None, text)
