"""Reports the usage of single responses, and whose they were, to any OpenMeter-shaped endpoint:
ours or OpenMeter's.

    from otel_openai_metering import Meter

    meter = Meter("http://localhost:8888", source="my-app")
    completion = client.chat.completions.create(...)
    meter.record(completion, subject="customer-1")

Nothing here delays or breaks the caller: what goes wrong is logged under
`otel_openai_metering`.
"""

from otel_openai_metering.meter import Counts, Meter
from otel_openai_metering.streams import MeteredStream

__all__ = ["Counts", "Meter", "MeteredStream"]
