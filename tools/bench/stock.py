"""The yardstick in Python: the same series through opentelemetry-exporter-prometheus and its own
HTTP server.
"""

import sys
from collections.abc import Callable

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, start_http_server

from tools.bench.series import exposed


def main() -> None:
    """Serve until standard input ends."""
    observations: dict[str, list[Observation]] = {}
    for name, attributes, value in exposed(int(sys.argv[1])):
        observations.setdefault(name, []).append(Observation(value, attributes))
    registry = CollectorRegistry()
    reader = PrometheusMetricReader(
        scope_info_enabled=False,
        registry=registry,
        cardinality_limits={ObservableCounter: 1_000_000},
    )
    meter = MeterProvider([reader], Resource({})).get_meter("bench")
    for name, found in observations.items():
        meter.create_observable_counter(name, [_returning(found)])
    server, _ = start_http_server(0, "127.0.0.1", registry)
    sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.read()


def _returning(found: list[Observation]) -> Callable[[CallbackOptions], list[Observation]]:
    return lambda _: found


if __name__ == "__main__":
    main()
