"""`compare`: a gateway against what the exporter stored of the simulated organization."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_openai_usage import cli
from otel_openai_usage.domain.endpoints import ENDPOINTS
from otel_openai_usage.domain.model import Window
from tests.testing.test_harness import HOUR, MIDNIGHT, Scene, scene

DAY = "2026-11-02"


@pytest.fixture
async def stored(tmp_path: Path) -> AsyncIterator[Scene]:
    """A state with a whole day of usage and its bill."""
    async with scene(tmp_path) as stage:
        harness = stage.harness(names={"enabled": False})
        await harness.start()
        await harness.poll()
        stage.clock.time = MIDNIGHT + 40 * HOUR
        await harness.poll()
        await harness.close()
        yield stage


def truth(stage: Scene) -> dict[str, int]:
    """The tokens of each model on the day."""
    found: dict[str, int] = {}
    day = Window(MIDNIGHT, MIDNIGHT + 24 * HOUR)
    for endpoint in ("completions", "decisions", "embeddings", "moderations"):
        place = ENDPOINTS[endpoint].dimensions.index("model")
        for dims, amounts in stage.world.totals(endpoint, day, ("model",)).items():
            model = dims[place]
            tokens = int(amounts[0]) + (
                int(amounts[1]) if endpoint in ("completions", "decisions") else 0
            )
            if model and tokens:
                found[model] = found.get(model, 0) + tokens
    return found


def compare(stage: Scene, folder: Path, rows: dict[str, int], *more: str) -> tuple[int, list[Any]]:
    """Compare with a gateway that counted these; the exit code, and the lines."""
    file = folder / "gateway.csv"
    lines = [f"{DAY},{model},{tokens}" for model, tokens in rows.items()]
    file.write_text("\n".join(["date,model,tokens", *lines]))
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump({"state": stage.settings["state"]}))
    out = folder / "out"
    with out.open("w") as stream, contextlib.redirect_stdout(stream):
        code = cli.answer(
            [
                "compare",
                "-c",
                str(config),
                "--csv",
                str(file),
                "--from",
                DAY,
                "--to",
                DAY,
                "--format",
                "json",
                *more,
            ]
        )
    return code, json.loads(out.read_text() or "[]")


async def test_a_gateway_that_saw_everything(stored: Scene, tmp_path: Path) -> None:
    """If the gateway counted what OpenAI did, nothing differs, and the bill stands beside it."""
    code, lines = compare(stored, tmp_path, truth(stored))
    different = {line["model"] for line in lines if line["differs"]}
    assert (code, different) == (0, set())
    assert {
        line["model"]: line["openai_tokens"] for line in lines if line["openai_tokens"]
    } == truth(stored)
    assert any(line["openai_billed"] for line in lines)


async def test_usage_around_the_gateway(stored: Scene, tmp_path: Path) -> None:
    """What the gateway did not see ends with 1, and the reason is told."""
    rows = truth(stored)
    missing = min(rows)
    del rows[missing]
    code, lines = compare(stored, tmp_path, rows)
    assert code == 1
    (line,) = [line for line in lines if line["differs"]]
    assert line["model"] == missing
    assert "without the gateway" in line["reasons"][0]


async def test_wrong_use(stored: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two gateways, none, and a file with other columns end with 2."""
    assert cli.answer(["compare"]) == 2
    assert cli.answer(["compare", "--litellm", "x", "--csv", "y"]) == 2
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert cli.answer(["compare", "--csv", str(tmp_path / "other.csv")]) == 2
    assert "expected the columns date, model, tokens and cost" in capsys.readouterr().err
    assert cli.answer(["compare", "--litellm", str(tmp_path / "nothing.json")]) == 2


async def test_a_table_for_people(
    stored: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table has a line for each model, and what the gateway's name stands for."""
    compare(stored, tmp_path, truth(stored))
    config = tmp_path / "config.yaml"
    file = tmp_path / "gateway.csv"
    assert (
        cli.answer(["compare", "-c", str(config), "--csv", str(file), "--from", DAY, "--to", DAY])
        == 0
    )
    said = capsys.readouterr().out
    assert said.count(f"ok    {DAY}") >= len(truth(stored))
