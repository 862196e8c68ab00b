"""The verbs and their options. What a verb needs is imported inside it, so that `--help` answers at
once.
"""

import functools
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from otel_openai_usage import stopping
from otel_openai_usage.cli.address import address
from otel_openai_usage.errors import ConfigError, ExporterError
from otel_openai_usage.reports import formats

if TYPE_CHECKING:
    from otel_openai_usage.config import Settings

NAME = "otel-openai-usage"
FAILED = 1

_OVERRIDES = {"path": "prometheus.path", "interval": "usage.interval", "log_level": "log.level"}
"""Options of `run`, and the settings that they override."""


class _InOrder(click.Group):
    """Lists its verbs as they are written below: the common ones first."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs."""
        return list(self.commands)


_config = click.option(
    "-c",
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The configuration; without it the file that OTEL_OPENAI_USAGE_CONFIG names, if any.",
)


def _port(default: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=default,
        show_default=True,
        help="The port; 0 is any free one.",
    )


def _verb(group: click.Group, name: str) -> Callable[[Callable[..., int]], click.Command]:
    """A verb whose docstring is its help; the layout of its examples is kept by their \\b.

    Unless the verb handles signals itself, one ends its work in order.
    """

    def made(verb: Callable[..., int]) -> click.Command:
        @functools.wraps(verb)
        def stoppable(**options: Any) -> int:
            with stopping.raising():
                return verb(**options)

        return group.command(name)(stoppable if name not in stopping.SERVERS else verb)

    return made


@click.group(
    NAME,
    cls=_InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name=NAME, prog_name=NAME)
def cli() -> None:
    """Exports what OpenAI says you used and spent to Prometheus and OpenTelemetry.

    \b
    With an admin key in the environment it runs without any configuration:
      OPENAI_ADMIN_KEY=sk-admin-... otel-openai-usage run
      curl localhost:9185/metrics

    \b
    To see it without a key:    otel-openai-usage demo
    To test a configuration:    otel-openai-usage check -c FILE

    Exit codes: 0 done, 1 it ran and failed, 2 wrong usage or configuration, 130 interrupted twice.
    """


@_verb(cli, "run")
@_config
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
        from otel_openai_usage.config import require_exporters, require_keys

        host, port = listen or (None, None)
        given = {"prometheus.host": host, "prometheus.port": port} | {
            _OVERRIDES[name]: value for name, value in options.items()
        }
        settings = _settings(
            file, {key: value for key, value in given.items() if value is not None}
        )
        if quiet or not once:  # `--once` prints the metrics in any case
            require_exporters(settings)
        require_keys(settings)
        if output:
            return app.run(settings, once=True, write=_page_writer(output))
        if quiet:
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


@_verb(cli, "check")
@_config
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
    from otel_openai_usage.config import require_exporters, require_keys

    try:
        settings = _settings(file)
        require_exporters(settings)
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


@_verb(cli, "verify")
@_config
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

    settings = _settings(file)
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


@cli.group("state", cls=_InOrder)
def state() -> None:
    """Look at the state file, back it up, bring it back, and accept what it lost.

    \b
      otel-openai-usage state info
      otel-openai-usage state backup /backups/usage.db
    """


@_verb(cli, "simulate")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@_port(8080)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Another seed is another company."
)
@click.option(
    "--projects",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="How many projects it has.",
)
@click.option(
    "--keys", type=click.IntRange(1), default=12, show_default=True, help="How many API keys."
)
@click.option(
    "--users", type=click.IntRange(1), default=10, show_default=True, help="How many users."
)
@click.option("--models", type=click.IntRange(1), help="How many models its chats use.")
@click.option(
    "--activity",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="More than 1 is more requests.",
)
@click.option(
    "--lateness",
    type=click.Choice(["prompt", "demo", "harsh"]),
    default="demo",
    show_default=True,
    help="How late usage is reported.",
)
@click.option("--requests-per-minute", type=click.IntRange(1), help="Answer 429 beyond that.")
def simulate(
    host: str, port: int, seed: int, lateness: str, requests_per_minute: int | None, **size: Any
) -> int:
    """Serve a simulated OpenAI organization, with the admin key sk-admin-simulated.

    Its usage is a pure function of the seed and the minute. It can be told to misbehave while it runs: see its page /.

    \b
      otel-openai-usage simulate --port 8080
      export OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_ADMIN_KEY=sk-admin-simulated
      XDG_STATE_HOME=$(mktemp -d) otel-openai-usage run
    """
    import asyncio

    from otel_openai_usage import logs
    from otel_openai_usage.simulator import lateness as late
    from otel_openai_usage.simulator.faults import Faults
    from otel_openai_usage.simulator.server import ADMIN_KEY, serve
    from otel_openai_usage.simulator.world import World

    logs.setup("info", "text")
    presets = {"prompt": late.PROMPT, "demo": late.DEMO, "harsh": late.HARSH}
    world = World(seed, lateness=presets[lateness], **size)

    def ready(url: str) -> None:
        click.echo(
            f"A simulated OpenAI organization: {url}\nOPENAI_BASE_URL={url}/v1 OPENAI_ADMIN_KEY={ADMIN_KEY}"
        )

    serving = serve(
        host, port, world=world, faults=Faults(requests_per_minute=requests_per_minute), ready=ready
    )
    asyncio.run(stopping.until_stopped(serving))
    return 0


@_verb(cli, "demo")
@_port(9185)
@click.option(
    "--state-url",
    metavar="URL",
    help="Keep the state in this PostgreSQL database, whose schema must be empty.",
)
def demo(port: int, state_url: str | None) -> int:
    """Show it with a simulated organization: needs no key, keeps nothing.

    Prints what to open in a browser and runs until SIGTERM, SIGINT or SIGHUP. The port is that of the
    metrics.

    \b
      otel-openai-usage demo
    """
    from otel_openai_usage import logs
    from otel_openai_usage.commands import demo as showing

    logs.setup("warning", "text")
    try:
        with stopping.raising():  # while it starts; its files are removed
            return showing.demo(port=port, state_url=state_url)
    except stopping.Stopped:
        return 0


_DAY = click.DateTime(["%Y-%m-%d"])


@_verb(cli, "backfill")
@_config
@click.option(
    "--from", "since", type=_DAY, required=True, metavar="DATE", help="The first UTC day."
)
@click.option(
    "--to",
    "until",
    type=_DAY,
    metavar="DATE",
    help="The last UTC day; by default the day before counting began.",
)
@click.option(
    "--openmetrics",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help=formats.load("openmetrics", formats.SeriesFormat).summary,
)
@click.option("--otlp", is_flag=True, help=formats.load("otlp", formats.SeriesProtocol).summary)
def backfill(
    file: Path | None, since: datetime, until: datetime | None, openmetrics: Path | None, otlp: bool
) -> int:
    """Read past usage and costs into the store: days before counting began, so no counter moves.

    With an ordinary key only, it reads past days of the legacy endpoint, five requests a minute.
    The exporter must be stopped meanwhile; it makes up for the pause. A stopped backfill goes on
    where it was.

    \b
      otel-openai-usage backfill --from 2026-10-01
      otel-openai-usage backfill --from 2026-10-01 --openmetrics past.om
      promtool tsdb create-blocks-from openmetrics past.om data/
    """
    import asyncio
    import time

    from otel_openai_usage.cli.files import expect_folder, written
    from otel_openai_usage.cli.progress import bars
    from otel_openai_usage.commands import backfill as past
    from otel_openai_usage.config import require_keys

    settings = _settings(file)
    asked = past.Asked(since.date(), until.date() if until else None)
    now = int(time.time())
    require_keys(settings)
    if openmetrics:
        expect_folder(openmetrics)
    if otlp:
        past.require_collector(settings)
    with bars() as told:
        rows = asyncio.run(past.read(settings, os.environ, asked, now, told))
    click.echo(f"{rows} rows read", err=True)
    if openmetrics:
        with written(openmetrics) as out:
            past.write_openmetrics(settings, os.environ, asked, now, out)
        click.echo(f"{openmetrics} written", err=True)
    if otlp:
        click.echo(f"{past.send_otlp(settings, os.environ, asked, now)} points sent", err=True)
    return 0


_TABLE_FORMATS = formats.table_formats()


def _format_help() -> str:
    """What each format gives."""
    summaries = [f"{name}: {each.summary}" for name, each in _TABLE_FORMATS.items()]
    return "; ".join(summaries) + "."


@_verb(cli, "export")
@_config
@click.option(
    "--from", "since", type=_DAY, required=True, metavar="DATE", help="The first UTC day."
)
@click.option("--to", "until", type=_DAY, required=True, metavar="DATE", help="The last UTC day.")
@click.option(
    "--format",
    "form",
    type=click.Choice(list(_TABLE_FORMATS)),
    default="csv",
    show_default=True,
    help=_format_help(),
)
@click.option(
    "--by",
    type=click.Choice(["day", "hour"]),
    default="day",
    show_default=True,
    help="How much time a line is of.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default="-",
    metavar="FILE",
    help="Write there instead of to stdout.",
)
def export(
    file: Path | None,
    since: datetime,
    until: datetime,
    form: str,
    by: Literal["day", "hour"],
    output: Path,
) -> int:
    """Write usage and cost history from the store, a line for each UTC day and attribute set.

    It needs no key and changes nothing; the exporter may be running. By the hour what is older than
    history.hours stays by the day, as costs do.

    \b
      otel-openai-usage export --from 2026-10-01 --to 2026-10-31 --format focus -o october.csv
      otel-openai-usage export --from 2026-10-31 --to 2026-10-31 --by hour
    """
    from otel_openai_usage.cli.files import written
    from otel_openai_usage.composition.stores import queries_opener
    from otel_openai_usage.config import state_location
    from otel_openai_usage.reports.export import lines

    if until < since:
        raise click.BadParameter(
            f"expected a day not before {since:%Y-%m-%d}, got {until:%Y-%m-%d}", param_hint="--to"
        )
    chosen = _TABLE_FORMATS[form]
    if by == "hour" and chosen.only_by_day:
        raise click.BadParameter(
            f"expected day with --format {form}, because {chosen.only_by_day}; got hour",
            param_hint="--by",
        )
    settings = _settings(file)
    found = lines(
        queries_opener(state_location(settings, os.environ)),
        since.date(),
        until.date(),
        form,
        by,
        settings.organization_ids,
    )
    # Read first: a state that cannot be read leaves the file of last time as it is.
    header = next(found, "") if chosen.has_header else ""
    first_row = next(found, "")
    with written(output) as out:
        out.write(header + first_row)
        out.writelines(found)
    # A reader that went away, as in `| head`, ends the writing early: rows written say nothing.
    if not first_row:
        nothing = f"warning: nothing is stored from {since:%Y-%m-%d} to {until:%Y-%m-%d}"
        click.echo(f"{NAME}: {nothing}; `backfill` reads days before counting began", err=True)
    return 0


@_verb(cli, "dashboard")
@_config
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
    from otel_openai_usage.composition.stores import queries_opener
    from otel_openai_usage.config import state_location

    given = {f"dashboard.{name}": value for name, value in options.items() if value is not None}
    settings = _settings(file, given)
    path = state_location(settings, os.environ)
    try:
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
        ready=lambda url: click.echo(f"The dashboard of {path}: {url}"),
    )
    return 0


@_verb(cli, "metrics")
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


def _settings(file: Path | None, overrides: Mapping[str, object] = {}) -> "Settings":
    """The settings, once logging follows them."""
    from otel_openai_usage import logs
    from otel_openai_usage.config import load

    settings = load(file, os.environ, overrides)
    logs.setup(settings.log.level, settings.log.format)
    return settings
