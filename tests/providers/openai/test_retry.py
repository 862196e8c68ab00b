"""When to ask again."""

import random

import pytest

from otel_openai_usage.errors import (
    BadCursor,
    BadRequest,
    BadResponse,
    BadShape,
    LookbackExceeded,
    MissingScope,
    NotOffered,
    RateLimited,
    Rejected,
    SourceError,
    Unavailable,
)
from otel_openai_usage.providers.openai.retry import delay


class Highest(random.Random):
    """Chance at its most patient."""

    def uniform(self, a: float, b: float) -> float:
        return b


class Lowest(random.Random):
    """Chance at its least patient."""

    def uniform(self, a: float, b: float) -> float:
        return a


@pytest.mark.parametrize(
    ("error", "attempt", "longest"),
    [
        (Unavailable("x"), 0, 1.0),
        (Unavailable("x"), 1, 2.0),
        (Unavailable("x"), 4, 16.0),
        (Unavailable("x"), 9, 60.0),
        (Unavailable("x"), 10, None),
        (BadResponse("x"), 0, 1.0),
        (BadShape("x"), 0, None),
        (RateLimited("x"), 2, 4.0),
        (RateLimited("x", retry_after=20.0), 0, 20.0),
        (RateLimited("x", retry_after=0.0), 3, 8.0),
        (RateLimited("x", retry_after=90.0), 0, 90.0),
        (RateLimited("x", retry_after=300.0), 9, 300.0),
        (RateLimited("x", retry_after=301.0), 0, None),
        (RateLimited("x", retry_after=5.0), 10, None),
        (Rejected("x"), 0, None),
        (MissingScope("x"), 0, None),
        (NotOffered("x"), 0, None),
        (BadRequest("x"), 0, None),
        (BadCursor("x"), 0, None),
        (LookbackExceeded("x"), 0, None),
        (SourceError("x"), 0, None),
    ],
)
def test_delay(error: SourceError, attempt: int, longest: float | None) -> None:
    """What may pass is asked again, ever later, never before OpenAI said; what will not pass is
    not.
    """
    assert delay(error, attempt, limit=10, rng=Highest()) == longest
    asked = getattr(error, "retry_after", None) or 0.0
    assert delay(error, attempt, limit=10, rng=Lowest()) == (None if longest is None else asked)
