"""The command line's root, and what its commands share: options, and how settings are loaded."""

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from otel_openai_usage import stopping

if TYPE_CHECKING:
    from otel_openai_usage.config import Settings

NAME = "otel-openai-usage"
FAILED = 1


_ORDER = (
    "run", "check", "verify", "state", "simulate", "demo", "backfill", "export", "compare", "dashboard", "metrics",
    "config", "healthcheck",
)  # fmt: skip
"""The common commands first."""


class InOrder(click.Group):
    """Lists its commands in the order of `_ORDER`, others in the order in which they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands."""
        return sorted(self.commands, key=_place)


def _place(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)


config_option = click.option(
    "-c",
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The configuration; without it the file that OTEL_OPENAI_USAGE_CONFIG names, if any.",
)


def port_option(default: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option --port."""
    return click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=default,
        show_default=True,
        help="The port; 0 is any free one.",
    )


def command(group: click.Group, name: str) -> Callable[[Callable[..., int]], click.Command]:
    """A command whose docstring is its help; the layout of its examples is kept by their \\b.

    Unless the command handles signals itself, one ends its work in order.
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
    cls=InOrder,
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


DAY = click.DateTime(["%Y-%m-%d"])
"""The type of an option that is a UTC day."""


def load_settings(file: Path | None, overrides: Mapping[str, object] = {}) -> "Settings":
    """The settings, once logging follows them."""
    from otel_openai_usage import logs
    from otel_openai_usage.config import load

    settings = load(file, os.environ, overrides)
    logs.setup(settings.log.level, settings.log.format)
    return settings
