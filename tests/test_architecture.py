"""The floors of the house hold, and no room grows too large."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "otel_openai_usage"
MODULES = sorted(PACKAGE.rglob("*.py"))


def test_imports_only_go_down() -> None:
    """Every import-linter contract in pyproject.toml is kept: floors, siblings, a pure core."""
    lint = "from importlinter.cli import lint_imports_command as main; main(['--no-cache'])"
    done = subprocess.run(
        [sys.executable, "-c", lint], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_stay_readable(module: Path) -> None:
    """No module has more than 600 lines: it would hold a second thing."""
    assert len(module.read_text().splitlines()) <= 600
