"""The old path of `domain.endpoints`. It goes with the next release."""

import warnings

from otel_openai_usage.domain.endpoints import USAGE_ENDPOINTS as USAGE_KINDS

__all__ = ["USAGE_KINDS"]

warnings.warn(
    "otel_openai_usage.core.kinds.USAGE_KINDS is now"
    " otel_openai_usage.domain.endpoints.USAGE_ENDPOINTS",
    DeprecationWarning,
    stacklevel=2,
)
