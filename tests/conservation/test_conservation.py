"""What is counted is what was used: to the token, through everything that goes wrong."""

from datetime import timedelta
from pathlib import Path

import pytest

from otel_openai_usage.domain.model import Width, Window
from otel_openai_usage.simulator.lateness import HARSH, PROMPT, Lateness
from otel_openai_usage.simulator.world import World
from otel_openai_usage.view.attributes import AttributePolicy
from tests.conservation.rig import (
    COUNTERS,
    DAY,
    GROUP_BY,
    HASTE,
    HOUR,
    MINUTE,
    MONDAY,
    Life,
    Options,
    truth,
)
from tests.real.postgres import Postgres

SHORT = 30 * MINUTE


def world(lateness: Lateness = HASTE, seed: int = 3) -> World:
    """A small company."""
    return World.tiny(seed, lateness=lateness)


@pytest.mark.parametrize("start", [0, MONDAY + 8 * HOUR + 17 * MINUTE], ids=["today", "mid-hour"])
async def test_a_day_and_a_half_of_trouble_end_exact(tmp_path: Path, start: int) -> None:
    """After late, growing, restated, moved and doubled usage, failing polls, kills and downtime,
    every total is OpenAI's own.
    """
    life = Life(
        tmp_path / "state.db",
        world(),
        endpoints=("completions", "costs"),
        failure_log=0.15,
        options=Options(settle=SHORT, start=start),
    )
    await life.live(36 * HOUR, kills=0.02)
    await life.end()
    assert life.gaps.keys() == {"healed"}


async def test_trouble_with_postgres_ends_exact(postgres: Postgres) -> None:
    """The same with the state in PostgreSQL, for half a day."""
    life = Life(
        postgres.location(),
        world(),
        endpoints=("completions", "costs"),
        failure_log=0.15,
        options=Options(settle=SHORT),
    )
    await life.live(12 * HOUR, kills=0.02)
    await life.end()


@pytest.mark.long
@pytest.mark.parametrize("start", [0, MONDAY + 9 * HOUR + 3 * MINUTE], ids=["today", "mid-hour"])
async def test_weeks_of_trouble_end_exact(tmp_path: Path, start: int) -> None:
    """The same over more than three weeks, with lateness of up to two days, for endpoints of each
    sort.
    """
    endpoints = ("completions", "embeddings", "web_search_calls", "images", "costs")
    life = Life(
        tmp_path / "state.db",
        World.tiny(3, lateness=HARSH),
        endpoints=endpoints,
        failure_log=0.15,
        seed=5,
        options=Options(start=start),
    )
    await life.live(23 * DAY, pauses=(60, 300, 900, 1800, 3600), kills=0.01)
    await life.end()


async def test_two_organizations(tmp_path: Path) -> None:
    """Two organizations side by side each end exact, though their polls fail at different times."""
    life = Life(
        tmp_path / "state.db",
        world(),
        organizations=("one", "two"),
        failure_log=0.3,
        options=Options(settle=SHORT),
    )
    await life.live(8 * HOUR, kills=0.05)
    await life.end()


async def test_an_organization_comes_and_goes(tmp_path: Path) -> None:
    """An organization that is taken out and put back counts what it missed; the other does not
    notice.
    """
    life = Life(tmp_path / "state.db", world(), options=Options(settle=SHORT))
    for organizations in (["default"], ["default", "new"], ["new"], ["default", "new"]):
        life.restart(organizations=organizations, forget=True)
        await life.live(3 * HOUR, pauses=(600,))
    await life.end()


async def test_a_changed_grouping_waits_for_midnight(tmp_path: Path) -> None:
    """A new group_by applies from the next UTC midnight; until the end every bucket is what OpenAI
    says in its own grouping.
    """
    life = Life(tmp_path / "state.db", world(), options=Options(settle=SHORT))
    await life.live(5 * HOUR, pauses=(600,))
    life.restart(group_by=("project_id", "model"))
    await life.live(14 * HOUR, pauses=(900,))
    life.restart(group_by=GROUP_BY)
    await life.live(26 * HOUR, pauses=(1800,))
    assert [grouping for _, grouping in life.run.source_states[0].groupings.entries][1:] == [
        ("project_id", "model"),
        life.run.source_states[0].groupings.entries[0][1],
    ]
    await life.end()


async def test_endpoints_come_and_go(tmp_path: Path) -> None:
    """An endpoint that is taken out and put back within `reconcile` has counted everything; a new
    one counts from today.
    """
    life = Life(
        tmp_path / "state.db", world(), endpoints=("completions",), options=Options(settle=SHORT)
    )
    for endpoints in (
        ["completions"],
        ["completions", "embeddings"],
        ["embeddings"],
        ["completions", "embeddings"],
    ):
        life.restart(endpoints=endpoints, forget=True)
        await life.live(5 * HOUR, pauses=(900,))
    await life.end()


async def test_another_look_changes_no_sum(tmp_path: Path) -> None:
    """Dropping, renaming and folding attributes leave the sum of what is shown as it was, or
    higher, at every restart.
    """
    life = Life(tmp_path / "state.db", world(), options=Options(settle=SHORT))
    plain = AttributePolicy(name_wait=0)
    for policy in (
        plain,
        AttributePolicy(name_wait=0, drop=frozenset({"user_id", "api_key_id", "api_key_name"})),
        AttributePolicy(name_wait=0, rename={"model": "gen_ai.response.model"}),
        AttributePolicy(name_wait=0, max_series=8),
        AttributePolicy(name_wait=0, skip_zero=True),
        plain,
    ):
        before = _sums(life)
        life.restart(policy=policy, forget=True)
        assert _sums(life) == before
        await life.live(2 * HOUR, pauses=(300,))
    await life.end()


def _sums(life: Life) -> dict[str, float]:
    counters = life.run.counters()
    return {
        name: sum(value for (instrument, _), value in counters.items() if instrument == name)
        for name in sorted(COUNTERS)
    }


async def test_settle_may_be_made_longer_and_shorter(tmp_path: Path) -> None:
    """What was read coarse is read fine again, and the other way round, without counting anything
    twice.
    """
    life = Life(tmp_path / "state.db", world(), failure_log=0.1, options=Options(settle=SHORT))
    for settle in (30 * MINUTE, 12 * HOUR, 5 * MINUTE, 30 * HOUR, 2 * HOUR):
        life.restart(settle=settle)
        await life.live(7 * HOUR, pauses=(900,))
    await life.end()


@pytest.mark.parametrize(
    "widths", [["1h"], ["1d"], ["1d", "1m"], ["1m", "1d", "1h", "1m"]], ids="-".join
)
async def test_any_bucket_width_ends_exact(tmp_path: Path, widths: list[str]) -> None:
    """With hours or days as the freshest buckets, and when that is changed, everything ends exact."""
    life = Life(
        tmp_path / "state.db",
        world(),
        failure_log=0.1,
        options=Options(settle=SHORT, width=Width.parse(widths[0])),
    )
    for width in widths:
        life.restart(width=Width.parse(width))
        await life.live(16 * HOUR, pauses=(1200,))
    await life.end()


@pytest.mark.parametrize("wrong", [-HOUR, HOUR, DAY, 3 * DAY, -3 * DAY])
async def test_a_clock_that_steps_costs_nothing(tmp_path: Path, wrong: float) -> None:
    """The machine's clock goes wrong for a while and comes back: no counter falls, and everything
    ends exact.
    """
    life = Life(tmp_path / "state.db", world(), options=Options(settle=SHORT))
    await life.live(6 * HOUR, pauses=(600,))
    for _ in range(2):
        life.time.wrong = wrong
        await life.live(2 * HOUR, pauses=(600,))
        life.time.wrong = 0
        await life.live(2 * HOUR, pauses=(600,))
    await life.end()


@pytest.mark.parametrize("skew", [-7 * MINUTE, 7 * MINUTE])
async def test_a_skewed_api_clock_costs_nothing(tmp_path: Path, skew: float) -> None:
    """OpenAI's clock may be minutes off ours."""
    life = Life(tmp_path / "state.db", world(), options=Options(settle=SHORT))
    life.restart(skew=skew)
    await life.live(8 * HOUR, pauses=(300,))
    life.restart(skew=0.0)
    await life.end()


async def test_downtime_beyond_reconcile_is_told(tmp_path: Path) -> None:
    """What lies further back than `reconcile` is told as lost, all else is counted, and nothing
    falls.
    """
    life = Life(
        tmp_path / "state.db", world(PROMPT), options=Options(settle=SHORT, reconcile=2 * DAY)
    )
    await life.live(4 * HOUR, pauses=(900,))
    stopped = life.run.source_states[0].progress.horizon
    assert stopped is not None
    life.restart(downtime=5 * DAY)
    await life.settle()
    source_state = life.run.source_states[0]
    now = life.time.true
    back = int(now // DAY * DAY) - 2 * DAY
    assert life.run.telemetry.gaps["lost"] == pytest.approx(back - stopped, abs=6 * HOUR + DAY)
    days = range(back, int(now // DAY * DAY), DAY)
    rows = {
        day: sum(
            row.amounts[0]
            for row in life.run.store.rows_within(source_state, Width, day, day + DAY)
        )
        for day in days
    }
    said = {
        day: sum(
            amounts[0]
            for amounts in life.world.totals(
                "completions", _day(day), source_state.groupings.at(day)
            ).values()
        )
        for day in days
    }
    assert rows == said
    assert sum(stored_series.total[0] for stored_series in source_state.series.values()) < sum(
        amounts[0] for amounts in truth(life.world, source_state, now).values()
    )
    life.stop()


def _day(start: int) -> Window:
    return Window(start, start + DAY)


async def test_rows_of_zeros_are_nothing(tmp_path: Path) -> None:
    """Rows that say zero make series, and count nothing."""
    life = Life(tmp_path / "state.db", world(), options=Options(settle=SHORT))
    life.restart(zeros=True)
    await life.live(8 * HOUR, pauses=(600,), kills=0.05)
    await life.end()


async def test_a_day_that_is_completed_five_days_late_becomes_exact(tmp_path: Path) -> None:
    """Half of what is used is first told five days later: far beyond `settle`, within `reconcile`."""
    late = Lateness(late=0.5, late_by=(timedelta(days=4), timedelta(days=5)))
    life = Life(tmp_path / "state.db", world(late), options=Options(settle=SHORT))
    await life.live(15 * HOUR, pauses=(900,))
    first = truth(life.world, life.run.source_states[0], MONDAY + DAY)
    missing = sum(amounts[0] for amounts in first.values()) - sum(
        stored_series.total[0] for stored_series in life.run.source_states[0].series.values()
    )
    assert missing > 0
    await life.live(5 * DAY + 6 * HOUR, pauses=(3600,))
    source_state = life.run.source_states[0]
    rows = sum(
        row.amounts[0]
        for row in life.run.store.rows_within(
            source_state, Width, source_state.progress.epoch, MONDAY + DAY
        )
    )
    assert rows == sum(amounts[0] for amounts in first.values())
    assert life.run.telemetry.lates["7d"] > 0
    await life.end()
