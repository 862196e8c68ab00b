"""The verbs `config …`."""

from pathlib import Path

import click

from otel_openai_usage.cli.group import InOrder, cli, command, config_option, load_settings


@cli.group("config", cls=InOrder)
def config() -> None:
    """Look at the configuration: what is in effect, what may be written."""


@command(config, "show")
@config_option
def show(file: Path | None) -> int:
    """Print the effective configuration as YAML, secrets masked; warnings go to stderr."""
    from otel_openai_usage.config.show import show as shown

    settings = load_settings(file)
    for warning in settings.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(shown(settings), nl=False)
    return 0


@command(config, "schema")
def schema() -> int:
    """Print the JSON Schema of the configuration, for editors.

    \b
      otel-openai-usage config schema > otel-openai-usage.schema.json
    """
    import json

    from otel_openai_usage.config.schema import schema as made

    click.echo(json.dumps(made(), indent=2))
    return 0
