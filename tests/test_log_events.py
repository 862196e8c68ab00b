"""With log.format: json every line has a field `event` (the contract of the log)."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "otel_openai_usage"
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
GATHERED = {"facts", "opened"}
"""Variables that hold the facts of a line, their event included."""


def log_calls() -> list[tuple[str, ast.Call]]:
    """Every call of a logger in the package, and where it is."""
    calls = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            is_logger = isinstance(node.func.value, ast.Name) and node.func.value.id == "log"
            if is_logger and node.func.attr in LEVELS:
                calls.append((f"{path.relative_to(PACKAGE)}:{node.lineno}", node))
    return calls


@pytest.mark.parametrize(("place", "call"), log_calls(), ids=lambda value: str(value)[:60])
def test_every_log_line_has_an_event(place: str, call: ast.Call) -> None:
    """Each logger is called with `extra` that has an event."""
    extra = [keyword.value for keyword in call.keywords if keyword.arg == "extra"]
    assert extra, f"{place}: no extra"
    text = ast.unparse(extra[0])
    assert "'event'" in text or text in GATHERED, f"{place}: {text}"
