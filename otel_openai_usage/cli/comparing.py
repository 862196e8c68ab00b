"""The command `compare`."""

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from otel_openai_usage.cli.group import FAILED, cli, command, config_option, load_settings
from otel_openai_usage.errors import ConfigError

if TYPE_CHECKING:
    from otel_openai_usage.providers.gateways import Activity

_DAY = click.DateTime(["%Y-%m-%d"])


@command(cli, "compare")
@config_option
@click.option(
    "--litellm",
    metavar="URL|FILE",
    help="A LiteLLM proxy, or a saved answer of its /user/daily/activity. Its key is LITELLM_API_KEY.",
)
@click.option(
    "--csv",
    "table_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A CSV of any gateway with the columns date, model, tokens and cost.",
)
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A file with the key of the LiteLLM proxy.",
)
@click.option(
    "--from", "since", type=_DAY, metavar="DATE", help="The first UTC day; default: a week ago."
)
@click.option(
    "--to", "until", type=_DAY, metavar="DATE", help="The last UTC day; default: yesterday."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table for people, or JSON.",
)
def compare(
    file: Path | None,
    litellm: str | None,
    table_file: Path | None,
    key_file: Path | None,
    since: datetime | None,
    until: datetime | None,
    form: Literal["table", "json"],
) -> int:
    """Compare what a gateway counted with OpenAI's count and bill, by model and UTC day.

    OpenAI's side is read from the store, so the exporter may be running. A gateway's name without a
    date (gpt-4o) stands for the dated models of that day. Ends with 1 if anything differs; the
    reasons that can be known stand below.

    \b
      LITELLM_API_KEY=sk-… otel-openai-usage compare --litellm http://localhost:4000
      otel-openai-usage compare --csv gateway.csv --from 2026-11-01 --to 2026-11-30
    """
    from otel_openai_usage.commands.compare import as_json, comparisons, table

    if (litellm is None) == (table_file is None):
        raise click.UsageError("expected --litellm or --csv, one of the two")
    today = datetime.now(UTC).date()
    first = since.date() if since else today - timedelta(days=7)
    last = until.date() if until else today - timedelta(days=1)
    if last < first:
        raise click.BadParameter(
            f"expected a day not before {first}, got {last}", param_hint="--to"
        )
    settings = load_settings(file)
    if litellm is not None:
        gateway = _litellm(litellm, key_file, first, last)
    else:
        from otel_openai_usage.providers.gateways import read_csv

        gateway = read_csv(_text(table_file or Path()), f"--csv {table_file}")
    lines = comparisons(settings, os.environ, gateway, first, last, today)
    if form == "json":
        click.echo(as_json(lines))
    else:
        for line in table(lines):
            click.echo(line)
    return FAILED if any(line.differs for line in lines) else 0


def _litellm(place: str, key_file: Path | None, first: date, last: date) -> "Activity":
    from otel_openai_usage.providers.gateways import read_litellm, saved_litellm

    if not place.startswith(("http://", "https://")):
        return saved_litellm(_text(Path(place)), f"--litellm {place}")
    import asyncio

    key = os.environ.get("LITELLM_API_KEY", "").strip() or None
    if key_file is not None:
        key = _text(key_file).strip()
    return asyncio.run(read_litellm(place, key, first, last))


def _text(file: Path) -> str:
    """What a file says. Raises ConfigError."""
    from otel_openai_usage.providers.gateways import MAX_BYTES

    try:
        if file.stat().st_size > MAX_BYTES:
            raise ConfigError([f"{file}: it has more than {MAX_BYTES} bytes; export fewer days"])
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([f"reading {str(file)!r}: {error.strerror or error}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"reading {str(file)!r}: it is not UTF-8"]) from error
