"""Where the real servers are. `make servers` installs them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


BUILT = ("otelcol", "prometheus3", "promtool3", "helm", "node_modules", "litellm")
"""Servers and packages that tools/install-real-servers.sh builds; the others are Debian's."""


def program(name: str) -> Path:
    """The path of a real server. A missing one is a failure in CI, and a reason to skip on a desk."""
    found = _installed(name)
    if found:
        return Path(found)
    reason = f"{name} is not installed; `make servers` installs it"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _installed(name: str) -> str | None:
    if name == "node_modules":
        packages = _built(name)
        return packages if shutil.which("node") and Path(packages).is_dir() else None
    return shutil.which(_built(name) if name in BUILT else name)


def _built(name: str) -> str:
    where = subprocess.run(
        [ROOT / "tools" / "install-real-servers.sh", "--where", name],
        capture_output=True,
        text=True,
        check=True,
    )
    return where.stdout.strip()
