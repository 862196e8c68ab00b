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
CAP = 60.0
PATIENCE = 300.0
"""The longest Retry-After that is waited for within one request; with more we give up and the next
poll asks again.
"""


def delay(error: SourceError, attempt: int, *, limit: int, rng: random.Random) -> float | None:
    """Seconds to wait before asking again after `attempt` earlier retries, None to give up.

    Exponential with full jitter, capped at 60 s; never less than a Retry-After. Only what may pass
    is asked again: 429, no usable answer, an answer that is not JSON.
    """
    may_pass = isinstance(error, RateLimited | Unavailable | BadResponse) and not isinstance(
        error, BadShape | TooLarge
    )
    if attempt >= limit or not may_pass:
        return None
    asked = (error.retry_after or 0.0) if isinstance(error, RateLimited) else 0.0
    if asked > PATIENCE:
        return None
    return max(asked, rng.uniform(0.0, min(CAP, FIRST * 2.0**attempt)))
