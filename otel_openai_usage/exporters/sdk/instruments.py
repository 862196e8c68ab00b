"""The catalogue as observable instruments of OpenTelemetry, on any MeterProvider."""

from collections.abc import Callable, Sequence

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

import otel_openai_usage
from otel_openai_usage.domain.gen_ai import GEN_AI_INSTRUMENTS, SCHEMA_URL
from otel_openai_usage.domain.instruments import Instrument
from otel_openai_usage.domain.snapshot import Board, Point
from otel_openai_usage.exporters.sdk.cardinality import CardinalityFold, LimitReader
from otel_openai_usage.exporters.sdk.since_start import SinceStart
from otel_openai_usage.exporters.self_instruments import SNAPSHOT_INSTRUMENTS

SCOPE = "otel_openai_usage"
"""The name of our instrumentation scope."""


def _no_page() -> None:
    pass


def instrument(
    meter_provider: MeterProvider,
    board: Board,
    *,
    since_start: bool = False,
    cardinality_limit: int | None = None,
    before_page: Callable[[], None] = _no_page,
    observed: Callable[[int], None] = lambda _: None,
) -> None:
    """Create one observable instrument per row of the catalogue, which reads the current snapshot.

    With `since_start` a counter observes only what was booked after this call: for readers with
    delta temporality, whose first delta would otherwise be everything that was ever counted.

    The SDK folds an instrument beyond a number of attribute sets (2,000 by default) into one point,
    and loses the organization and the token type. So we fold first, to the lowest limit of the
    provider's readers, or to `cardinality_limit` where the provider does not tell its limits.

    `before_page` is called before a snapshot is read, `observed` with its version afterwards.
    """
    version = otel_openai_usage.__version__
    ours = meter_provider.get_meter(SCOPE, version)
    gen_ai = meter_provider.get_meter(SCOPE, version, SCHEMA_URL)
    limits = LimitReader(meter_provider, cardinality_limit)
    for row in SNAPSHOT_INSTRUMENTS.values():
        steps: list[Callable[[Sequence[Point]], Sequence[Point]]] = []
        if since_start and row.kind == "counter":
            steps.append(SinceStart(board.current().points.get(row.name, ())).points)
        steps.append(CardinalityFold(row, limits).points)
        meter = gen_ai if row.name in GEN_AI_INSTRUMENTS else ours
        callbacks = [_callback(row, board, steps, before_page, observed)]
        if row.kind == "counter":
            meter.create_observable_counter(row.name, callbacks, row.unit, row.description)
        else:
            meter.create_observable_gauge(row.name, callbacks, row.unit, row.description)


def _callback(
    row: Instrument,
    board: Board,
    steps: Sequence[Callable[[Sequence[Point]], Sequence[Point]]],
    before_page: Callable[[], None],
    observed: Callable[[int], None],
) -> Callable[[CallbackOptions], list[Observation]]:
    def observe(_: CallbackOptions) -> list[Observation]:
        before_page()
        snapshot = board.current()
        points = snapshot.points.get(row.name, ())
        for step in steps:
            points = step(points)
        observed(snapshot.version)
        # A list, not a generator: an error in here must not export half of the points.
        return [Observation(point.value, point.series.attributes) for point in points]

    return observe
