"""Log lines: one per event, with its facts (`extra=`), and never a key."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal, TextIO

from otel_openai_usage.config.secrets import redact

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_COLOURS = {"WARNING": "\033[33m", "ERROR": "\033[31m", "CRITICAL": "\033[31m", "DEBUG": "\033[2m"}
_PLAIN = "\033[0m"


def setup(level: str, style: Literal["text", "json"], stream: TextIO | None = None) -> None:
    """Send every logger's lines from `level` on to `stream` (stderr), as text or JSON; in colour
    only to a terminal.
    """
    out = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(out)
    handler.setFormatter(Json() if style == "json" else Text(colour=out.isatty()))
    handler.addFilter(_ours)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)


def is_json() -> bool:
    """Whether the lines are JSON, so that a sentence would not fit."""
    return any(isinstance(handler.formatter, Json) for handler in logging.getLogger().handlers)


def facts(record: logging.LogRecord) -> dict[str, object]:
    """What was given as `extra=`."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _ours(record: logging.LogRecord) -> bool:
    """Whether to tell of it. aiohttp logs a traceback when a client sends what is no HTTP, or goes
    away before it has its answer.
    """
    error = record.exc_info[1] if record.name == "aiohttp.server" and record.exc_info else None
    theirs = (
        isinstance(error, ConnectionError) or type(error).__module__ == "aiohttp.http_exceptions"
    )
    return not theirs or logging.getLogger().isEnabledFor(logging.DEBUG)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Text(logging.Formatter):
    """`2026-11-22T02:30:00Z WARNING poll failed source=costs error="..."`; a traceback follows on
    lines of its own.
    """

    def __init__(self, *, colour: bool = False) -> None:
        super().__init__()
        self._colours = _COLOURS if colour else {}

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        colour = self._colours.get(record.levelname, "")
        said = record.getMessage().replace("\n", "; ")
        told = "".join(
            f" {key}={_quoted(value)}" for key, value in facts(record).items() if key != "event"
        )
        trace = "\n" + self.formatException(record.exc_info) if record.exc_info else ""
        return redact(
            f"{_time(record)} {colour}{record.levelname}{_PLAIN if colour else ''} {said}{told}{trace}"
        )


class Json(logging.Formatter):
    """One JSON object a line: time, level, logger, message, then the facts; `exception` holds a
    traceback.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        trace = {"exception": self.formatException(record.exc_info)} if record.exc_info else {}
        return redact(
            json.dumps({**facts(record), **line, **trace}, default=str, ensure_ascii=False)
        )


def _quoted(value: object) -> str:
    """The value, in quotes where it would not be one word."""
    text = str(value)
    return (
        text
        if text and text.isprintable() and not set(text) & set(' "=')
        else json.dumps(text, ensure_ascii=False)
    )
