"""The catalogue as OpenTelemetry instruments, on anybody's MeterProvider."""

from collections.abc import Callable

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

import otel_openai_usage
from otel_openai_usage.domain.instruments import INSTRUMENTS, Instrument
from otel_openai_usage.domain.snapshot import Board

SCOPE = "otel_openai_usage"


def instrument(meter_provider: MeterProvider, board: Board) -> None:
    """Create one observable instrument per row of the catalogue; each shows what the Board shows
    when it is asked.

    The SDK folds what is beyond 2000 attribute sets of an instrument: give your readers a
    `cardinality_limits`.
    """
    meter = meter_provider.get_meter(SCOPE, otel_openai_usage.__version__)
    for row in INSTRUMENTS.values():
        create = (
            meter.create_observable_counter
            if row.kind == "counter"
            else meter.create_observable_gauge
        )
        create(row.name, [_look(row, board)], row.unit, row.description)


def _look(row: Instrument, board: Board) -> Callable[[CallbackOptions], list[Observation]]:
    def callback(_: CallbackOptions) -> list[Observation]:
        points = board.current().points.get(row.name, ())
        return [Observation(point.value, point.series.attributes) for point in points]

    return callback
