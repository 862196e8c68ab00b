"""The usage endpoints and costs, as table rows. A new endpoint is one row here.

Field and dimension names: OpenAI's own OpenAPI document (openai/openai-openapi 2.3.0) and, where
that is behind, the types of its Python client 3.54.0 (`decisions`, `api_source`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from otel_openai_usage.domain.model import Width


@dataclass(frozen=True, slots=True)
class Measure:
    """A number of a result: `name` is ours (and the store's column), `field` OpenAI's."""

    name: str
    field: str
    instrument: str
    token_type: str | None = None
    required: bool = True
    money: bool = False


LIMITS: Mapping[Width, int] = {Width.MINUTE: 1440, Width.HOUR: 168, Width.DAY: 31}
"""How many buckets one request to a usage endpoint may ask for (parameter `limit`)."""
COST_LIMIT = 180
"""How many days one request for costs may ask for."""


@dataclass(frozen=True)
class Endpoint:
    """One endpoint: its path, its results, what they measure and how they can be grouped.

    Stored amounts are by place, so a new measure comes last.
    `object` is the type of a result in the answer. `dimensions` are all that a row may have;
    `group_by` are those that a request can ask for, `derived` are filled in by the exporter, and
    `free` are named by the configuration, so that the store has no columns for them. The values of
    a `level` (bytes stored) do not add up. `from_zero` says that no usage is older than the
    exporter, so that every series begins at 0. `limits` are the buckets that one request may ask
    for, by width. `polled` is false if its rows do not come from polled buckets: all of them count,
    even if they are older than the epoch. A call of a `tool` has a price of its own, whichever
    model made it.
    """

    name: str
    path: str
    object: str
    measures: tuple[Measure, ...]
    group_by: tuple[str, ...]
    level: bool = False
    widths: tuple[Width, ...] = (Width.MINUTE, Width.HOUR, Width.DAY)
    derived: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    from_zero: bool = False
    limits: Mapping[Width, int] = field(default_factory=lambda: LIMITS, compare=False)
    polled: bool = True
    tool: bool = False

    @cached_property
    def dimensions(self) -> tuple[str, ...]:
        """Every dimension a row may have, in the order of `Dims`."""
        return self.group_by + self.derived + self.free

    @cached_property
    def source(self) -> str:
        """The value of the attribute `source`."""
        return self.path

    def grouping(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """The part of a wanted `group_by` that this endpoint has, in the table's order."""
        return tuple(dimension for dimension in self.group_by if dimension in wanted)

    @cached_property
    def money(self) -> bool:
        """Whether it reports money: OpenAI's own costs, in whole UTC days."""
        return any(measure.money for measure in self.measures)

    @cached_property
    def is_priced(self) -> bool:
        """Whether a price list gives the cost of its usage."""
        return not self.level and not self.money

    @cached_property
    def zero(self) -> tuple[int, ...]:
        """The amounts of no usage."""
        return (0,) * len(self.measures)


_TOKENS = "openai.api.tokens"
_WHO = ("project_id", "user_id", "api_key_id")
_REQUESTS = Measure("requests", "num_model_requests", "openai.api.requests")
_INPUT = Measure("input", "input_tokens", _TOKENS, "input")


def _optional(name: str, *, shown: bool = True) -> Measure:
    """Tokens that OpenAI may leave out: `input_text` is its `input_text_tokens`."""
    return Measure(
        name, f"{name}_tokens", _TOKENS if shown else "", name if shown else None, required=False
    )


_MODEL_TOKENS = (
    _INPUT,
    Measure("output", "output_tokens", _TOKENS, "output"),
    _optional("input_cached"),
    _optional("input_audio"),
    _optional("output_audio"),
    _optional("input_cache_write"),
    _REQUESTS,
    # Since 0.3. Stored amounts are by place, so new measures come last.
    _optional("input_text"),
    _optional("output_text"),
    _optional("input_image"),
    _optional("output_image"),
    _optional("input_cached_text"),
    _optional("input_cached_audio"),
    _optional("input_cached_image"),
    _optional("input_cache_write_30m"),
    _optional("input_cache_write_12h"),
    # Input that was neither read from the cache nor written to it, of every modality.
    _optional("input_uncached", shown=False),
)
"""The seventeen numbers of a row of completions.

`input` is `input_uncached`, `input_cached` and `input_cache_write`. `input_uncached` is
`input_text`, `input_audio` and `input_image`; `input_cached` the same of the cached ones.
`input_cache_write` is that of 30 minutes and of 12 hours. `output` is that of text, audio and
images.
"""

_MODEL_GROUPS = (*_WHO, "model", "batch", "service_tier", "api_source")


def _usage(
    name: str,
    measures: tuple[Measure, ...],
    group_by: tuple[str, ...],
    result: str = "",
    level: bool = False,
    tool: bool = False,
) -> Endpoint:
    return Endpoint(
        name,
        f"usage/{name}",
        f"organization.usage.{result or name}.result",
        measures,
        group_by,
        level,
        tool=tool,
    )


USAGE_ENDPOINTS: dict[str, Endpoint] = {
    endpoint.name: endpoint
    for endpoint in (
        _usage("completions", _MODEL_TOKENS, _MODEL_GROUPS),
        _usage("embeddings", (_INPUT, _REQUESTS), (*_WHO, "model")),
        _usage("moderations", (_INPUT, _REQUESTS), (*_WHO, "model")),
        _usage("images", (Measure("images", "images", "openai.api.images"), _REQUESTS), (*_WHO, "model", "size", "source")),
        _usage("audio_speeches", (Measure("characters", "characters", "openai.api.characters"), _REQUESTS), (*_WHO, "model")),
        _usage("audio_transcriptions", (Measure("audio", "seconds", "openai.api.audio"), _REQUESTS), (*_WHO, "model")),
        _usage("vector_stores", (Measure("bytes", "usage_bytes", "openai.api.vector_store.usage"),), ("project_id",), level=True),
        _usage("code_interpreter_sessions", (Measure("sessions", "num_sessions", "openai.api.sessions"),), ("project_id",), tool=True),
        _usage("file_search_calls", (Measure("searches", "num_requests", "openai.api.searches"),),
               (*_WHO, "vector_store_id"), "file_searches", tool=True),
        _usage("web_search_calls", (Measure("searches", "num_requests", "openai.api.searches"), _REQUESTS),
               (*_WHO, "model", "context_level", "api_source"), "web_searches", tool=True),
        _usage("decisions", _MODEL_TOKENS, _MODEL_GROUPS),
    )
}  # fmt: skip

COSTS = Endpoint(
    name="costs",
    path="costs",
    object="organization.costs.result",
    measures=(
        Measure("cost", "amount", "openai.api.cost", money=True),
        Measure("quantity", "quantity", "", required=False, money=True),
    ),
    group_by=("project_id", "line_item", "api_key_id", "user_id", "api_source"),
    widths=(Width.DAY,),
    derived=("currency",),
    limits={Width.DAY: COST_LIMIT},
)

LEGACY = Endpoint(
    name="legacy",
    path="legacy",
    object="list",
    measures=(
        Measure("requests", "n_requests", ""),
        Measure("input", "n_context_tokens_total", ""),
        Measure("output", "n_generated_tokens_total", ""),
        Measure("input_cached", "n_cached_context_tokens_total", "", required=False),
        Measure("images", "num_images", "", required=False),
        Measure("characters", "num_characters", "", required=False),
        Measure("audio", "num_seconds", "", required=False),
    ),
    group_by=(),
    widths=(Width.HOUR,),
    polled=False,
    derived=(
        "organization_id",
        "organization_name",
        "operation",
        "model",
        "project_id",
        "api_key_id",
        "user_id",
    ),
)
"""The undocumented `/v1/usage`. Its rows are stored for the history only, so no measure has an
instrument.
"""

TOKEN_TYPES: tuple[str, ...] = tuple(
    measure.token_type for measure in _MODEL_TOKENS if measure.token_type
)
"""Every value of the attribute `token_type` of polled usage."""

SHOWN_TOKEN_TYPES = (
    "input", "output", "input_cached", "input_audio", "output_audio", "input_cache_write",
)  # fmt: skip
"""Those that have series if the configuration does not say otherwise."""

ENDPOINTS: dict[str, Endpoint] = {**USAGE_ENDPOINTS, COSTS.name: COSTS}
"""Every endpoint by its name; the path below `/v1/organization/` is `endpoint.path`."""

STORED: dict[str, Endpoint] = {**ENDPOINTS, LEGACY.name: LEGACY}
"""Every endpoint that may have rows in the store."""
