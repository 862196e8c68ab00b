"""The catalogue as observable instruments of OpenTelemetry, on any MeterProvider."""

from collections.abc import Callable

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

import otel_openai_usage
from otel_openai_usage.domain.instruments import INSTRUMENTS, Instrument
from otel_openai_usage.domain.snapshot import Board

SCOPE = "otel_openai_usage"
"""The name of our instrumentation scope."""


def instrument(meter_provider: MeterProvider, board: Board) -> None:
    """Create one observable instrument per row of the catalogue, which reads the current snapshot.

    The SDK folds an instrument beyond 2,000 attribute sets: give your readers `cardinality_limits`.
    """
    meter = meter_provider.get_meter(SCOPE, otel_openai_usage.__version__)
    for row in INSTRUMENTS.values():
        callbacks = [_callback(row, board)]
        if row.kind == "counter":
            meter.create_observable_counter(row.name, callbacks, row.unit, row.description)
        else:
            meter.create_observable_gauge(row.name, callbacks, row.unit, row.description)


def _callback(row: Instrument, board: Board) -> Callable[[CallbackOptions], list[Observation]]:
    def observe(_: CallbackOptions) -> list[Observation]:
        points = board.current().points.get(row.name, ())
        # A list, not a generator: an error in here must not export half of the points.
        return [Observation(point.value, point.series.attributes) for point in points]

    return observe
