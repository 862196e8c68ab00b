"""How a line item of the bill is split into model and token class."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otel_openai_usage.domain.line_item import LineItem, billed_tokens, split

MODELS = ("gpt-4o-2024-08-06", "gpt-6-astra", "o3", "ft:gpt-4o-mini-2024-07-18:acme:bot:a1B2")


@pytest.mark.parametrize(
    ("text", "model", "token_class"),
    [
        ("gpt-4o-2024-08-06, input", "gpt-4o-2024-08-06", "input"),
        ("gpt-4o-2024-08-06, cached input", "gpt-4o-2024-08-06", "input_cached"),
        ("gpt-4o-2024-08-06, output", "gpt-4o-2024-08-06", "output"),
        ("gpt-6-astra, input_tokens", "gpt-6-astra", "input"),
        ("gpt-6-astra, cached_input_tokens", "gpt-6-astra", "input_cached"),
        ("gpt-6-astra, output_tokens", "gpt-6-astra", "output"),
        ("gpt-6-astra, cache_write_30m_tokens", "gpt-6-astra", "input_cache_write_30m"),
        ("gpt-6-astra, cache_write_12h_tokens", "gpt-6-astra", "input_cache_write_12h"),
        ("gpt-5.6-sol, cache writes", "gpt-5.6-sol", "input_cache_write"),
        ("gpt-image-1 text, input", "gpt-image-1", "input_text"),
        ("gpt-image-1.5-2025-12-16 image, cached input", "gpt-image-1.5-2025-12-16", "input_cached_image"),
        ("gpt-image-2.5-flare image, output", "gpt-image-2.5-flare", "output_image"),
        ("gpt-audio-mini-2025-12-15 audio, input", "gpt-audio-mini-2025-12-15", "input_audio"),
        ("gpt-realtime, cached_audio_input_tokens", "gpt-realtime", "input_cached_audio"),
        ("priority | gpt-5.6-sol, output, long context", "gpt-5.6-sol", "output"),
        ("gpt-5 batch, cached_input_tokens", "gpt-5", "input_cached"),
        ("whisper-1, duration_seconds", "whisper-1", None),
        ("gpt-4o, web search tool calls", "gpt-4o", None),
        ("dall-e-3, images", "dall-e-3", None),
        ("o3, training", "o3", None),
        ("o3, reasoning_output_tokens", "o3", None),
        ("o3, text audio input", "o3", None),
        ("web search tool calls", None, None),
        ("file search, storage", None, None),
        ("Vector storage", None, None),
        ("Image models", None, None),
        ("magic | gpt-5, input", None, None),
        ("| gpt-5, input", None, None),
        ("gpt-5, input, dreams", None, None),
    ],
)  # fmt: skip
def test_a_line_item_says_its_model_and_token_class(
    text: str, model: str | None, token_class: str | None
) -> None:
    """Every spelling that OpenAI used is split; anything else stays whole."""
    item = split(text)
    assert (item.model, item.token_class) == (model, token_class)


@pytest.mark.parametrize(
    ("text", "tier"),
    [
        ("priority | gpt-5.6-sol, output, long context", "priority"),
        ("gpt-5, output_tokens (flex)", "flex"),
        ("gpt-5 batch, cached_input_tokens", "batch"),
        ("gpt-5, input", None),
        ("gpt-5 standard, input", None),
        ("priority support", None),
    ],
)
def test_a_line_item_says_its_service_tier(text: str, tier: str | None) -> None:
    """The tier is known wherever it stands, and is none where the item has no model."""
    assert split(text).service_tier == tier


@given(st.text(max_size=60))
@example("a|b|c, input")
@example("| , |")
def test_what_is_not_understood_is_kept_whole(text: str) -> None:
    """Any text is either split into a model and known words, or returned as it was."""
    item = split(text)
    if item.model is None:
        assert item.charged == (text or "not itemised")
        assert item.token_class is None
    else:
        assert item.model in text


@given(
    st.sampled_from(MODELS),
    st.sampled_from(["input", "output", "cached input", "cache write 30m", "cache write 12h"]),
    st.sampled_from(["", " tokens"]),
    st.booleans(),
    st.sampled_from([None, "priority", "flex", "batch"]),
)
def test_underscores_and_tiers_change_no_class(
    model: str, words: str, suffix: str, underscores: bool, tier: str | None
) -> None:
    """The class does not depend on the spelling, nor on the tier that is named beside it."""
    behind = words + suffix
    text = f"{model}, {behind.replace(' ', '_') if underscores else behind}"
    plain = split(f"{model}, {words}")
    item = split(f"{tier} | {text}" if tier else text)
    assert (item.model, item.token_class) == (model, plain.token_class)
    assert item.token_class is not None
    assert item.service_tier == tier


def test_an_item_without_text_is_not_itemised() -> None:
    """Costs that are not grouped by line item have neither model nor class."""
    assert split(None) == LineItem(None, "not itemised")


def test_billed_input_leaves_out_what_has_lines_of_its_own() -> None:
    """OpenAI reports cached and written tokens as part of input, and bills them apart."""
    used = {"input": 100, "input_cached": 30, "input_cache_write": 20, "input_text": 45}
    assert billed_tokens("input", used) == 50
    assert billed_tokens("input_cached", used) == 30
    assert billed_tokens("input_text", used) == 45
    assert billed_tokens("output", used) == 0
    assert billed_tokens("input", {"input": 1, "input_cached": 2}) == 0
