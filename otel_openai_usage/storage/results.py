"""The values that `Queries` returns, whichever database is behind it.

Times are Unix seconds. A day begins at midnight UTC. Money is Decimal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NamedTuple, TypeAlias

from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.ownership import Beat, Lease

Record: TypeAlias = Literal["usage", "legacy_usage", "metered", "vector_store"]
"""Who reported a row: the usage endpoints, the legacy endpoint, or the applications' own events.
`vector_store` are levels, not usage. Rows of different records are never added up.
"""

USAGE_DIMENSIONS = (
    "organization", "operation", "project_id", "api_key_id", "user_id", "model", "batch", "service_tier", "organization_id",
    "organization_name", "size", "source", "vector_store_id", "context_level", "api_source", "subject", "type", "estimated", "key",
)  # fmt: skip
"""The dimensions by which `Queries.usage` can group. `key` is the whole attribute set as JSON, with
the attributes that only events have.
"""
COST_DIMENSIONS = ("organization", "project_id", "line_item", "api_key_id", "user_id", "api_source")
"""The dimensions by which `Queries.costs` can group."""


@dataclass(frozen=True, slots=True)
class StoredSource:
    """One source in the store. `organization_id` is OpenAI's id, None if no answer contained it."""

    id: int
    organization: str
    endpoint: Endpoint
    organization_id: str | None
    last_success: int | None
    newest_bucket: int | None


@dataclass(frozen=True, slots=True)
class UsageRow:
    """The usage of one group on one UTC day that begins at `start`.

    `group` has the values of the requested dimensions, in their order. `input_*` are parts of
    `input`. `output_*` and `reasoning` are parts of `output`; only events report `reasoning`.
    `requests` is 0 for an operation that counts no requests (file searches, sessions). `bytes` is a
    level: the last reported value. `estimate` is the estimated cost in US dollars, None if nothing
    was priced. `unpriced` are the tokens that have no price and are missing in `estimate`.
    """

    start: int
    group: tuple[str | None, ...]
    requests: int = 0
    input: int = 0
    output: int = 0
    input_cached: int = 0
    input_audio: int = 0
    output_audio: int = 0
    input_cache_write: int = 0
    input_text: int = 0
    output_text: int = 0
    input_image: int = 0
    output_image: int = 0
    input_cached_text: int = 0
    input_cached_audio: int = 0
    input_cached_image: int = 0
    input_cache_write_30m: int = 0
    input_cache_write_12h: int = 0
    input_uncached: int = 0
    images: int = 0
    characters: int = 0
    audio: int = 0
    sessions: int = 0
    searches: int = 0
    reasoning: int = 0
    bytes: int = 0
    estimate: Decimal | None = None
    unpriced: int = 0


@dataclass(frozen=True, slots=True)
class CostRow:
    """The amount that OpenAI billed one group for one day in one currency.

    `quantity` is in the unit of the line item, None if OpenAI reported none.
    """

    start: int
    group: tuple[str | None, ...]
    currency: str
    cost: Decimal
    quantity: Decimal | None = None


class MeteredTokens(NamedTuple):
    """Metered tokens of an attribute set on one UTC day. `input_cached` is a part of `input`."""

    dims: Mapping[str, str]
    input: int
    output: int
    input_cached: int


@dataclass(frozen=True, slots=True)
class StoredLoss:
    """A loss that an earlier start found. `seconds` is how much time is missing or in doubt.

    `reread` is false until the lost time is marked as unread, so that it is read again.
    """

    found: int
    reason: str
    seconds: int
    details: str
    reread: bool


@dataclass(frozen=True, slots=True)
class Opening:
    """What a store was when it was opened.

    `counting_since` is None if counting has not begun. `warnings` are (log event, sentence) pairs:
    unusual, but no loss.
    """

    is_new: bool
    counting_since: int | None
    last_write: int | None
    warnings: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Look:
    """The rows by which replicas share a state, as one of them read them.

    `replica` is its own name. `is_known` is false if it is new, or others took it for dead: it then
    owns nothing.
    """

    replica: str
    is_known: bool
    beats: Sequence[Beat]
    leases: Sequence[Lease]
