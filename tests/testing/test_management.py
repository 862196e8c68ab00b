"""Names of users, times of keys and rate limits, from the simulated organization to the page."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from otel_openai_usage.testing import Harness
from tests.testing.test_harness import Scene, scene, values

EVERYTHING = {
    "names": {"users": True, "keys": True},
    "limits": {"rates": True},
}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Scene]:
    """A scene, and the end of what a test left running."""
    async with scene(tmp_path) as found:
        yield found


async def page(harness: Harness) -> bytes:
    """The page after one poll of everything."""
    await harness.start()
    await harness.poll()
    found = harness.page()
    await harness.close()
    return found


async def test_all_that_openai_tells_is_shown(stage: Scene) -> None:
    """User names, the times of every working key, and the limits of every model are on the page."""
    shown = await page(stage.harness(**EVERYTHING))
    company = stage.world.company
    people = {person.id: person.name for person in company.people}
    series = values(shown, "openai_api_requests_total")
    named = [labels for labels in series if "user_id=" in labels and 'user_id=""' not in labels]
    assert named
    for labels in named:
        pairs = dict(pair.split("=", 1) for pair in labels.split(","))
        assert pairs["user_name"].strip('"') == people[pairs["user_id"].strip('"')]
    created = values(shown, "openai_api_key_created_seconds")
    working = [key for key in company.keys if not key.deleted and not key.project.archived_at]
    assert sorted(created.values()) == sorted(float(key.since) for key in working)
    assert all(key.name in "".join(created) for key in working)
    rates = values(shown, "openai_api_rate_limit")
    assert any('limit="tokens_per_minute"' in labels for labels in rates)


async def test_none_of_it_is_asked_by_default(stage: Scene) -> None:
    """Without the settings there is no user_name, no time of a key and no rate limit."""
    shown = await page(stage.harness(names={"enabled": True}, limits={"enabled": True}))
    assert b"user_name" not in shown
    assert b"openai_api_key_" not in shown
    assert b"openai_api_rate_limit" not in shown
    assert not any("rate_limits" in str(one["path"]) for one in stage.simulation.requests)


async def test_times_that_cannot_be_told_apart_are_left_out(stage: Scene) -> None:
    """Where dropped attributes make two keys equal, neither stands for the other, and the number is
    shown.
    """
    drop = {"drop": ["api_key_id", "api_key_name", "project_id", "project_name"]}
    shown = await page(stage.harness(**EVERYTHING, attributes=drop))
    assert not values(shown, "openai_api_key_created_seconds")
    folded = values(shown, "otel_openai_usage_series")
    assert folded['instrument="openai.api.key_created",state="folded"'] == 2
