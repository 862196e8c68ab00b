"""The old name of the package `otel_openai_metering`, a distribution of its own since 0.2. It goes
with the next release.
"""

import warnings

from otel_openai_metering import Counts, Meter, MeteredStream

__all__ = ["Counts", "Meter", "MeteredStream"]

warnings.warn(
    "otel_openai_usage.metering is now otel_openai_metering: import Meter from there",
    DeprecationWarning,
    stacklevel=2,
)
