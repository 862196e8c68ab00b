"""The providers of usage, by name. A further one is a folder here and a line in PROVIDERS."""

from collections.abc import Mapping

from otel_openai_usage.providers.openai.provider import open_provider as open_openai
from otel_openai_usage.providers.provider import OpenProvider

PROVIDERS: Mapping[str, OpenProvider] = {"openai": open_openai}
DEFAULT = "openai"
"""The provider of every organization: the settings name no other yet."""
