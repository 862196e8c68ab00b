"""Where the real servers are. `make servers` installs them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def program(name: str) -> Path:
    """The path of a real server. A missing one is a failure in CI, and a reason to skip on a desk."""
    found = _collector() if name == "otelcol" else shutil.which(name)
    if found:
        return Path(found)
    reason = f"{name} is not installed; `make servers` installs it"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _collector() -> str | None:
    where = subprocess.run(
        [ROOT / "tools" / "install-real-servers.sh", "--where"],
        capture_output=True,
        text=True,
        check=True,
    )
    return shutil.which(where.stdout.strip())
