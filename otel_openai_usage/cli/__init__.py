"""The command line: arguments to verbs, errors to sentences and exit codes."""

import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from otel_openai_usage import stopping
from otel_openai_usage.cli import (  # noqa: F401 - each adds its commands
    comparing,
    configuration,
    exporter,
    healthcheck,
    history,
    showing,
    simulation,
    state,
)
from otel_openai_usage.cli.files import discard_the_rest
from otel_openai_usage.cli.group import FAILED, NAME, cli
from otel_openai_usage.errors import ConfigError, ExporterError

__all__ = ["answer", "cli", "main"]

MISUSED = 2
INTERRUPTED = 130

_OLD_FLAGS = {
    "web.listen-address": "run --listen HOST:PORT",
    "web.telemetry-path": "run --path PATH",
    "scrape.interval": "run --interval DURATION",
    "log.level": "run --log-level LEVEL",
}
"""Flags of openai-exporter, and what they are here."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script: run a verb and exit with its code. Never a traceback for what was
    foreseen.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    stopping.install(given)
    code = answer(given)
    stopping.finished(code)
    sys.exit(code)


def answer(arguments: Sequence[str]) -> int:
    """The exit code of a command line; what goes wrong is told on stderr."""
    try:
        done = cli.main(list(arguments), prog_name=NAME, standalone_mode=False)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt, stopping.Stopped) as error:  # noqa: BLE001 - the last net: a bug is told in a sentence too
        return _told(error, arguments)
    return done if isinstance(done, int) else 0


def _told(error: BaseException, arguments: Sequence[str]) -> int:
    match error:
        case click.ClickException():
            error.show()
            _hint(arguments)
            return error.exit_code
        case click.Abort() | KeyboardInterrupt():
            return INTERRUPTED
        case BrokenPipeError():  # the reader of our output went away, as in `| head`
            discard_the_rest()
            return 0
        case ConfigError():
            _report(error, *error.problems)
            return MISUSED
        case ExporterError() | stopping.Stopped():
            _report(error, str(error))
            return FAILED
        case _:
            return _bug(error)


def _report(error: ExporterError | stopping.Stopped, *sentences: str) -> None:
    """Tell what ended the command: as lines of the log where it is JSON, otherwise as sentences."""
    from otel_openai_usage import logs

    if not logs.is_json():
        _tell(*sentences)
        return
    import logging

    for sentence in sentences:
        logging.getLogger(__name__).error(sentence, extra={"event": error.event})


def _tell(*sentences: str) -> None:
    from otel_openai_usage.config.secrets import redact

    for sentence in sentences:
        click.echo(f"{NAME}: {redact(sentence)}", err=True)


def _hint(arguments: Sequence[str]) -> None:
    """What the flags of openai-exporter are called here."""
    for argument in arguments:
        old = argument.lstrip("-").partition("=")[0]
        if argument.startswith("-") and old in _OLD_FLAGS:
            click.echo(f"-{old} of openai-exporter is here: {NAME} {_OLD_FLAGS[old]}", err=True)


def _bug(error: BaseException) -> int:
    """Tell of a bug; its traceback goes to the log at level debug."""
    import logging

    _tell(
        f"this should not happen, so it is a bug of {NAME}: {type(error).__name__}: {error}. Report it with what --log-level debug shows"
    )
    logging.getLogger(__name__).debug("bug", exc_info=error)
    return FAILED
