"""The effective configuration as YAML, secrets masked."""

import yaml

from otel_openai_usage.config.settings import Settings


def show(settings: Settings) -> str:
    """YAML of every setting, in the order of the documentation; a secret is `****`, one that is not
    set null.
    """
    return yaml.safe_dump(
        settings.model_dump(),
        sort_keys=False,
        default_flow_style=None,
        width=120,
        allow_unicode=True,
    )
