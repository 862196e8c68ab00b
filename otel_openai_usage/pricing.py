"""The old path of `providers.openai.prices`. It goes with the next release."""

import warnings

from otel_openai_usage.providers.openai.prices import Prices

__all__ = ["Prices"]

warnings.warn(
    "otel_openai_usage.pricing.Prices is now otel_openai_usage.providers.openai.prices.Prices",
    DeprecationWarning,
    stacklevel=2,
)
