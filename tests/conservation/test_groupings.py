"""Every bucket is read again with the grouping that it was first read with."""

from pathlib import Path

import pytest

from otel_openai_usage.core.model import Width
from tests.conservation.organization import Organization
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
    (book,) = life.run.books
    before = book.groupings
    assert before == [(0, WIDE), (MONDAY + 2 * DAY, NARROW)]
    life.time.wrong = days * DAY
    life.restart(group_by=changed)
    await life.step(MINUTE)
    life.time.wrong = 0
    for _ in range(3):
        await life.step(MINUTE)
    (book,) = life.run.books
    more = [(MONDAY + 5 * DAY, WIDE)] if changed == WIDE else []
    assert book.groupings == before + more
    for _ in range(50):
        await life.step(2 * HOUR)
    await life.end()


async def test_a_kill_before_the_newest_bucket_was_noted(tmp_path: Path) -> None:
    """After a kill the newest bucket is known from the rows, so a clock that is behind at the next
    start rewrites no grouping.
    """
    life = ScriptedLife(tmp_path / "state.db", organization(), group_by=WIDE)
    await life.step(0)
    (book,) = life.run.books
    newest = book.newest_bucket
    life.time.wrong = -4 * DAY
    life.restart(group_by=NARROW)
    (book,) = life.run.books
    assert book.newest_bucket == newest == MONDAY + 8 * HOUR + 8 * MINUTE
    await life.step(MINUTE)
    assert book.groupings == [(0, WIDE), (MONDAY + DAY, NARROW)]
    life.time.wrong = 0
    for _ in range(100):
        await life.step(2 * HOUR)
    await life.end()
