"""What `run` does before it polls: it takes its addresses, then reads the state."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from otel_openai_usage.composition import app
from otel_openai_usage.config import load
from otel_openai_usage.engine.recorder import Clock
from otel_openai_usage.storage.sqlite.store import Store

ROOT = Path(__file__).parent.parent
QUIET = {
    "usage.enabled": False,
    "costs.enabled": False,
    "limits.enabled": False,
    "names.enabled": False,
    "prices.enabled": False,
}


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def run(folder: Path, text: str) -> tuple[int, list[dict[str, object]]]:
    """Exit code and log of `run` with a configuration; OpenAI must not be asked."""
    (folder / "config.yaml").write_text(f"log: {{format: json}}\n{text}")
    with socket.socket() as openai:
        openai.bind(("127.0.0.1", 0))
        openai.listen()
        openai.settimeout(0)
        done = subprocess.run(
            [sys.executable, "-m", "otel_openai_usage", "run", "-c", str(folder / "config.yaml")],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "HOME": str(folder),
                "OPENAI_ADMIN_KEY": "sk-admin-x",
                "OPENAI_BASE_URL": f"http://127.0.0.1:{openai.getsockname()[1]}/v1",
            },
        )
        with pytest.raises(BlockingIOError):
            openai.accept()
    return done.returncode, [json.loads(line) for line in done.stderr.splitlines()]


@pytest.mark.parametrize(
    "text",
    [
        "prometheus: {{host: 127.0.0.1, port: {port}}}",
        "prometheus: {{host: 127.0.0.1, port: 0}}\nevents: {{enabled: true, host: 127.0.0.1, port: {port}}}",
    ],
    ids=["prometheus", "events"],
)
def test_a_taken_port_ends_run_before_the_state_is_begun(
    text: str, taken: int, tmp_path: Path
) -> None:
    """Exit 1, the event port_in_use with the address, no request to OpenAI, and no state."""
    state = tmp_path / "state" / "state.db"
    code, log = run(tmp_path, f"state: {{path: {state}}}\n{text.format(port=taken)}\n")
    assert code == 1
    assert log[-1]["event"] == "port_in_use"
    assert str(taken) in str(log[-1]["message"])
    assert not state.parent.exists()


def test_a_taken_state_ends_run_before_anything_is_polled(tmp_path: Path) -> None:
    """Exit 1, the event state_in_use with the file, and no request to OpenAI."""
    store = Store(tmp_path / "state.db")
    try:
        code, log = run(
            tmp_path, f"state: {{path: {tmp_path / 'state.db'}}}\nprometheus: {{port: 0}}\n"
        )
    finally:
        store.close()
    assert code == 1
    assert log[-1]["event"] == "state_in_use"
    assert "state.db" in str(log[-1]["message"])


async def test_the_listener_answers_while_the_state_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused_tcp_port_factory: Callable[[], int]
) -> None:
    """Until the state is read /healthz is 200, /readyz is 503 with the reason, and /metrics has our
    own health only; then /metrics has what is stored.
    """
    port = unused_tcp_port_factory()
    read = threading.Event()

    def slow(path: Path, **options: Any) -> Store:
        assert read.wait(20)
        return Store(path, **options)

    monkeypatch.setattr(app, "open_shared", slow)
    settings = load(
        None,
        {},
        {
            **QUIET,
            "prometheus.host": "127.0.0.1",
            "prometheus.port": port,
            "state.path": str(tmp_path / "state.db"),
            "events.enabled": True,
            "events.port": 0,
        },
    )
    async with (
        AsyncExitStack() as stack,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):

        async def get(path: str) -> tuple[int, str]:
            async with session.get(path) as answer:
                return answer.status, await answer.text()

        clock = Clock(lambda: 1_795_305_700.0, lambda: 0.0)
        wiring = asyncio.create_task(app.wire(settings, stack, clock=clock, env={}))
        async with asyncio.timeout(20):
            while True:
                try:
                    assert await get("/healthz") == (200, "ok\n")
                    break
                except aiohttp.ClientConnectorError:
                    await asyncio.sleep(0.01)
        assert await get("/readyz") == (503, "the state is being read\n")
        status, page = await get("/metrics")
        assert status == 200
        assert "otel_openai_usage_build_info" in page
        assert "openai_api_" not in page.replace("otel_openai_usage_api", "")
        assert not (tmp_path / "state.db").exists()
        read.set()
        await wiring
        assert await get("/readyz") == (200, "ready\n")
        status, page = await get("/metrics")
        assert "otel_openai_usage_state_size_bytes" in page
        assert "service_instance_id" in page
