"""The parts of tokens by modality, as the GenAI conventions name them."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from otel_openai_usage.domain import gen_ai
from otel_openai_usage.domain.endpoints import TOKEN_TYPES, USAGE_ENDPOINTS

COMPLETIONS = USAGE_ENDPOINTS["completions"]
NAMES = [measure.name for measure in COMPLETIONS.measures]
NUMBER = st.integers(0, 10**9)


def amounts(**values: int) -> tuple[int, ...]:
    """Return the amounts of completions, 0 where nothing is given."""
    return tuple(values.get(name, 0) for name in NAMES)


def by_instrument(found: tuple[int, ...]) -> Counter[tuple[str, str]]:
    """Return the parts by instrument and modality."""
    parts = Counter[tuple[str, str]]()
    for part in gen_ai.parts(COMPLETIONS):
        parts[part.instrument, part.modality] += int(part.of(found))
    return parts


def test_cached_tokens_belong_to_their_modality() -> None:
    """OpenAI's input by modality is without the cache; ours of the convention is with it, and what
    OpenAI tells no modality of (here: what was written to the cache) is unknown.
    """
    found = by_instrument(
        amounts(input=1000, input_text=400, input_cached=300, input_cached_text=250,
                input_cached_image=50, input_audio=100, input_cache_write=200, output=70, output_text=60)
    )  # fmt: skip
    assert {modality: found[gen_ai.INPUT, modality] for modality in ("text", "audio", "image", "unknown")} == {
        "text": 650, "audio": 100, "image": 50, "unknown": 200,
    }  # fmt: skip
    assert found[gen_ai.OUTPUT, "text"] == 60
    assert found[gen_ai.OUTPUT, "unknown"] == 10
    assert found[gen_ai.CACHE_READ, "text"] == 250
    assert found[gen_ai.CACHE_READ, "image"] == 50
    assert found[gen_ai.CACHE_WRITE, "unknown"] == 200


@given(st.fixed_dictionaries(dict.fromkeys(TOKEN_TYPES, NUMBER)))
def test_modalities_add_up(values: dict[str, int]) -> None:
    """The modalities of an instrument add up to its measure, if the modalities that OpenAI tells do
    not exceed it.
    """
    cached = ("input_cached_text", "input_cached_audio", "input_cached_image")
    values["input_cached"] = sum(values[name] for name in cached)
    told = sum(values[f"input_{modality}"] for modality in ("text", "audio", "image"))
    values["input"] = told + values["input_cached"] + values["input_cache_write"]
    values["output"] += values["output_text"] + values["output_audio"] + values["output_image"]
    found = by_instrument(amounts(**values))
    sums = Counter[str]()
    for (instrument, _), value in found.items():
        sums[instrument] += value
    assert sums == {
        gen_ai.INPUT: values["input"],
        gen_ai.OUTPUT: values["output"],
        gen_ai.CACHE_READ: values["input_cached"],
        gen_ai.CACHE_WRITE: values["input_cache_write"],
    }


def test_embeddings_have_input_of_unknown_modality() -> None:
    """OpenAI tells no modality of embeddings; endpoints without tokens have no parts."""
    (part,) = gen_ai.parts(USAGE_ENDPOINTS["embeddings"])
    assert (part.instrument, part.modality, part.of((7, 1))) == (gen_ai.INPUT, "unknown", 7)
    assert gen_ai.parts(USAGE_ENDPOINTS["images"]) == ()


def test_every_endpoint_with_tokens_has_an_operation() -> None:
    """The table of operations has all endpoints that count tokens, and no other."""
    counting = {
        name
        for name, endpoint in USAGE_ENDPOINTS.items()
        if any(measure.token_type for measure in endpoint.measures)
    }
    assert counting == set(gen_ai.OPERATIONS)
