"""The month is right on the first day: past days are read in the background, and no counter moves."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from otel_openai_usage.composition.stores import queries_opener
from otel_openai_usage.dashboard.data import read
from otel_openai_usage.dashboard.queries import Report
from otel_openai_usage.dashboard.view import View
from otel_openai_usage.domain.endpoints import COSTS
from otel_openai_usage.domain.model import Width, Window
from otel_openai_usage.simulator.faults import Fault
from tests.testing.test_harness import Scene, scene, values

NOVEMBER = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp())
OCTOBER = int(datetime(2026, 10, 1, tzinfo=UTC).timestamp())
DAY = 86400
ON_THE_25TH = NOVEMBER + 24 * DAY + 15 * 3600 + 30


@pytest.fixture
async def newcomer(tmp_path: Path) -> AsyncIterator[Scene]:
    """Somebody who installs it in the afternoon of the 25th."""
    async with scene(tmp_path) as stage:
        stage.clock.time = ON_THE_25TH
        yield stage


def billed(stage: Scene, start: int, end: int) -> float:
    """What OpenAI's bill says of some days, in dollars."""
    place = [measure.name for measure in COSTS.measures].index("cost")
    at = datetime.fromtimestamp(stage.clock.time, UTC)
    days = stage.world.visible("costs", Window(start, end), Width.DAY, (), at)
    return sum(float(amounts[place]) for rows in days.values() for amounts in rows.values())


def month(page: bytes, name: str, **labels: str) -> float | None:
    """The sum of a gauge over the series with these labels, None without any."""
    found = [
        value
        for text, value in values(page, name).items()
        if all(f'{label}="{one}"' in text for label, one in labels.items())
    ]
    return sum(found) if found else None


def _report(folder: Path, now: float) -> Report:
    """What the dashboard shows."""
    with queries_opener(folder / "state.db")() as queries:
        return Report(read(queries, "default", now), View())


async def test_the_month_is_right_on_the_first_day(newcomer: Scene, tmp_path: Path) -> None:
    """After a start on the 25th month to date and last month equal the bill, also after a restart,
    and the dashboard shows the same month and forecast. Until the days are read there is no series,
    and the number of missing days is shown.
    """
    harness = newcomer.harness()
    await harness.start()
    await harness.poll()
    first = harness.page()
    assert month(first, "openai_api_cost_month") is None
    counters = {name: values(first, name) for name in ("openai_api_cost_total",)}
    await harness.upkeep()
    newcomer.clock.time += 60
    await harness.poll()
    page = harness.page()
    to_date = billed(newcomer, NOVEMBER, NOVEMBER + 30 * DAY)
    assert month(page, "openai_api_cost_month", part="billed") == pytest.approx(to_date, rel=1e-9)
    last = billed(newcomer, OCTOBER, NOVEMBER)
    assert month(page, "openai_api_cost_last_month", part="billed") == pytest.approx(last, rel=1e-9)
    assert month(page, "openai_api_cost_last_month", part="estimated") == 0
    assert month(page, "otel_openai_usage_history_days_missing") == 0
    after = {name: values(page, name) for name in counters}
    assert after["openai_api_cost_total"].keys() == counters["openai_api_cost_total"].keys()
    report = _report(tmp_path, newcomer.clock.time)
    assert report.forecast.spent == pytest.approx(month(page, "openai_api_cost_month"), rel=1e-9)
    assert report.forecast.total == pytest.approx(
        month(page, "openai_api_cost_month_forecast", scope="organization", percentile="50"),
        rel=1e-6,
    )
    spent = month(page, "openai_api_cost_month")
    middle = month(page, "openai_api_cost_month_forecast", scope="organization", percentile="50")
    assert spent is not None
    assert middle is not None
    assert spent < middle < 2 * spent
    harness.kill()
    await harness.start()
    await harness.poll()
    again = harness.page()
    assert month(again, "openai_api_cost_month", part="billed") == pytest.approx(to_date, rel=1e-9)
    await harness.close()


async def test_an_interrupted_reading_goes_on(newcomer: Scene) -> None:
    """Days that could not be read are missing, and are read at the next round or start; a day that
    was read is not asked for again.
    """
    harness = newcomer.harness()
    await harness.start()
    await harness.poll()
    newcomer.simulation.faults.add(Fault("error", path="costs", status=500))
    await harness.upkeep()
    page = harness.page()
    assert month(page, "openai_api_cost_month") is None
    missing = month(page, "otel_openai_usage_history_days_missing")
    assert missing is not None
    assert missing > 50
    harness.kill()
    newcomer.simulation.faults.clear()
    await harness.start()
    await harness.poll()
    await harness.upkeep()
    newcomer.clock.time += 60
    await harness.poll()
    page = harness.page()
    assert month(page, "openai_api_cost_month") is not None
    asked = len(newcomer.simulation.requests)
    await harness.upkeep()
    assert len(newcomer.simulation.requests) == asked
    await harness.close()


async def test_none_reads_nothing(newcomer: Scene) -> None:
    """With history.first none no past day is read, and the figures stay away."""
    harness = newcomer.harness(history={"first": "none"})
    await harness.start()
    await harness.poll()
    await harness.upkeep()
    page = harness.page()
    assert month(page, "openai_api_cost_month") is None
    assert month(page, "otel_openai_usage_history_days_missing") == 0
    await harness.close()
