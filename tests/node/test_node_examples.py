"""The examples for Node run as they are: the official client against the simulated OpenAI, plain
fetch and OpenMeter's SDK against our listener.
"""

import asyncio
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from otel_openai_usage.simulator.server import application, running
from otel_openai_usage.simulator.world import World
from otel_openai_usage.testing import Harness
from tests.real.processes import free_port
from tests.real.servers import ROOT, program
from tests.testing.test_harness import values

pytestmark = pytest.mark.real

EXAMPLES = ROOT / "examples" / "node"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, compiled by the TypeScript compiler, which checks their types."""
    folder = tmp_path_factory.mktemp("node")
    for file in EXAMPLES.iterdir():
        shutil.copy(file, folder)
    (folder / "node_modules").symlink_to(program("node_modules"))
    compiler = folder / "node_modules" / "typescript" / "bin" / "tsc"
    done = subprocess.run(
        ["node", compiler], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout
    return folder


@pytest.fixture
async def simulated() -> AsyncIterator[str]:
    """The base URL of a simulated OpenAI."""
    async with running(application(World.tiny(5), clock=lambda: datetime.now(UTC))) as url:
        yield f"{url}/v1"


@pytest.fixture
async def listener(tmp_path: Path) -> AsyncIterator[tuple[Harness, str]]:
    """An exporter that only meters, and the address of its listener."""
    port = free_port()
    off = {"enabled": False}
    harness = Harness(
        {
            "usage": off,
            "costs": off,
            "names": off,
            "limits": off,
            "legacy": off,
            "events": {"enabled": True, "host": "127.0.0.1", "port": port},
            "attributes": {"zero_hold": "0s"},
            "state": {"path": str(tmp_path / "state.db")},
            "prometheus": off,
        }
    )
    await harness.start()
    yield harness, f"http://127.0.0.1:{port}"
    await harness.close()


async def run(built: Path, script: str, **env: str) -> str:
    """Run a compiled example to its end. What it printed."""
    node = await asyncio.create_subprocess_exec(
        "node",
        script,
        cwd=built,
        env={"PATH": os.environ["PATH"], "OPENAI_API_KEY": "sk-simulated", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    printed, said = await asyncio.wait_for(node.communicate(), 60)
    assert node.returncode == 0, said.decode()
    return printed.decode()


def metered(harness: Harness, subject: str) -> Counter[str]:
    """Tokens of a customer by type, and `requests`."""
    harness.page()  # on which every new series is 0
    page = harness.page()
    found = Counter[str]()
    for labels, value in values(page, "openai_metered_tokens_total").items():
        pairs = dict(pair.split("=", 1) for pair in labels.split(","))
        if pairs["subject"] == f'"{subject}"':
            found[pairs["token_type"].strip('"')] += int(value)
    for labels, value in values(page, "openai_metered_requests_total").items():
        if f'subject="{subject}"' in labels:
            found["requests"] += int(value)
    return found


@pytest.mark.parametrize(
    ("script", "subject"), [("app.js", "customer-1"), ("app-stream.js", "customer-2")]
)
async def test_what_a_response_used_is_metered(
    built: Path, simulated: str, listener: tuple[Harness, str], script: str, subject: str
) -> None:
    """A completion, streaming and not, is on the account of its customer, to the token."""
    harness, url = listener
    printed = await run(built, script, OPENAI_BASE_URL=simulated, EVENTS_URL=url)
    found = metered(harness, subject)
    assert found["requests"] == 1
    total = found["input"] + found["output"]
    assert total > 0
    assert f"{total} tokens reported" in printed


async def test_openmeters_sdk_is_understood(built: Path, listener: tuple[Harness, str]) -> None:
    """What OpenMeter's SDK sends, one event or several, counts, and a repeated event counts once."""
    harness, url = listener
    await run(built, "openmeter.js", EVENTS_URL=url)
    assert +metered(harness, "customer-3") == {"requests": 3, "input": 60, "output": 3}


async def test_a_refusal_ends_the_example(built: Path, simulated: str) -> None:
    """Usage that nobody took is not passed over."""
    with pytest.raises(AssertionError, match="fetch failed"):
        await run(
            built, "app.js", OPENAI_BASE_URL=simulated, EVENTS_URL=f"http://127.0.0.1:{free_port()}"
        )
