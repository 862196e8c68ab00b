"""With a full disk no commit is torn, scrapes go on, and polling catches up when there is space
again.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def test_a_full_disk_costs_nothing(tmp_path: Path) -> None:
    """After two hours on a full file system every total is exact."""
    mounted = f'mount -t tmpfs -o size=24m tmpfs "{tmp_path}"'
    if (
        not shutil.which("unshare")
        or subprocess.run(
            ["unshare", "-rm", "sh", "-c", mounted], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("this user may not mount a small file system; the quota test says the same")
    done = lived(["unshare", "-rm", "sh", "-c", f'{mounted} && exec "$@"', "sh"], tmp_path, "disk")
    assert done.stdout.startswith("exact"), done.stdout + done.stderr


def test_a_quota_costs_nothing(tmp_path: Path) -> None:
    """After two hours in which no file may grow every total is exact."""
    done = lived([], tmp_path, "quota")
    assert done.stdout.startswith("exact"), done.stdout + done.stderr


def lived(before: list[str], folder: Path, how: str) -> subprocess.CompletedProcess[str]:
    """The output of tests.storage.full."""
    command = [*before, sys.executable, "-m", "tests.storage.full", str(folder), how]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
