"""Who used the rest? The day's usage beside what events explain of it."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from otel_openai_usage.domain.metered import Share
from otel_openai_usage.simulator.lateness import PROMPT
from otel_openai_usage.simulator.server import ADMIN_KEY, application, running
from otel_openai_usage.simulator.world import World
from otel_openai_usage.view.attributes import AttributePolicy
from otel_openai_usage.view.gauges import COVERAGE, UNMETERED, coverage
from tests.ingest.conftest import Service, event

THURSDAY_NOON = datetime(2026, 11, 19, 12, tzinfo=UTC)


async def test_what_events_do_not_explain_is_shown_by_model(
    open_service: Callable[..., Awaitable[Service]],
) -> None:
    """The gauges are the day's own counters minus the day's events: yesterday's events explain
    nothing of today.
    """
    app = application(World(7, lateness=PROMPT), clock=lambda: THURSDAY_NOON)
    async with running(app) as url:
        organization = {"name": "acme", "admin_key": ADMIN_KEY, "base_url": f"{url}/v1"}
        service = await open_service(
            THURSDAY_NOON.timestamp,
            organizations=[organization],
            usage__enabled=True,
            usage__endpoints=["completions"],
            api__requests_per_minute=6000,
        )
        model = "gpt-4o-2024-08-06"
        await service.post(
            [
                event(
                    day,
                    time=f"2026-11-{day}T10:00:00Z",
                    data={"input_tokens": 1000, "output_tokens": 10, "model": model},
                )
                for day in (18, 19)
            ]
        )
        for loop in service.exporter.loops:
            assert await loop.once()
        await service.shown()
    shown = service.exporter.board.current().points
    used: dict[str, float] = {}
    for point in shown["openai.api.tokens"]:
        if point.series.attributes["token_type"] == "input":
            name = str(point.series.attributes["model"])
            used[name] = used.get(name, 0) + point.value
    found = {
        (point.series.attributes["model"], point.series.attributes["token_type"]): point.value
        for point in shown[UNMETERED]
    }
    assert used[model] > 1000
    assert {name: found[name, "input"] for name in used} == {**used, model: used[model] - 1000}
    shares = {
        (point.series.attributes["model"], point.series.attributes["token_type"]): point.value
        for point in shown[COVERAGE]
    }
    assert shares[model, "input"] == 1000 / used[model]


def test_coverage_adds_up_when_attributes_are_dropped() -> None:
    """Dropping the model sums used and explained before they are compared; nothing used has no
    share.
    """
    shares = [
        Share("o", "a", "input", 100, 50),
        Share("o", "b", "input", 300, 50),
        Share("o", None, "output", 0, 5),
    ]
    rows = coverage(shares, AttributePolicy(drop=frozenset({"model"})))
    assert [value for _, value in rows[UNMETERED]] == [300, -5]
    assert rows[COVERAGE] == [({"organization": "o", "token_type": "input"}, 0.25)]
