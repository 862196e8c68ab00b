"""Which exporters OTEL_METRICS_EXPORTER may name: ours, and those of installed packages."""

from importlib.metadata import EntryPoint, entry_points

OURS = ("otlp", "prometheus", "none")
"""Names that need nothing installed. `otlp` and `prometheus` are our own exporters."""
GROUPS = ("opentelemetry_metrics_exporter", "opentelemetry_metrics_reader")
"""Groups of entry points in which packages register exporters and readers of metrics."""
OLD_NAMES = {"logging": "console"}
"""Names that the specification has deprecated, and what they are called now."""


def installed() -> dict[str, EntryPoint]:
    """Return the entry points by the name that OTEL_METRICS_EXPORTER has for them.

    Without those whose name is one of ours.
    """
    found: dict[str, EntryPoint] = {}
    for group in GROUPS:
        for entry_point in entry_points(group=group):
            if entry_point.name.lower() not in OURS:
                found.setdefault(entry_point.name.lower(), entry_point)
    return found


def names() -> list[str]:
    """Return every name that OTEL_METRICS_EXPORTER may have."""
    return [*OURS, *sorted(installed())]
