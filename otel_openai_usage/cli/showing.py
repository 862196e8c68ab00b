"""The commands `dashboard` and `metrics`."""

import os
from pathlib import Path

import click

from otel_openai_usage.cli.group import cli, command, config_option, load_settings
from otel_openai_usage.errors import ExporterError


@command(cli, "dashboard")
@config_option
@click.option("--host", metavar="HOST", help="The address to listen on (dashboard.host).")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="The port; 0 is any free one (dashboard.port).",
)
@click.option(
    "--prefix",
    metavar="PATH",
    help="The path below which a reverse proxy shows it (dashboard.prefix).",
)
def dashboard(file: Path | None, **options: str | int | None) -> int:
    """Serve the expenditure dashboard of what the exporter has kept.

    It needs no key, asks nobody and changes nothing; the exporter may be running. It has no
    passwords: keep it on localhost, or put a proxy that has them in front. It runs until SIGTERM,
    SIGINT or SIGHUP.

    \b
      otel-openai-usage dashboard
      otel-openai-usage dashboard -c otel-openai-usage.yaml --port 8051
    """
    from otel_openai_usage.composition.budgets import plan
    from otel_openai_usage.composition.stores import queries_opener
    from otel_openai_usage.config import state_location

    given = {f"dashboard.{name}": value for name, value in options.items() if value is not None}
    settings = load_settings(file, given)
    path = state_location(settings, os.environ)
    configured = plan(settings)
    try:
        from otel_openai_usage.dashboard.budget_states import BudgetPlan
        from otel_openai_usage.dashboard.server import serve
    except ModuleNotFoundError as error:
        raise ExporterError(
            f"loaded the dashboard: there is no module {error.name}; install it with pip install 'otel-openai-usage[dashboard]'"
        ) from error
    serve(
        queries_opener(path),
        host=settings.dashboard.host,
        port=settings.dashboard.port,
        prefix=settings.dashboard.prefix,
        hashed=settings.attributes.hash,
        plan=BudgetPlan(
            configured.budgets, configured.organizations, configured.bills, configured.bills_keys
        ),
        ready=lambda url: click.echo(f"The dashboard of {path}: {url}"),
    )
    return 0


@command(cli, "metrics")
@click.option(
    "--format",
    "form",
    type=click.Choice(["markdown", "json"]),
    default="markdown",
    show_default=True,
    help="The format.",
)
def metrics(form: str) -> int:
    """List every metric, with its OpenTelemetry and its Prometheus name.

    \b
      otel-openai-usage metrics --format json
    """
    from otel_openai_usage.reports import catalogue

    click.echo(catalogue.as_json() if form == "json" else catalogue.markdown(), nl=False)
    return 0
