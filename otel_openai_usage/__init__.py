"""Exports what OpenAI says you used and spent, exactly, to Prometheus and OpenTelemetry.

`Poller` polls within an application and shows the instruments on its MeterProvider.
`instrument(meter_provider, board)` does that for a board made by hand. All else is the command
line's.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_openai_usage.exporters.sdk.instruments import instrument
    from otel_openai_usage.poller import Poller

    __version__: str

__all__ = ["Poller", "__version__", "instrument"]


def __getattr__(name: str) -> object:
    # Imported when asked for: `--help` must not wait for OpenTelemetry.
    if name == "__version__":
        from importlib.metadata import version

        return version("otel-openai-usage")
    if name == "instrument":
        from otel_openai_usage.exporters.sdk.instruments import instrument

        return instrument
    if name == "Poller":
        from otel_openai_usage.poller import Poller

        return Poller
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
