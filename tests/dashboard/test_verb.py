"""Tests of the command, as a process."""

import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest


def test_the_command_serves_until_it_is_stopped(path: Path, tmp_path: Path) -> None:
    """`dashboard` says where it is, answers there, and ends with 0 on SIGTERM; it needs no key."""
    config = tmp_path / "config.yaml"
    config.write_text(f"state: {{path: {path}}}\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "otel_openai_usage",
        "dashboard",
        "-c",
        str(config),
        "--port",
        "0",
    ]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        for _ in range(100):
            try:
                with urllib.request.urlopen(f"{url}/table.csv?by=project", timeout=10) as answer:
                    head = answer.read().decode().splitlines()[0]
                break
            except urllib.error.HTTPError:  # still reading
                time.sleep(0.1)
        else:
            pytest.fail("never had anything to show")
        assert head.startswith("from,to,project,project_id,cost_usd")
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_a_taken_port_is_reported(path: Path, tmp_path: Path, url: str) -> None:
    """The address that cannot be had is named, and what to do; the code is 1."""
    config = tmp_path / "config.yaml"
    config.write_text(f"state: {{path: {path}}}\n", encoding="utf-8")
    port = url.rpartition(":")[2]
    command = [
        sys.executable,
        "-m",
        "otel_openai_usage",
        "dashboard",
        "-c",
        str(config),
        "--port",
        port,
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"localhost:{port} for the dashboard" in done.stderr
    assert "Traceback" not in done.stderr
