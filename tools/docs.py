"""Writes the pages that are made from the code. `--check` writes nothing, names what is stale, and
ends with 1 if anything is.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from otel_openai_usage.cli import cli
from otel_openai_usage.config.reference import page
from otel_openai_usage.domain.instruments import INSTRUMENTS
from otel_openai_usage.reports import weaver

ROOT = Path(__file__).parent.parent
TABLE = re.compile(r"(<!-- metrics: made by `make docs` -->\n).*?(<!-- /metrics -->)", re.DOTALL)


def metrics() -> str:
    """What `otel-openai-usage metrics` prints."""
    command = [sys.executable, "-m", "otel_openai_usage", "metrics", "--format", "markdown"]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def commands() -> str:
    """The help of every verb, as it is printed 100 columns wide."""
    like: dict[str, Any] = {"terminal_width": 100, "help_option_names": ["-h", "--help"]}
    parts = ["# The command line\n\n<!-- Made by `make docs` from `--help`. -->\n"]
    for path, command in verbs("", cli):
        with click.Context(command, info_name=f"otel-openai-usage{path}", **like) as context:
            parts.append(
                f"## otel-openai-usage{path}\n\n```text\n{command.get_help(context)}\n```\n"
            )
    return "\n".join(parts)


def verbs(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """A command and all below it, with the words that call them."""
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from verbs(f"{path} {name}", below)


def readme() -> str:
    """The README with its metrics table made anew."""
    rows = "".join(
        f"| `{item.prometheus}` | {item.kind} | {item.description} |\n"
        for item in INSTRUMENTS.values()
    )
    table = f"\n| in Prometheus | kind | what it says |\n| --- | --- | --- |\n{rows}\n"
    return TABLE.sub(lambda marks: marks[1] + table + marks[2], (ROOT / "README.md").read_text())


def pages() -> dict[Path, str]:
    """Every generated page and what should stand in it."""
    made = {"metrics.md": metrics(), "configuration.md": page(), "cli.md": commands()}
    made |= {f"registry/{name}": text for name, text in weaver.files().items()}
    return {ROOT / "README.md": readme()} | {
        ROOT / "docs" / name: text for name, text in made.items()
    }


def main() -> int:
    """Write, or check."""
    stale = {
        path: text
        for path, text in pages().items()
        if not path.exists() or path.read_text() != text
    }
    for path, text in stale.items():
        if "--check" in sys.argv:
            print(f"{path.relative_to(ROOT)} is stale; `make docs` makes it anew")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    return bool(stale) and "--check" in sys.argv


if __name__ == "__main__":
    sys.exit(main())
