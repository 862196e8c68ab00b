"""The commands `backfill` and `export`."""

import os
from datetime import datetime
from pathlib import Path
from typing import Literal

import click

from otel_openai_usage.cli.group import DAY, NAME, cli, command, config_option, load_settings
from otel_openai_usage.reports import formats


@command(cli, "backfill")
@config_option
@click.option("--from", "since", type=DAY, required=True, metavar="DATE", help="The first UTC day.")
@click.option(
    "--to",
    "until",
    type=DAY,
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

    settings = load_settings(file)
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


@command(cli, "export")
@config_option
@click.option("--from", "since", type=DAY, required=True, metavar="DATE", help="The first UTC day.")
@click.option("--to", "until", type=DAY, required=True, metavar="DATE", help="The last UTC day.")
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
    "--focus-version",
    type=click.Choice(list(_TABLE_FORMATS["focus"].versions)),
    help="The version of FOCUS.  [default: 1.2]",
)
@click.option("--no-allocation", is_flag=True, help="Do not divide bills among customers.")
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
    focus_version: str | None,
    no_allocation: bool,
    output: Path,
) -> int:
    """Write usage and cost history from the store, a line for each UTC day and attribute set.

    It needs no key and changes nothing; the exporter may be running. By the hour what is older than
    history.hours stays by the day, as costs do.

    Where applications report events, each bill is also divided among customers: as records
    `allocated`, in FOCUS as rows of their own.

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
    if focus_version and form != "focus":
        raise click.BadParameter(
            f"it is for --format focus, got --format {form}", param_hint="--focus-version"
        )
    settings = load_settings(file)
    found = lines(
        queries_opener(state_location(settings, os.environ)),
        since.date(),
        until.date(),
        form,
        by,
        settings.organization_ids,
        version=focus_version,
        allocates=not no_allocation,
        hashed=settings.attributes.hash,
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
