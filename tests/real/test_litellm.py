"""LiteLLM's OpenMeter callback is a client of our listener."""

import asyncio
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from otel_openai_usage.testing import Harness
from tests.real.processes import free_port
from tests.real.servers import program
from tests.testing.test_harness import values

pytestmark = pytest.mark.real

CALLS = """
import litellm

litellm.callbacks = ["openmeter"]
total = 0
for customer in ("customer-1", "customer-2", "customer-1"):
    answer = litellm.completion(
        model="gpt-4o",
        messages=[{"role": "user", "content": "Say hello."}],
        mock_response="Hello there.",
        user=customer,
    )
    total += answer.usage.total_tokens
print(total, flush=True)
input()
"""
"""An application with three responses. The callback runs in threads that end with the process, so it
waits.
"""


def requests(page: bytes) -> Counter[str]:
    """The events of each customer."""
    found = Counter[str]()
    for labels, value in values(page, "openai_metered_requests_total").items():
        assert 'model="gpt-4o"' in labels
        found[labels.partition('subject="')[2].partition('"')[0]] += int(value)
    return found


async def test_events_of_the_callback_count(tmp_path: Path) -> None:
    """Each response is on the account of its user, under the model that was requested, to the token."""
    port = free_port()
    off = {"enabled": False}
    sources = dict.fromkeys(("usage", "costs", "names", "limits", "legacy", "prometheus"), off)
    events = {"enabled": True, "host": "127.0.0.1", "port": port, "tokens": ["secret"]}
    state = {"path": str(tmp_path / "state.db")}
    harness = Harness(
        {**sources, "events": events, "state": state, "attributes": {"zero_hold": "0s"}}
    )
    await harness.start()
    application = await asyncio.create_subprocess_exec(
        program("litellm"),
        "-c",
        CALLS,
        env={
            "HOME": str(tmp_path),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "OPENMETER_API_ENDPOINT": f"http://127.0.0.1:{port}",
            "OPENMETER_API_KEY": "secret",
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    found = Counter[str]()
    async with asyncio.timeout(60):
        while found.total() < 3 and application.returncode is None:
            await asyncio.sleep(0.2)
            found = requests(harness.page())
    printed, said = await application.communicate(b"\n")
    assert application.returncode == 0, said.decode()
    page = harness.page()
    await harness.close()
    assert found == {"customer-1": 2, "customer-2": 1}
    tokens = values(page, "openai_metered_tokens_total").items()
    total = sum(
        value
        for labels, value in tokens
        if 'token_type="input"' in labels or 'token_type="output"' in labels
    )
    assert total == int(printed)
