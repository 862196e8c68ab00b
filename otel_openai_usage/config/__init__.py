"""Settings: typed, frozen, every problem at once. `load` makes them."""

from otel_openai_usage.config.load import VARIABLE, load, load_mapping
from otel_openai_usage.config.location import DatabaseLocation, Location, location_of
from otel_openai_usage.config.needs import (
    needs_key,
    require_keys,
    state_file,
    state_location,
)
from otel_openai_usage.config.settings import Organization, Otlp, Settings

__all__ = [
    "VARIABLE",
    "DatabaseLocation",
    "Location",
    "Organization",
    "Otlp",
    "Settings",
    "load",
    "load_mapping",
    "location_of",
    "needs_key",
    "require_keys",
    "state_file",
    "state_location",
]
