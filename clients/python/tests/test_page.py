"""Every block of code in docs/metering.md and in the README runs, or at least parses."""

import asyncio
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import yaml

from clients.python.tests.conftest import Endpoint
from otel_openai_usage.config import load
from tests.ingest.conftest import Service, open_service
from tests.real.servers import program

__all__ = ["open_service"]

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "metering.md").read_text()
README = (ROOT / "clients" / "python" / "README.md").read_text()
_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(kind, textwrap.dedent(code)) for _, kind, code in _BLOCK.findall(PAGE)]


def blocks(kind: str) -> list[str]:
    """The blocks of a language, at least one."""
    found = [code for each, code in BLOCKS if each == kind]
    assert found
    return found


def test_every_block_is_of_a_language_that_is_tried() -> None:
    """None is left out here, and every fence says its language."""
    assert {kind for kind, _ in BLOCKS} == {"yaml", "python", "promql", "sh"}
    assert PAGE.count("```") == 2 * len(BLOCKS)


def test_the_configuration_loads(tmp_path: Path) -> None:
    """As it stands, in a file of its own."""
    for code in blocks("yaml"):
        file = tmp_path / "config.yaml"
        file.write_text(code)
        assert load(file, {}, {}).events.enabled
        assert yaml.safe_load(code)


def test_the_programs_run(endpoint: Endpoint, simulated: str, tmp_path: Path) -> None:
    """One after the other, as one program, with the two variables that the page names; what they
    use arrives, nothing of it estimated.
    """
    code = "\n".join(blocks("python")).replace("http://localhost:8888", endpoint.url)
    assert "OPENAI_BASE_URL=" in PAGE
    assert "OPENAI_API_KEY=sk-simulated" in PAGE
    env = {"OPENAI_BASE_URL": simulated, "OPENAI_API_KEY": "sk-simulated", "HOME": str(tmp_path)}
    command = [sys.executable, "-c", code]
    ran = subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [event["subject"] for event in endpoint.events] == ["customer-1"] * 2
    assert [(data["prompt_tokens"], data.get("team")) for data in endpoint.data] == [
        (8, "search"),
        (8, None),
    ]


def test_the_readme_s_program_runs(endpoint: Endpoint, simulated: str, tmp_path: Path) -> None:
    """As that of the page; its commands install what is there."""
    found = {kind: textwrap.dedent(code) for _, kind, code in _BLOCK.findall(README)}
    assert README.count("```") == 2 * len(found)
    code = found["python"].replace("http://localhost:8888", endpoint.url)
    env = {"OPENAI_BASE_URL": simulated, "OPENAI_API_KEY": "sk-simulated", "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **env}, timeout=60, check=True)
    assert [data["prompt_tokens"] for data in endpoint.data] == [8, 8]
    subprocess.run(["bash", "-n"], input=found["sh"], text=True, check=True)
    assert "./clients/python" in found["sh"]


@pytest.mark.real
def test_the_queries_parse(tmp_path: Path) -> None:
    """promtool takes each line, comment included, as an expression."""
    lines = [line for code in blocks("promql") for line in code.splitlines()]
    inline = re.findall(r"`(sum by [^`]+)`", PAGE)
    rules = [{"alert": f"Query{n}", "expr": line} for n, line in enumerate(lines + inline)]
    assert len(rules) > 3
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "page", "rules": rules}]}))
    command = [str(program("promtool")), "check", "rules", str(file)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"SUCCESS: {len(rules)} rules found" in checked.stdout


@pytest.mark.parametrize("code", blocks("sh"))
def test_the_commands_parse(code: str) -> None:
    """bash understands them."""
    subprocess.run(["bash", "-n"], input=code, text=True, check=True)


async def test_the_request_is_taken(open_service: Callable[..., Awaitable[Service]]) -> None:
    """curl sends the event of the page to a listener as the page configures it: 204, counted."""
    service = await open_service(events__attributes={"team": "$.team"})
    (code,) = [code for code in blocks("sh") if code.startswith("curl ")]
    command = code.replace("localhost:8888", service.url.removeprefix("http://"))
    curl = await asyncio.create_subprocess_exec(
        "bash", "-c", command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, _ = await curl.communicate()
    assert output.startswith(b"HTTP/1.1 204")
    assert sum((await service.shown()).values()) == 20
