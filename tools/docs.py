"""Writes the pages that are made from the code. `--check` writes nothing, names what is stale, and ends with 1 if anything is."""

import re
import subprocess
import sys
from pathlib import Path

from otel_openai_usage.config.reference import page
from otel_openai_usage.core.catalogue import INSTRUMENTS

ROOT = Path(__file__).parent.parent
TABLE = re.compile(r"(<!-- metrics: made by `make docs` -->\n).*?(<!-- /metrics -->)", re.DOTALL)


def metrics() -> str:
    """What `otel-openai-usage metrics` prints."""
    command = [sys.executable, "-m", "otel_openai_usage", "metrics", "--format", "markdown"]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def readme() -> str:
    """The README with its metrics table made anew."""
    rows = "".join(f"| `{item.prometheus}` | {item.kind} | {item.description} |\n" for item in INSTRUMENTS.values())
    table = f"\n| in Prometheus | kind | what it says |\n| --- | --- | --- |\n{rows}\n"
    return TABLE.sub(lambda marks: marks[1] + table + marks[2], (ROOT / "README.md").read_text())


def pages() -> dict[Path, str]:
    """Every generated page and what should stand in it."""
    return {ROOT / "README.md": readme(), ROOT / "docs" / "metrics.md": metrics(), ROOT / "docs" / "configuration.md": page()}


def main() -> int:
    """Write, or check."""
    stale = {path: text for path, text in pages().items() if not path.exists() or path.read_text() != text}
    for path, text in stale.items():
        if "--check" in sys.argv:
            print(f"{path.relative_to(ROOT)} is stale; `make docs` makes it anew")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    return bool(stale) and "--check" in sys.argv


if __name__ == "__main__":
    sys.exit(main())
