"""OpenAI's usage on an application's own MeterProvider, with an exporter of OpenTelemetry.

    OPENAI_ADMIN_KEY=sk-admin-… python examples/meter_provider.py

It prints the metrics every minute. With ONCE=true it prints them once and ends. Any other exporter
of metrics can stand in place of the console's.
"""

import asyncio
import os

from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter, ObservableGauge
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from otel_openai_usage import Poller

SERIES = 100_000
"""The SDK folds an instrument beyond 2,000 attribute sets, unless its readers say otherwise."""


def meter_provider() -> MeterProvider:
    """The provider of the application."""
    reader = PeriodicExportingMetricReader(
        ConsoleMetricExporter(),
        export_interval_millis=60_000,
        cardinality_limits={ObservableCounter: SERIES, ObservableGauge: SERIES},
    )
    return MeterProvider([reader], Resource.create({"service.name": "my-application"}))


async def main() -> None:
    """Poll until somebody interrupts."""
    provider = meter_provider()
    async with Poller() as poller:
        poller.instrument(provider)
        await poller.polled()
        if os.environ.get("ONCE") != "true":
            await asyncio.Event().wait()
    # The last values stay, so this exports them once more.
    await asyncio.to_thread(provider.shutdown)


if __name__ == "__main__":
    asyncio.run(main())
