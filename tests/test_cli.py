"""The command line: exit codes, sentences on stderr, help that answers at once."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from otel_openai_usage import cli
from otel_openai_usage.composition import app
from otel_openai_usage.config import Settings
from otel_openai_usage.domain.gen_ai import GEN_AI_INSTRUMENTS
from otel_openai_usage.domain.instruments import INSTRUMENTS
from otel_openai_usage.errors import ConfigError, ExporterError, ListenError
from otel_openai_usage.exporters.self_instruments import SELF_INSTRUMENTS
from otel_openai_usage.storage.sqlite.store import Store

VERBS = [
    "run",
    "check",
    "verify",
    "state",
    "simulate",
    "demo",
    "backfill",
    "export",
    "compare",
    "dashboard",
    "metrics",
    "config",
    "healthcheck",
]
COMMAND = [sys.executable, "-m", "otel_openai_usage"]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without anybody's keys, and an empty folder."""
    for name in [name for name in os.environ if name.startswith(("OPENAI_", "OTEL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


def call(*arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """The command as a process."""
    given = os.environ | env | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False, env=given
    )


Run = Callable[..., int]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, bool]]:
    """Stands in for the exporter: what `run` was called with."""
    calls: list[tuple[Settings, bool]] = []

    def run(settings: Settings, *, once: bool = False) -> int:
        calls.append((settings, once))
        return 0

    monkeypatch.setattr(app, "run", run)
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-hush")
    return calls


# --- help


@pytest.mark.parametrize(
    "arguments",
    [[], *([verb] for verb in VERBS), ["config", "show"], ["config", "schema"]],
    ids=" ".join,
)
def test_help_answers_at_once(arguments: list[str]) -> None:
    """Every --help takes less than 0.3 s of CPU and imports nothing heavy."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = call(*arguments, "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: otel-openai-usage")
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 0.3
    # The list of imports costs time itself, so it comes from a second call.
    done = call(*arguments, "--help", PYTHONPROFILEIMPORTTIME="1")
    loaded = {
        line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()
    }
    assert not loaded & {
        "pydantic",
        "aiohttp",
        "opentelemetry",
        "yaml",
        "asyncio",
        "grpc",
        "prometheus_client",
        "msgspec",
        "rich",
    }


def test_help_lists_the_verbs_in_order() -> None:
    """The verbs of the contract, the common ones first."""
    listed = call("--help").stdout.partition("Commands:")[2]
    assert [line.split()[0] for line in listed.splitlines() if line.strip()] == VERBS


def test_version() -> None:
    """--version prints the version of the distribution."""
    assert (
        call("--version").stdout == f"otel-openai-usage, version {version('otel-openai-usage')}\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["run", "--fast"],
        ["run", "extra"],
        ["simulate", "--port", "many"],
        ["metrics", "--format", "xml"],
        [],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What is no verb, option or value ends with 2 and says something on stderr."""
    assert cli.answer(arguments) == 2
    assert capsys.readouterr().err


def test_flags_of_openai_exporter_get_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody who brings the old flags is told the new ones."""
    assert cli.answer(["run", "-web.listen-address=:9185"]) == 2
    assert "run --listen HOST:PORT" in capsys.readouterr().err


# --- run


def test_options_override_the_file(ran: list[tuple[Settings, bool]], tmp_path: Path) -> None:
    """--listen, --path, --interval and --log-level stand above the file; --once is handed on."""
    (tmp_path / "c.yaml").write_text(
        "prometheus: {host: file, port: 1, path: /file}\nusage: {interval: 1h}\nlog: {level: error}"
    )
    arguments = [
        "run",
        "-c",
        "c.yaml",
        "--listen",
        "127.0.0.1:2",
        "--path",
        "/p",
        "--interval",
        "5s",
        "--log-level",
        "warning",
        "--once",
    ]
    assert cli.answer(arguments) == 0
    settings, once = ran[0]
    assert (settings.prometheus.host, settings.prometheus.port, settings.prometheus.path) == (
        "127.0.0.1",
        2,
        "/p",
    )
    assert (settings.usage.interval.total_seconds(), settings.log.level, once) == (
        5,
        "warning",
        True,
    )


def test_without_options_the_file_stands(ran: list[tuple[Settings, bool]], tmp_path: Path) -> None:
    """No option overrides what the file says."""
    (tmp_path / "c.yaml").write_text("prometheus: {host: file, port: 1, path: /file}")
    assert cli.answer(["run", "-c", "c.yaml"]) == 0
    assert (ran[0][0].prometheus.host, ran[0][0].prometheus.port, ran[0][1]) == ("file", 1, False)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("localhost:9", ("localhost", 9)),
        (":9", ("0.0.0.0", 9)),
        ("[::1]:9", ("::1", 9)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
    ],
)
def test_addresses(ran: list[tuple[Settings, bool]], text: str, found: tuple[str, int]) -> None:
    """--listen takes a name, an address, a bracketed IPv6 address, or only a port for every
    interface.
    """
    assert cli.answer(["run", "--listen", text]) == 0
    assert (ran[0][0].prometheus.host, ran[0][0].prometheus.port) == found


@pytest.mark.parametrize(
    "text",
    ["nonsense", "9185", "localhost:", "localhost:x", "localhost:70000", "::1:9", "a:b:c", ""],
)
def test_addresses_that_are_none(ran: list[tuple[Settings, bool]], text: str) -> None:
    """What is no HOST:PORT ends with 2 before anything starts."""
    assert cli.answer(["run", "--listen", text]) == 2
    assert ran == []


def test_a_wrong_option_value_is_a_configuration_error(
    ran: list[tuple[Settings, bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    """--interval 5x ends with 2 and says where it came from."""
    assert cli.answer(["run", "--interval", "5x"]) == 2
    assert "usage.interval (on the command line): expected a duration" in capsys.readouterr().err


def test_an_unknown_exporter_ends_with_2(
    ran: list[tuple[Settings, bool]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An exporter that no installed package has ends with 2, and the installed names are listed."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp,zipkin")
    assert cli.answer(["run"]) == 2
    said = capsys.readouterr().err
    assert "otlp, prometheus, none, console" in said
    assert "zipkin" in said
    assert not ran


def test_every_problem_is_a_line_on_stderr(tmp_path: Path) -> None:
    """All problems of a file are told, one line each, with code 2 and no traceback."""
    (tmp_path / "c.yaml").write_text("usage: {settle: 5x}\ncosts: {days: 0}\nzzz: 1")
    done = call("run", "-c", "c.yaml", OPENAI_ADMIN_KEY="sk-admin-hush")
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == [
        "usage.settle",
        "costs.days",
        "zzz",
    ]


def test_no_key_ends_with_2_and_says_how_to_get_one() -> None:
    """Without a key `run` says what to set and where keys are made."""
    done = call("run")
    assert done.returncode == 2
    assert "OPENAI_ADMIN_KEY" in done.stderr
    assert "platform.openai.com" in done.stderr
    assert "Traceback" not in done.stderr


# --- what goes wrong below


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            ListenError(
                "listening on localhost:9185: the address is in use; choose another with --listen"
            ),
            1,
            "choose another",
        ),
        (ExporterError("polling with sk-admin-hush: no"), 1, "polling with ****: no"),
        (ConfigError(["a.b: expected 1", "c: expected 2"]), 2, "c: expected 2"),
        (KeyboardInterrupt(), 130, ""),
        (KeyError("sk-admin-hush"), 1, "bug"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_errors_become_sentences_and_codes(
    error: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is raised below becomes a sentence on stderr and the contract's exit code; never a
    traceback, never a key.
    """

    def fails(*_: Any, **__: Any) -> int:
        raise error

    monkeypatch.setattr(app, "run", fails)
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-hush")
    assert cli.answer(["run"]) == code
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
    assert "hush" not in told


def test_a_bug_shows_its_traceback_at_level_debug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --log-level debug a bug can be reported with its traceback, keys masked."""

    def fails(*_: Any, **__: Any) -> int:
        raise KeyError("sk-admin-hush")

    monkeypatch.setattr(app, "run", fails)
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-hush")
    assert cli.answer(["run", "--log-level", "debug"]) == 1
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "hush" not in told


def test_history_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`export` without a state, of days in the wrong order, or to a place that is not there, and
    `backfill` of tomorrow.
    """
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-hush")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    days = ["--from", "2026-11-02", "--to"]
    last = tmp_path / "last.csv"
    last.write_text("of last time")
    assert cli.answer(["export", *days, "2026-11-03", "-o", str(last)]) == 1
    assert last.read_text() == "of last time"
    assert cli.answer(["export", *days, "2026-11-01"]) == 2
    Store(tmp_path / "otel-openai-usage" / "state.db").close()
    assert cli.answer(["export", *days, "2026-11-03", "-o", str(tmp_path / "no" / "file.csv")]) == 1
    assert cli.answer(["export", *days, "2026-11-03", "--format", "focus", "--by", "hour"]) == 2
    assert cli.answer(["backfill", "--from", "2999-01-01"]) == 2
    told = capsys.readouterr().err
    assert "there is none; `otel-openai-usage run` makes it" in told
    assert "expected a day not before 2026-11-02" in told
    assert "file.csv: No such file or directory" in told
    assert "--by: expected day with --format focus" in told
    assert "--from 2999-01-01: expected a day before" in told


# --- check, metrics, config, simulate


def test_check_ends_with_the_worst(tmp_path: Path) -> None:
    """`check --offline` is 0 when nothing fails, 1 when something does, 2 when the configuration is
    wrong or a key is missing.
    """
    good = call("check", "--offline", OPENAI_ADMIN_KEY="sk-admin-hush")
    assert (good.returncode, good.stderr) == (0, "")
    assert all(line.split()[0] in ("ok", "warn") for line in good.stdout.splitlines())
    assert call("check", "--offline", OPENAI_ADMIN_KEY="sk-proj-hush").returncode == 1
    (tmp_path / "c.yaml").write_text("usage: {settle: 5x}")
    wrong = call("check", "-c", "c.yaml", OPENAI_ADMIN_KEY="sk-admin-hush")
    assert (wrong.returncode, wrong.stdout[:4]) == (2, "fail")
    assert "usage.settle" in wrong.stderr
    assert call("check", "--offline").returncode == 2


def test_metrics_lists_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """`metrics` has every instrument in both worlds, as a table and as JSON."""
    names = {*INSTRUMENTS, *GEN_AI_INSTRUMENTS, *SELF_INSTRUMENTS}
    names.add("otel_openai_usage.restated_pending")
    assert cli.answer(["metrics", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows} == names
    assert all(row["prometheus"] and row["description"] for row in rows)
    assert cli.answer(["metrics"]) == 0
    table = capsys.readouterr().out
    assert {name for name in names if f"| `{name}` |" not in table} == set()


def test_config_show_and_schema(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`config show` masks the key, needs none, and `config schema` prints JSON."""
    assert cli.answer(["config", "show"]) == 0
    assert "admin_key: null" in capsys.readouterr().out
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-hush")
    assert cli.answer(["config", "show"]) == 0
    shown = capsys.readouterr().out
    assert "'****'" in shown
    assert "hush" not in shown
    assert cli.answer(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["type"] == "object"


def test_config_show_reports_what_is_ignored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A variable that cannot be understood is reported on stderr; stdout stays YAML."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "60s")
    assert cli.answer(["config", "show"]) == 0
    printed = capsys.readouterr()
    assert "warning: OTEL_METRIC_EXPORT_INTERVAL: expected a whole number" in printed.err
    assert "warning" not in printed.out


def test_a_closed_pipe_is_no_error() -> None:
    """`metrics | head` ends quietly."""
    done = subprocess.run(
        ["bash", "-c", f"{' '.join(COMMAND)} config schema | head -n 1; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert done.stdout.splitlines()[1:] == ["0"]
    assert done.stderr == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_can_be_stopped_before_it_runs(number: int, tmp_path: Path) -> None:
    """SIGTERM and SIGINT end `run` with 0 also while it starts: here, while it reads its
    configuration.
    """
    file = tmp_path / "config.yaml"
    os.mkfifo(file)
    process = subprocess.Popen(
        [*COMMAND, "run", "-c", str(file)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    try:
        with file.open("w"):  # opens when the other end does
            process.send_signal(number)
        _, told = process.communicate(timeout=10)  # a read that hid the signal ends with the pipe
        assert (process.returncode, told) == (0, "")
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_simulate_serves_until_told(number: int) -> None:
    """`simulate` prints where it is, answers there, and ends with 0 on SIGTERM and SIGINT."""
    process = subprocess.Popen(
        [*COMMAND, "simulate", "--port", "0", "--seed", "3"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        assert "sk-admin-simulated" in process.stdout.readline()
        request = urllib.request.Request(
            f"{url}/v1/organization/projects",
            headers={"Authorization": "Bearer sk-admin-simulated"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.load(answer)["object"] == "list"
        process.send_signal(number)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


def test_simulate_says_that_a_port_is_taken() -> None:
    """A port that somebody has ends `simulate` with 1 and the port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = call("simulate", "--port", port)
    assert done.returncode == 1
    assert port in done.stderr
    assert "Traceback" not in done.stderr
