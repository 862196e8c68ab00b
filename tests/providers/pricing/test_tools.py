"""Tool calls in the estimate, and usage without a price, as the exporter shows them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.testing.test_harness import Scene, scene, values


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Scene]:
    """A small organization that uses every endpoint."""
    async with scene(tmp_path) as found:
        yield found


async def test_tool_calls_have_an_operation_and_no_model(stage: Scene) -> None:
    """A search costs the same whichever model called it, as on the bill: a line of its own."""
    prices = {"overrides": {"default": {"code_interpreter_sessions": {"sessions": 0.03}}}}
    harness = stage.harness(prices=prices, attributes={"zero_hold": "0s"})
    await harness.start()
    await harness.poll()
    estimates = values(harness.page(), "openai_api_estimated_cost_total")
    await harness.close()
    tools = ("web_search_calls", "file_search_calls", "code_interpreter_sessions")
    for tool in tools:
        found = [labels for labels in estimates if f'operation="{tool}"' in labels]
        assert found, tool
        assert all('model=""' in labels or "model=" not in labels for labels in found)
    others = [labels for labels in estimates if 'operation="completions"' in labels]
    assert others
    assert not any('model=""' in labels for labels in others)


async def test_unpriced_usage_is_counted_by_model_and_reason(stage: Scene) -> None:
    """Nothing without a price is silent: images, sessions and tokens are counted as such."""
    harness = stage.harness()
    await harness.start()
    await harness.poll()
    page = harness.page()
    await harness.close()
    usage = values(page, "otel_openai_usage_unpriced_usage_total")
    sessions = [labels for labels in usage if 'measure="sessions"' in labels]
    assert sessions
    assert all('reason="no_model"' in labels for labels in sessions)
    images = [labels for labels in usage if 'measure="images"' in labels]
    assert images
    assert not any('model=""' in labels for labels in images)
    assert all(value > 0 for value in usage.values())
