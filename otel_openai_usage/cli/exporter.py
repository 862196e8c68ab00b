"""The commands `run`, `check` and `verify`."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

import click

from otel_openai_usage import stopping
from otel_openai_usage.cli.address import address
from otel_openai_usage.cli.group import FAILED, cli, command, config_option, load_settings
from otel_openai_usage.errors import ConfigError

_OVERRIDES = {"path": "prometheus.path", "interval": "usage.interval", "log_level": "log.level"}
"""Options of `run`, and the settings that they override."""


@command(cli, "run")
@config_option
@click.option(
    "--listen",
    callback=address,
    metavar="HOST:PORT",
    help="Serve the metrics there (prometheus.host, prometheus.port).",
)
@click.option("--path", metavar="PATH", help="The path of the metrics (prometheus.path).")
@click.option(
    "--interval",
    metavar="DURATION",
    help="How often usage is polled, such as 30s or 5m (usage.interval).",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "warn", "error"], case_sensitive=False),
    help="What is logged (log.level).",
)
@click.option("--once", is_flag=True, help="Poll every source once, export once, and end.")
@click.option(
    "-o",
    "output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.prom",
    help="With --once: write the page there, whole or not at all, instead of printing it.",
)
@click.option("--quiet", is_flag=True, help="With --once: print no page.")
def run(
    file: Path | None,
    listen: tuple[str, int] | None,
    once: bool,
    output: Path | None,
    quiet: bool,
    **options: str | None,
) -> int:
    """Run the exporter: poll OpenAI, keep what it says, expose it.

    It runs until SIGTERM, SIGINT or SIGHUP, then stores and sends what it has. The options override
    the file.

    \b
      otel-openai-usage run
      otel-openai-usage run -c otel-openai-usage.yaml --listen :9185
      otel-openai-usage run --once
      otel-openai-usage run --once -o /var/lib/node_exporter/openai.prom
    """
    if not once and (output or quiet):
        raise click.UsageError("-o and --quiet are options of `run --once`; add --once")
    with stopping.raising() if once else nullcontext():
        from otel_openai_usage.composition import app
        from otel_openai_usage.config import require_keys

        host, port = listen or (None, None)
        given = {"prometheus.host": host, "prometheus.port": port} | {
            _OVERRIDES[name]: value for name, value in options.items()
        }
        settings = load_settings(
            file, {key: value for key, value in given.items() if value is not None}
        )
        require_keys(settings)
        if output:
            return app.run(settings, once=True, write=_page_writer(output))
        # The console has the metrics already, and two formats on stdout are of no use.
        is_on_console = "console" in settings.sdk_exporters and not settings.prometheus.enabled
        if quiet or (once and is_on_console):
            return app.run(settings, once=True, write=None)
        return app.run(settings, once=once)


def _page_writer(output: Path) -> Callable[[bytes], None]:
    """What writes a page to that file. Raises ExporterError at once if it has no folder."""
    from otel_openai_usage.cli.files import STDOUT, expect_folder, replace

    if output == STDOUT:
        from otel_openai_usage.composition.app import to_stdout

        return to_stdout
    expect_folder(output)
    return lambda page: replace(output, page)


@command(cli, "check")
@config_option
@click.option(
    "--offline", is_flag=True, help="Ask nobody: look at the configuration and the state file only."
)
def check(file: Path | None, offline: bool) -> int:
    """Test the configuration, the key, the collector and the state file.

    One line for each: ok, warn or fail, and what to do. It changes nothing. Ends with 1 if anything
    fails, and with 2 if the configuration is wrong or a key is missing.

    \b
      otel-openai-usage check -c otel-openai-usage.yaml
    """
    from otel_openai_usage.commands.check import findings
    from otel_openai_usage.config import require_keys

    try:
        settings = load_settings(file)
        require_keys(settings)
    except ConfigError as error:
        count = len(error.problems)
        click.echo(f"fail  configuration: {count} problem{'s' * (count > 1)}, told on stderr")
        raise
    failed = False
    for finding in findings(settings, os.environ, offline=offline):
        failed |= finding.level == "fail"
        click.echo(str(finding))
    return FAILED if failed else 0


@command(cli, "verify")
@config_option
@click.option(
    "--from",
    "since",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    help="The first UTC day; default: as far as usage.reconcile.",
)
@click.option(
    "--to",
    "until",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    help="The last UTC day; default: yesterday.",
)
def verify(file: Path | None, since: datetime | None, until: datetime | None) -> int:
    """Compare what was counted for past days with OpenAI's own daily totals, series by series.

    First it compares every total in the state with the sum of its rows.

    One line for each day and source; it changes nothing, and the exporter may go on running. Ends
    with 1 if anything differs. Days that OpenAI has not settled yet may differ until the exporter
    has read them again. Days whose rows were let go after history.days are named, not compared.

    \b
      otel-openai-usage verify
      otel-openai-usage verify --from 2026-11-01 --to 2026-11-07
    """
    import asyncio
    import time

    from otel_openai_usage.commands.verify import Refused, TotalsDiffer, Verdict, verdicts
    from otel_openai_usage.config import require_keys

    settings = load_settings(file)
    require_keys(settings)

    async def compare() -> bool:
        differs = False
        said = False
        days = (since.date() if since else None, until.date() if until else None)
        async for verdict in verdicts(settings, os.environ, int(time.time()), *days):
            differs = differs or isinstance(verdict, Refused | TotalsDiffer)
            differs = differs or (isinstance(verdict, Verdict) and bool(verdict.differences))
            said = True
            click.echo(str(verdict))
        if not said:
            click.echo("no whole past day of that time was counted; there is nothing to compare")
        return differs

    return FAILED if asyncio.run(compare()) else 0
