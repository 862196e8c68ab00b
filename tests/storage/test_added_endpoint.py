"""A new row of the endpoint table counts end to end, on a state of every released version."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = sorted(Path(__file__).parent.glob("version-*.sql"))


@pytest.mark.parametrize("script", [None, *SCRIPTS], ids=lambda path: path.stem if path else "new")
def test_an_added_endpoint_counts(tmp_path: Path, script: Path | None) -> None:
    """Endpoints that are added with and without a new measure and a new dimension are polled,
    stored and exported exactly, also after a kill.
    """
    path = tmp_path / "state.db"
    if script is not None:
        with sqlite3.connect(path) as db:
            db.executescript(script.read_text())
        db.close()
    done = subprocess.run(
        [sys.executable, "-m", "tests.storage.added_endpoint", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "exact\n", done.stderr
