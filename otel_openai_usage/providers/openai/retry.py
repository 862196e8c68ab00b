"""When to ask again. The decision only; the loop is in the client."""

import random

from otel_openai_usage.errors import (
    BadResponse,
    BadShape,
    RateLimited,
    SourceError,
    TooLarge,
    Unavailable,
)

FIRST = 1.0
"""Seconds: the upper bound of the first wait. It doubles with each attempt."""
CAP = 60.0
"""Seconds: the upper bound of every wait, unless OpenAI asks for more."""
MAX_RETRY_AFTER = 300.0
"""Seconds: the longest Retry-After that one request waits for. After a longer one the next poll asks
again.
"""


def delay(error: SourceError, attempt: int, *, limit: int, rng: random.Random) -> float | None:
    """Seconds to wait before the next attempt after `attempt` retries; None to stop retrying.

    Exponential with full jitter, capped at 60 s; never less than a Retry-After. Only what may pass
    is tried again: 429, no usable answer, an answer that is not JSON.
    """
    if attempt >= limit or not _may_pass(error):
        return None
    retry_after = 0.0
    if isinstance(error, RateLimited):
        retry_after = error.retry_after or 0.0
    if retry_after > MAX_RETRY_AFTER:
        return None
    longest = min(CAP, FIRST * 2.0**attempt)
    return max(retry_after, rng.uniform(0.0, longest))


def _may_pass(error: SourceError) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, BadShape | TooLarge):
        return False
    return isinstance(error, RateLimited | Unavailable | BadResponse)
