"""The legacy source: records of another organization than the state's are not kept or shown."""

import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from otel_openai_usage.simulator.server import running
from otel_openai_usage.testing import Harness

MIDNIGHT = int(datetime(2026, 11, 4, tzinfo=UTC).timestamp())
HOUR = 3600


@dataclass
class Clock:
    """A clock that moves when the test says so."""

    time: float = MIDNIGHT + 12 * HOUR

    def now(self) -> float:
        """Unix time."""
        return self.time

    def monotonic(self) -> float:
        """The same."""
        return self.time


class Endpoint:
    """`GET /v1/usage` of organizations: each key has records of its own. `keys` maps a key to the
    organization's id and the requests of today's first hour (None: there are no records).
    """

    def __init__(self) -> None:
        self.keys: dict[str, tuple[str | None, int | None]] = {}

    async def usage(self, request: web.Request) -> web.Response:
        """One record, whatever the day is."""
        key = request.headers["Authorization"].removeprefix("Bearer ")
        organization, requests = self.keys[key]
        day = int(datetime.fromisoformat(request.query["date"]).replace(tzinfo=UTC).timestamp())
        record = {
            "organization_id": organization,
            "organization_name": organization,
            "aggregation_timestamp": day + HOUR,
            "n_requests": requests,
            "operation": "completion",
            "snapshot_id": "gpt-4o-2024-08-06",
            "n_context_tokens_total": 10,
            "n_generated_tokens_total": 5,
            "project_id": None if organization else f"proj-of-{key}",
        }
        return web.json_response({"object": "list", "data": [record] if requests else []})


@dataclass
class Stage:
    """One state, one clock, one endpoint."""

    endpoint: Endpoint
    url: str
    clock: Clock
    folder: Path

    async def page(self, key: str) -> str:
        """The page of a life in which the legacy source was polled; half an hour passes then."""
        harness = Harness(
            {
                "organizations": [{"base_url": f"{self.url}/v1"}],
                "usage": {"enabled": False},
                "costs": {"enabled": False},
                "names": {"enabled": False},
                "limits": {"enabled": False},
                "legacy": {"enabled": True, "api_key": key},
                "state": {"path": str(self.folder / "state.db")},
                "prometheus": {"enabled": False},
                "attributes": {"zero_hold": "1ms"},
            },
            self.clock,
        )
        await harness.start()
        await harness.poll()
        self.clock.time += 60
        await harness.poll()
        page = harness.page().decode()
        await harness.close()
        self.clock.time += HOUR / 2
        return page

    def stored(self) -> list[tuple[object, ...]]:
        """What is stored."""
        with sqlite3.connect(self.folder / "state.db") as db:
            found = db.execute("SELECT * FROM readings ORDER BY 1, 2, 3, 4").fetchall()
        db.close()
        return found


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """An endpoint without keys."""
    async with AsyncExitStack() as stack:
        endpoint = Endpoint()
        app = web.Application()
        app.router.add_get("/v1/usage", endpoint.usage)
        url = await stack.enter_async_context(running(app))
        yield Stage(endpoint, url, Clock(), tmp_path)


def requests(page: str) -> dict[str, float]:
    """Requests by organization."""
    found = re.findall(
        r'^chatgpt_api_usage_requests_total\{.*organization_id="([^"]*)".*\} (\S+)$',
        page,
        re.MULTILINE,
    )
    return {organization: float(value) for organization, value in found}


def up(page: str) -> float:
    """Whether the legacy source is up."""
    found = re.search(r'^openai_api_up\{.*source="legacy".*\} (\S+)$', page, re.MULTILINE)
    assert found is not None
    return float(found[1])


async def test_the_key_of_another_organization_is_refused(stage: Stage) -> None:
    """After a restart with another organization's key its records are not shown and not stored, and
    the source is down; a rotated key of the same organization goes on.
    """
    stage.endpoint.keys = {"sk-1": ("org-1", 3), "sk-new": ("org-1", 4), "sk-2": ("org-2", 50)}
    assert requests(await stage.page("sk-1")) == {"org-1": 3.0}
    stored = stage.stored()
    page = await stage.page("sk-2")
    assert requests(page) == {"org-1": 3.0}
    assert up(page) == 0.0
    assert stage.stored() == stored
    page = await stage.page("sk-new")
    assert requests(page) == {"org-1": 4.0}
    assert up(page) == 1.0


async def test_without_ids_projects_and_keys_decide(stage: Stage) -> None:
    """Where records carry no organization, a common project or key decides."""
    stage.endpoint.keys = {"sk-1": (None, 3), "sk-2": (None, 50)}
    assert up(await stage.page("sk-1")) == 1.0
    stored = stage.stored()
    assert up(await stage.page("sk-2")) == 0.0
    assert stage.stored() == stored
    assert up(await stage.page("sk-1")) == 1.0


async def test_an_empty_day_of_a_new_key_replaces_nothing(stage: Stage) -> None:
    """A new key whose day is empty says nothing of whose it is, so what is stored stays; on a day
    that has nothing stored it is no failure.
    """
    stage.endpoint.keys = {"sk-1": ("org-1", 3), "sk-2": ("org-2", None), "sk-new": ("org-1", 5)}
    await stage.page("sk-1")
    stored = stage.stored()
    page = await stage.page("sk-2")
    assert up(page) == 0.0
    assert requests(page) == {"org-1": 3.0}
    assert stage.stored() == stored
    page = await stage.page("sk-new")
    assert up(page) == 1.0
    assert requests(page) == {"org-1": 5.0}


async def test_a_new_state_takes_any_key(stage: Stage) -> None:
    """Nothing is known yet: an organization without usage is up, and so is what follows."""
    stage.endpoint.keys = {"sk-1": ("org-1", None), "sk-2": ("org-2", 7)}
    assert up(await stage.page("sk-1")) == 1.0
    page = await stage.page("sk-2")
    assert up(page) == 1.0
    assert requests(page) == {"org-2": 7.0}
