"""Every bucket is read again with the grouping that it was first read with."""

from pathlib import Path

import pytest

from otel_openai_usage.domain.model import Width
from tests.conservation.organization import Organization, money
from tests.conservation.rig import DAY, HOUR, MINUTE, MONDAY
from tests.conservation.test_late import ScriptedLife

WIDE = ("project_id", "api_key_id", "model")
NARROW = ("project_id", "model")


def organization() -> Organization:
    """Usage of two keys in every hour of eight days."""
    made = Organization(1)
    for hour in range(8 * 24):
        for key in ("key_a", "key_b"):
            dims = {"project_id": "proj_a", "api_key_id": key, "model": "gpt-5"}
            made.use("completions", MONDAY + hour * HOUR + 7 * MINUTE, dims, 10)
    return made


async def grouping_changed_on_wednesday(tmp_path: Path, width: Width) -> ScriptedLife:
    """A life on Friday at 9:00 whose grouping changed at Wednesday's midnight."""
    life = ScriptedLife(tmp_path / "state.db", organization(), group_by=WIDE, width=width)
    await life.step(0)
    await life.step(DAY)
    life.restart(group_by=NARROW)
    for _ in range(3):
        await life.step(DAY)
    return life


@pytest.mark.parametrize("width", [Width.MINUTE, Width.DAY])
@pytest.mark.parametrize("days", [-4, 4])
@pytest.mark.parametrize("changed", [WIDE, NARROW], ids=["changed again", "as it was"])
async def test_a_start_with_a_wrong_clock(
    tmp_path: Path, days: int, changed: tuple[str, ...], width: Width
) -> None:
    """A start with the clock days off rewrites no grouping that was read with, whether the grouping
    changes at that start or not; the change applies from the next midnight of the right clock.
    """
    life = await grouping_changed_on_wednesday(tmp_path, width)
    (source_state,) = life.run.source_states
    before = source_state.groupings.entries
    assert before == ((0, WIDE), (MONDAY + 2 * DAY, NARROW))
    life.time.wrong = days * DAY
    life.restart(group_by=changed)
    await life.step(MINUTE)
    life.time.wrong = 0
    for _ in range(3):
        await life.step(MINUTE)
    (source_state,) = life.run.source_states
    more = ((MONDAY + 5 * DAY, WIDE),) if changed == WIDE else ()
    assert source_state.groupings.entries == before + more
    for _ in range(50):
        await life.step(2 * HOUR)
    await life.end()


async def test_a_kill_before_the_newest_bucket_was_noted(tmp_path: Path) -> None:
    """After a kill the newest bucket is known from the rows, so a clock that is behind at the next
    start rewrites no grouping.
    """
    life = ScriptedLife(tmp_path / "state.db", organization(), group_by=WIDE)
    await life.step(0)
    (source_state,) = life.run.source_states
    newest = source_state.status.newest_bucket
    life.time.wrong = -4 * DAY
    life.restart(group_by=NARROW)
    (source_state,) = life.run.source_states
    assert source_state.status.newest_bucket == newest == MONDAY + 8 * HOUR + 8 * MINUTE
    await life.step(MINUTE)
    assert source_state.groupings.entries == ((0, WIDE), (MONDAY + DAY, NARROW))
    life.time.wrong = 0
    for _ in range(100):
        await life.step(2 * HOUR)
    await life.end()


def bill() -> Organization:
    """Costs of two keys on every day of October and November."""
    made = Organization(1)
    for day in range(-31, 28):
        for key in ("key_a", "key_b"):
            dims = {"project_id": "proj_a", "line_item": "gpt-5, input", "api_key_id": key}
            made.use("costs", MONDAY + day * DAY, {**dims, "currency": "usd"}, money(125), money(7))
    return made


def reports(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """What was reported of refused groupings: dimensions and date."""
    return [
        (record.dimensions, record.before)  # type: ignore[attr-defined]
        for record in caplog.records
        if getattr(record, "event", "") == "grouping_refused"
    ]


BY_KEY = ("project_id", "line_item", "api_key_id")
BY_ITEM = ("project_id", "line_item")


async def test_costs_by_a_dimension_that_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A dimension that OpenAI refuses on every day is left out, which is reported once, restarts
    and midnights included.
    """
    organization = bill()
    organization.refused["costs", "api_key_id"] = float("inf")
    life = ScriptedLife(tmp_path / "state.db", organization, endpoints=("costs",), group_by=BY_KEY)
    for _ in range(3):
        await life.step(DAY)
        life.restart(downtime=HOUR)
        assert life.run.source_states[0].groupings.at(int(life.time.true)) == BY_ITEM
    assert life.up() is None
    await life.step(MINUTE)
    assert life.up()
    assert reports(caplog) == [("api_key_id", "all days so far")]
    del organization.refused["costs", "api_key_id"]
    for _ in range(3):
        await life.step(DAY)
    assert life.run.source_states[0].groupings.at(int(life.time.true)) == BY_KEY
    await life.end()


async def test_costs_by_a_dimension_that_is_refused_before_a_date(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Days before the date are read without the dimension, later days with it."""
    organization = bill()
    border = MONDAY - 3 * DAY
    organization.refused["costs", "api_key_id"] = border
    life = ScriptedLife(
        tmp_path / "state.db",
        organization,
        endpoints=("costs",),
        group_by=BY_KEY,
        start=MONDAY - 20 * DAY,
    )
    for _ in range(3):
        await life.step(DAY)
    assert life.run.source_states[0].groupings.entries == ((0, BY_ITEM), (border, BY_KEY))
    assert reports(caplog) == [("api_key_id", "2026-10-30")]
    await life.end()


async def test_a_dimension_that_is_refused_after_it_was_read_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """When OpenAI begins to refuse a dimension, days that were read with it stay as they are, and
    later days are read without it.
    """
    organization = bill()
    life = ScriptedLife(
        tmp_path / "state.db",
        organization,
        endpoints=("costs",),
        group_by=BY_KEY,
        reconcile=2 * DAY,
    )
    await life.step(0)
    await life.step(12 * HOUR)
    organization.refused["costs", "api_key_id"] = float("inf")
    await life.step(MINUTE)
    assert life.up() is False
    for _ in range(4):
        await life.step(DAY)
    assert life.run.source_states[0].groupings.entries[:2] == ((0, BY_KEY), (MONDAY + DAY, BY_ITEM))
    assert life.up()
    assert reports(caplog) == [("api_key_id", "all days so far")]
    await life.end()
