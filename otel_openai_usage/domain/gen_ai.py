"""Tokens under the names of OpenTelemetry's conventions for generative AI, as table rows.

The names: open-telemetry/semantic-conventions-genai, docs/gen-ai/gen-ai-token-metrics.md (status
Development). They may still change, so every name is in this file, with the version.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.instruments import Instrument
from otel_openai_usage.domain.model import Amount, Amounts

VERSION = "1.42.0"
"""The version of the convention."""
SCHEMA_URL = f"https://opentelemetry.io/schemas/gen-ai/{VERSION}"
"""Names the convention in the scope. Nothing is fetched from there."""

Profile: TypeAlias = Literal["openai", "gen_ai", "both"]

PROVIDER = "openai"
MODALITY = "gen_ai.token.modality"
PROVIDER_NAME = "gen_ai.provider.name"

ATTRIBUTE_NAMES = {
    "operation": "gen_ai.operation.name",
    "model": "gen_ai.response.model",
    "service_tier": "openai.response.service_tier",
}
"""The convention's names of our attributes. All others keep ours: it has none for them."""

OPERATIONS = {
    "completions": "chat",
    "embeddings": "embeddings",
    "moderations": "moderations",
    "decisions": "decisions",
}
"""The convention's operation of each endpoint that counts tokens; where it has none, our own."""

_USAGE = "gen_ai.client.inference.usage"
INPUT = f"{_USAGE}.input_tokens"
OUTPUT = f"{_USAGE}.output_tokens"
CACHE_READ = f"{_USAGE}.cache_read.input_tokens"
CACHE_WRITE = f"{_USAGE}.cache_write.input_tokens"

_ATTRIBUTES = (
    "organization", "gen_ai.provider.name", "gen_ai.operation.name", "gen_ai.response.model",
    "gen_ai.token.modality", "project_id", "project_name", "user_id", "api_key_id", "api_key_name", "batch",
    "openai.response.service_tier",
)  # fmt: skip


def _instrument(name: str, description: str) -> Instrument:
    prometheus = f"{name.replace('.', '_')}_total"
    return Instrument(name, "counter", "{token}", prometheus, description, _ATTRIBUTES)


GEN_AI_INSTRUMENTS: dict[str, Instrument] = {
    row.name: row
    for row in (
        _instrument(INPUT, "Input (prompt) tokens since counting began, cached ones included, as OpenAI reports them"),
        _instrument(OUTPUT, "Output (completion) tokens since counting began, reasoning included, as OpenAI reports them"),
        _instrument(CACHE_READ, "Input tokens that were read from a cache, a part of the input tokens"),
        _instrument(CACHE_WRITE, "Input tokens that were written to a cache, a part of the input tokens"),
    )
}  # fmt: skip
"""By name; with `attributes.profile` gen_ai or both."""


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens of one modality: the sum of the measures `plus`, less the sum of `minus`."""

    instrument: str
    modality: str
    plus: tuple[str, ...]
    minus: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlacedPart:
    """A part, with the places of its measures in the amounts of an endpoint."""

    instrument: str
    modality: str
    plus: tuple[int, ...]
    minus: tuple[int, ...]

    def of(self, amounts: Amounts) -> Amount:
        """Return the tokens of this part. What OpenAI contradicts itself about is never below 0."""
        counted = sum(amounts[place] for place in self.plus)
        return max(0, counted - sum(amounts[place] for place in self.minus))


_PARTS = (
    # OpenAI's input by modality is without the cache, so the cached tokens belong to it.
    Part(INPUT, "text", ("input_text", "input_cached_text")),
    Part(INPUT, "audio", ("input_audio", "input_cached_audio")),
    Part(INPUT, "image", ("input_image", "input_cached_image")),
    Part(
        INPUT,
        "unknown",
        ("input",),
        (
            "input_text",
            "input_cached_text",
            "input_audio",
            "input_cached_audio",
            "input_image",
            "input_cached_image",
        ),
    ),
    Part(OUTPUT, "text", ("output_text",)),
    Part(OUTPUT, "audio", ("output_audio",)),
    Part(OUTPUT, "image", ("output_image",)),
    Part(OUTPUT, "unknown", ("output",), ("output_text", "output_audio", "output_image")),
    Part(CACHE_READ, "text", ("input_cached_text",)),
    Part(CACHE_READ, "audio", ("input_cached_audio",)),
    Part(CACHE_READ, "image", ("input_cached_image",)),
    Part(
        CACHE_READ,
        "unknown",
        ("input_cached",),
        ("input_cached_text", "input_cached_audio", "input_cached_image"),
    ),
    Part(CACHE_WRITE, "unknown", ("input_cache_write",)),
)
"""Every part. The modalities of an instrument add up to its measure; what OpenAI does not tell the
modality of is unknown.
"""


def parts(endpoint: Endpoint) -> tuple[PlacedPart, ...]:
    """Return the parts of an endpoint's tokens; none if it counts no tokens.

    A part whose measures the endpoint lacks is left out.
    """
    if endpoint.name not in OPERATIONS:
        return ()
    places = {measure.name: place for place, measure in enumerate(endpoint.measures)}
    found = []
    for part in _PARTS:
        plus = tuple(places[name] for name in part.plus if name in places)
        minus = tuple(places[name] for name in part.minus if name in places)
        if plus:
            found.append(PlacedPart(part.instrument, part.modality, plus, minus))
    return tuple(found)
