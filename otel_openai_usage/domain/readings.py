"""A decoded answer: the rows of one window of a source. Only providers decode JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from otel_openai_usage.domain.model import Rows


@dataclass(frozen=True, slots=True)
class Bucket:
    """The rows of one bucket. `start` in Unix seconds; equal fingerprints mean equal rows."""

    start: int
    fingerprint: bytes
    rows: Rows


@dataclass(frozen=True, slots=True)
class Reading:
    """The buckets of a window that are new or changed, oldest first.

    Buckets whose fingerprint the reader knew are left out: they were not decoded. `organization_id`
    is OpenAI's id of the organization, if an answer named it. `units` has the units of quantities
    by line item; only costs have them. `memory` holds the answers' share of the memory budget for
    as long as the reading lives.
    """

    buckets: Sequence[Bucket]
    organization_id: str | None = None
    units: Mapping[str, set[str]] = field(default_factory=dict)
    memory: Sequence[object] = field(default=(), repr=False, compare=False)
