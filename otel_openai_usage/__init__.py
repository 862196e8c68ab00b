"""Exports what OpenAI says you used and spent, exactly, to Prometheus and OpenTelemetry.

`instrument(meter_provider, board)` hangs the instruments on anybody's MeterProvider; all else is
the command line's.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_openai_usage.exporters.sdk.instruments import instrument

    __version__: str

__all__ = ["__version__", "instrument"]


def __getattr__(name: str) -> object:
    # Imported when asked for: `--help` must not wait for OpenTelemetry.
    if name == "__version__":
        from importlib.metadata import version

        return version("otel-openai-usage")
    if name == "instrument":
        from otel_openai_usage.exporters.sdk.instruments import instrument

        return instrument
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
