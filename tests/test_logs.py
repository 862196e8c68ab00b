"""Log lines: one per event, with its facts, without keys."""

import io
import json
import logging
import re
import sys

import pytest

from otel_openai_usage import logs


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        """It is."""
        return True


def test_a_line_is_time_level_event_and_facts() -> None:
    """Text lines have the time in UTC, the level, the event, and facts in quotes where they are not
    one word.
    """
    stream = io.StringIO()
    logs.setup("info", "text", stream)
    logging.getLogger("x").warning(
        "poll failed", extra={"source": "costs", "error": 'GET: 403 "no"', "count": 3, "none": ""}
    )
    assert re.fullmatch(
        r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ WARNING poll failed source=costs error="GET: 403 \\"no\\"" count=3 none=""\n',
        stream.getvalue(),
    )


def test_lines_are_json_if_asked() -> None:
    """JSON lines hold the same facts."""
    stream = io.StringIO()
    logs.setup("info", "json", stream)
    logging.getLogger("x").warning("poll failed", extra={"source": "costs", "odd": {1, 2}})
    line = json.loads(stream.getvalue())
    assert {key: line[key] for key in ("level", "logger", "message", "source", "odd")} == {
        "level": "warning",
        "logger": "x",
        "message": "poll failed",
        "source": "costs",
        "odd": "{1, 2}",
    }


@pytest.mark.parametrize("style", ["text", "json"])
def test_no_line_holds_a_key(style: str) -> None:
    """Keys are masked wherever they stand: event, fact, traceback."""
    stream = io.StringIO()
    logs.setup("debug", "json" if style == "json" else "text", stream)
    try:
        raise ValueError("sk-admin-hush3")
    except ValueError:
        logging.getLogger("x").exception("sk-admin-hush1", extra={"key": "sk-proj-hush2"})
    assert "ValueError" in stream.getvalue()
    assert "hush" not in stream.getvalue()


def test_the_level_is_kept() -> None:
    """What lies below the level is not logged."""
    stream = io.StringIO()
    logs.setup("warning", "text", stream)
    logging.getLogger("x").info("quiet")
    assert stream.getvalue() == ""


def test_an_event_is_one_line() -> None:
    """Line breaks in an event or a fact do not break the line."""
    stream = io.StringIO()
    logs.setup("info", "text", stream)
    logging.getLogger("x").info("one\ntwo", extra={"error": "three\nfour"})
    assert stream.getvalue().count("\n") == 1


def test_colour_is_for_terminals() -> None:
    """A terminal gets a coloured level, a file none."""
    for stream, coloured in ((Terminal(), True), (io.StringIO(), False)):
        logs.setup("info", "text", stream)
        logging.getLogger("x").error("red")
        assert ("\033[31mERROR\033[0m" in stream.getvalue()) is coloured


def test_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a stream, stderr is used."""
    logs.setup("info", "text")
    logging.getLogger("x").info("here")
    assert sys.stderr is not None
    assert "here" in capsys.readouterr().err
