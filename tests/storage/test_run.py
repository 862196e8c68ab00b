"""The installed command on a state that lost something: what it logs, shows and refuses."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.real.installed import Exporter, Surroundings
from tests.real.processes import get

Start = Callable[..., Exporter]


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Path]:
    """A configuration with its own state, quick polls and a JSON log."""

    def write(**state: object) -> Path:
        settings = {
            "api": {"requests_per_minute": 60000},
            "usage": {"interval": "1s", "endpoints": ["completions"]},
            "attributes": {"zero_hold": "0s"},
            "log": {"format": "json"},
            "state": {"path": str(tmp_path / "state.db"), **state},
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(settings))
        return path

    return write


def lines(output: str) -> list[Mapping[str, Any]]:
    """The JSON lines of a log."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def events(exporter: Exporter) -> list[str]:
    """The log lines about the state by event."""
    said = [line.get("event", "") for line in lines(exporter.process.output)]
    return [event for event in said if str(event).startswith("state_")]


def lost_seconds(exporter: Exporter) -> float:
    """The metric."""
    body = get(f"{exporter.url}/metrics")[1]
    name = "otel_openai_usage_state_lost_seconds "
    return next(float(line.split()[-1]) for line in body.splitlines() if line.startswith(name))


def killed(run: Start, config: Path) -> None:
    """Count, and end like a killed process."""
    exporter = run("-c", config)
    exporter.process.until(lambda: exporter.sum("openai_api_tokens_total") > 0, "usage")
    exporter.process.kill()


def flip_log_header(folder: Path) -> None:
    """One bit of the log's header."""
    path = folder / "state.db-wal"
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)


def lose_log(folder: Path) -> None:
    """Delete the log."""
    (folder / "state.db-wal").unlink()


@pytest.mark.parametrize("damage", [flip_log_header, lose_log])
def test_a_damaged_log_is_reported_by_run(
    run: Start, config: Callable[..., Path], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """Every start warns until `state accept`, the metric says how much is missing, and usage is
    complete again after the first poll.
    """
    killed(run, config())
    damage(tmp_path)
    for number in range(2):
        exporter = run("-c", config())
        assert events(exporter) == ["state_opened" if number else "state_new", "state_lost"]
        assert lost_seconds(exporter) >= 1
        exporter.process.until(lambda: exporter.sum("openai_api_tokens_total") > 0, "usage")  # noqa: B023
        if number:
            break
        exporter.process.stop()
    accepted = Surroundings(tmp_path).call("state", "accept", "-c", config())
    assert accepted.returncode == 0, accepted.stderr
    exporter.process.until(lambda: lost_seconds(exporter) == 0, "the loss to be accepted", 20)
    assert exporter.process.stop() == 0
    exporter = run("-c", config())
    assert events(exporter) == ["state_opened"]
    assert lost_seconds(exporter) == 0


def test_run_refuses_a_loss_if_strict(
    run: Start, config: Callable[..., Path], surroundings: Surroundings, tmp_path: Path
) -> None:
    """With state.strict a state that lost its log ends `run` with 1 and a sentence."""
    killed(run, config())
    lose_log(tmp_path)
    said = surroundings.call(
        "run", "-c", config(strict=True), OPENAI_ADMIN_KEY="sk-admin-simulated"
    )
    assert said.returncode == 1
    assert "state.strict is true" in said.stderr
    assert "state accept" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_changed_total_is_reported_by_run(
    run: Start, config: Callable[..., Path], tmp_path: Path
) -> None:
    """Totals that another program changed are reported at the start and by `verify`."""
    killed(run, config())
    with sqlite3.connect(tmp_path / "state.db") as db:
        db.execute(
            "UPDATE dims SET total = json_replace(total, '$[0]', 1 + json_extract(total, '$[0]'))"
            " WHERE source_id = (SELECT id FROM sources WHERE kind = 'completions')"
        )
    db.close()
    exporter = run("-c", config())
    assert events(exporter) == ["state_opened", "state_lost"]
    assert "not the sum of their rows" in exporter.process.output
    assert lost_seconds(exporter) >= 1


def test_a_copy_of_the_main_file_that_is_put_back_is_reported(
    run: Start, config: Callable[..., Path], tmp_path: Path
) -> None:
    """A copy of state.db of a running exporter can be read, and is older than its marker."""
    exporter = run("-c", config())
    exporter.process.until(lambda: exporter.sum("openai_api_tokens_total") > 0, "usage")
    shutil.copy(tmp_path / "state.db", tmp_path / "copy.db")
    assert (tmp_path / "copy.db").stat().st_size > 4096
    assert exporter.process.stop() == 0
    shutil.copy(tmp_path / "copy.db", tmp_path / "state.db")
    exporter = run("-c", config())
    assert events(exporter)[-1] == "state_lost"
    assert lost_seconds(exporter) >= 1
