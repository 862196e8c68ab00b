"""The examples run as they are, against the simulated OpenAI and an exporter's events listener."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from clients.python.tests.conftest import Endpoint

EXAMPLES = Path(__file__).parents[3] / "examples"


def run(name: str, endpoint: Endpoint, simulated: str, home: Path) -> str:
    """Run an example to its end; what it printed."""
    env = {
        "OPENAI_BASE_URL": simulated,
        "OPENAI_API_KEY": "sk-simulated",
        "OPENMETER_URL": endpoint.url,
        "HOME": str(home),
    }
    done = subprocess.run(
        [sys.executable, EXAMPLES / name],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_metering_chat(endpoint: Endpoint, simulated: str, tmp_path: Path) -> None:
    """Three customers, three events."""
    assert "sent=3" in run("metering_chat.py", endpoint, simulated, tmp_path)
    assert {event["subject"]: event["data"]["team"] for event in endpoint.events} == {
        "customer-1": "greetings",
        "customer-2": "questions",
        "customer-3": "search",
    }


def test_metering_stream(endpoint: Endpoint, simulated: str, tmp_path: Path) -> None:
    """The stream that was left early is estimated, the others are not."""
    assert "sent=3" in run("metering_stream.py", endpoint, simulated, tmp_path)
    assert {
        event["subject"]: event["data"].get("estimated", False) for event in endpoint.events
    } == {
        "customer-1": False,
        "customer-2": True,
        "customer-3": False,
    }


def load(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_metering_aiohttp(
    endpoint: Endpoint, simulated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tenant's questions are on its own account."""
    for name, value in {
        "OPENAI_BASE_URL": simulated,
        "OPENAI_API_KEY": "sk-simulated",
        "OPENMETER_URL": endpoint.url,
        "XDG_STATE_HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    example: Any = load("metering_aiohttp")
    async with TestClient(TestServer(example.application())) as client:
        for tenant in ("acme", "globex", "acme"):
            async with client.post("/", data="Say hello.", headers={"X-Tenant": tenant}) as answer:
                assert answer.status == 200
    assert sorted(event["subject"] for event in endpoint.events) == ["acme", "acme", "globex"]
