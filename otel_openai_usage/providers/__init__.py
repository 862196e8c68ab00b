"""The providers of usage, and the sources beside them.

A further one is a folder here and a line below. To remove one, remove its folder and its line.
"""

from collections.abc import Mapping, Sequence

from otel_openai_usage.providers.extra import ExtraSource
from otel_openai_usage.providers.openai.legacy.extra import LegacyUsage
from otel_openai_usage.providers.openai.provider import open_provider as open_openai
from otel_openai_usage.providers.provider import OpenProvider

PROVIDERS: Mapping[str, OpenProvider] = {"openai": open_openai}
DEFAULT = "openai"
"""The provider of every organization: the settings name no other yet."""

EXTRA_SOURCES: Sequence[ExtraSource] = (LegacyUsage(),)
