"""Budgets in the whole exporter: their gauges, OpenAI's limits among them, and the webhook."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.engine.test_first_history import ON_THE_25TH, month
from tests.testing.test_harness import Scene, scene, values


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Scene]:
    """The afternoon of the 25th."""
    async with scene(tmp_path) as found:
        found.clock.time = ON_THE_25TH
        yield found


class Receiver:
    """A webhook on loopback. `status` is what it answers."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.status = 200
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        """Answer a message."""
        if self.status == 302:
            raise web.HTTPFound("http://127.0.0.1:1/elsewhere")
        if self.status == 200:
            self.received.append(json.loads(await request.read()))
        return web.Response(status=self.status)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A webhook."""
    found = Receiver()
    app = web.Application()
    app.router.add_post("/hook", found.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    found.url = f"http://127.0.0.1:{port}/hook"
    yield found
    await runner.cleanup()


BUDGETS = [
    {"name": "everything", "amount": 8000},
    {"name": "<search> & more", "amount": 1000, "match": {"project_name": "Search*"}},
    {"name": "chats", "amount": 1, "period": "day", "match": {"operation": "completions"}},
]


async def test_budgets_show_what_the_month_shows(stage: Scene) -> None:
    """A budget of everything has the sum of cost_month, one of a project its part; OpenAI's limits
    are budgets; while days are unread there is no spent.
    """
    harness = stage.harness(budgets={"items": BUDGETS})
    await harness.start()
    await harness.poll()
    page = harness.page()
    assert month(page, "openai_api_budget", budget="everything") == 8000
    assert month(page, "openai_api_budget_spent", budget="everything") is None
    await harness.upkeep()
    stage.clock.time += 60
    await harness.poll()
    page = harness.page()
    everything = month(page, "openai_api_cost_month")
    assert month(page, "openai_api_budget_spent", budget="everything") == pytest.approx(everything)
    search = month(page, "openai_api_cost_month", project_name="Search & Recommendations")
    name = "<search> & more"
    assert month(page, "openai_api_budget_spent", budget=name) == pytest.approx(search)
    for percentile in ("10", "50", "90"):
        wanted = month(
            page, "openai_api_cost_month_forecast", scope="organization", percentile=percentile
        )
        found = month(
            page, "openai_api_budget_forecast", budget="everything", percentile=percentile
        )
        assert found == pytest.approx(wanted)
    limit = month(page, "openai_api_spend_limit", project_name="Support Copilot")
    assert month(page, "openai_api_budget", budget="spend limit: Support Copilot") == limit
    assert values(page, "otel_openai_usage_budget_basis")['basis="estimated",budget="chats"'] == 1
    await harness.close()


async def test_a_reached_threshold_is_sent_once(stage: Scene, receiver: Receiver) -> None:
    """Only the highest reached threshold of a budget is sent, with names escaped; after a restart
    nothing is sent again.
    """
    webhook = {"url": receiver.url, "thresholds": [0.5, 0.8, 1.0]}
    harness = stage.harness(budgets={"items": BUDGETS, "webhook": webhook})
    await harness.start()
    await harness.poll()
    await harness.upkeep()
    stage.clock.time += 60
    await harness.poll()
    harness.page()
    await harness.upkeep()
    sent = {message["budget"]: message for message in receiver.received}
    assert len(receiver.received) == len(sent)
    assert sent["<search> & more"]["threshold"] == 1.0
    assert "&lt;search&gt; &amp; more" in sent["<search> & more"]["text"]
    assert sent["everything"]["threshold"] == 0.5
    first = len(receiver.received)
    harness.kill()
    await harness.start()
    await harness.poll()
    harness.page()
    await harness.upkeep()
    assert len(receiver.received) == first
    await harness.close()


@pytest.mark.parametrize("status", [500, 302])
async def test_what_does_not_arrive_is_sent_again(
    stage: Scene, receiver: Receiver, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """After a refusal or a redirect, which is not followed, the same message comes later, with the
    same id. The URL is in no log line.
    """
    receiver.status = status
    settings = {"items": BUDGETS[:1], "webhook": {"url": receiver.url}}
    harness = stage.harness(budgets=settings)
    await harness.start()
    await harness.poll()
    await harness.upkeep()
    stage.clock.time += 60
    await harness.poll()
    harness.page()
    await harness.upkeep()
    assert receiver.received == []
    assert "a reached budget threshold was not sent" in caplog.text
    assert "/hook" not in caplog.text
    harness.kill()
    receiver.status = 200
    await harness.start()
    await harness.poll()
    harness.page()
    await harness.upkeep()
    ids = {message["budget"]: message["id"] for message in receiver.received}
    assert ids["everything"] == "/everything/2026-11-01/0.5"
    await harness.close()
