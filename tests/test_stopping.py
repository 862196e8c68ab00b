"""SIGTERM, SIGINT and SIGHUP, at any moment of any command."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMAND = (sys.executable, "-m", "otel_openai_usage")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def start(*arguments: str, home: Path, **env: str) -> subprocess.Popen[str]:
    """The command, with a home of its own."""
    known = {key: os.environ[key] for key in ("PATH",)}
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=known
        | {"PYTHONPATH": str(ROOT), "HOME": str(home), "XDG_STATE_HOME": str(home)}
        | {"PYTHONUNBUFFERED": "1", "TMPDIR": str(home)}
        | env,
    )


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run"], 0),
        (["run", "--once"], 1),
        (["check"], 1),
        (["verify"], 1),
        (["backfill", "--from", "2026-11-01"], 1),
        (["export", "--from", "2026-11-01", "--to", "2026-11-02"], 1),
        (["dashboard"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_is_stopped_while_it_starts(
    arguments: list[str], code: int, number: int, tmp_path: Path
) -> None:
    """A command that runs until it is stopped ends with 0, one whose work is not done with 1 and a
    sentence; here it waits for its configuration. No traceback.
    """
    file = tmp_path / "config.yaml"
    os.mkfifo(file)
    process = start(*arguments, "-c", str(file), home=tmp_path)
    try:
        with file.open("w"):  # opens when the other end does
            process.send_signal(number)
        # The pipe is closed now, so that a read which began just before the signal came ends too:
        # Python runs its handlers between two instructions, never within a read.
        _, told = process.communicate(timeout=10)
        assert process.returncode == code
        name = signal.Signals(number).name
        assert told == (f"otel-openai-usage: stopped by {name} before the work was done\n" * code)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("delay", [0.05, 0.15, 0.3, 0.6, 1.0, 1.6])
@pytest.mark.parametrize("number", SIGNALS)
def test_run_is_stopped_at_any_moment_of_its_start(
    number: int, delay: float, tmp_path: Path
) -> None:
    """Whenever the signal comes after our code began, `run` ends with 0 and without a traceback."""
    process = start(
        "run",
        "--listen",
        "127.0.0.1:0",
        home=tmp_path,
        OPENAI_ADMIN_KEY="sk-admin-x",
        OPENAI_BASE_URL="http://127.0.0.1:1/v1",
    )
    try:
        _wait_for_our_handler(process.pid)
        time.sleep(delay - 0.05)  # another moment in each case: there is no condition to wait for
        process.send_signal(number)
        _, told = process.communicate(timeout=10)
        assert "Traceback" not in told
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    "arguments",
    [["simulate", "--port", "0"], ["demo", "--port", "0"], ["dashboard", "--port", "0"]],
    ids=lambda value: value[0],
)
def test_what_serves_ends_with_0(arguments: list[str], number: int, tmp_path: Path) -> None:
    """`simulate`, `demo` and `dashboard` end with 0 when they are asked to, and leave no files."""
    process = start(*arguments, home=tmp_path)
    try:
        assert process.stdout is not None
        while "http" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(number)
        _, told = process.communicate(timeout=15)
        assert "Traceback" not in told
        assert process.returncode == 0
        assert not list(tmp_path.glob("otel-openai-usage-demo-*"))
    finally:
        process.kill()
        process.communicate()


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    """Asked twice, a command ends with 130."""
    script = """
import time
from otel_openai_usage import stopping
stopping.install(["run"])
with stopping.calling(lambda: print("asked", flush=True)):
    print("ready", flush=True)
    time.sleep(30)
    time.sleep(30)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        for said in ("ready\n", "asked\n"):
            assert process.stdout.readline() == said
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.communicate()


def test_nohup_is_obeyed(tmp_path: Path) -> None:
    """Where SIGHUP is ignored at the start, it stays so."""
    process = subprocess.Popen(
        ["nohup", *COMMAND, "simulate", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        while "http" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def _wait_for_our_handler(pid: int) -> None:
    """Until the process handles SIGTERM: what comes before is Python's own start."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/status").read_text()
        caught = int(
            next(line for line in status.splitlines() if line.startswith("SigCgt"))[7:], 16
        )
        if caught >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.001)
    raise AssertionError("SIGTERM was never handled")
