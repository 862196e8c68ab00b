"""A machine's clock that is wrong costs nothing: no series, no row, no token."""

from pathlib import Path
from typing import Any

import pytest

from otel_openai_usage.domain.retention import Retention
from otel_openai_usage.engine import maintenance
from tests.clocks.scene import DAY, HOUR, MINUTE, Scene, scene


def stored(made: Scene) -> dict[tuple[int, int], int]:
    """How many rows are stored, by width and UTC day."""
    found: dict[tuple[int, int], int] = {}
    with_sql = made.exporter.recorder.store._db  # type: ignore[attr-defined]
    for width, day, count in with_sql.execute(
        "SELECT width, start / 86400, count(*) FROM readings GROUP BY 1, 2"
    ):
        found[width, day] = count
    return found


async def test_series_stay_while_the_clock_is_ahead(tmp_path: Path) -> None:
    """While the clock is 20 days ahead, and after it is right again, every series is shown."""
    async with scene(tmp_path) as made:
        await made.exporter.publish()
        before = made.series()
        assert len(before) > 10
        made.time.wrong = 20 * DAY
        made.time.true += 5
        await made.exporter.publish()
        assert made.series() == before
        made.time.wrong = 0
        made.time.true += 5
        await made.exporter.publish()
        assert made.series() == before
        made.time.true += MINUTE
        await made.poll()
        assert made.series().keys() >= before.keys()
        assert made.exact()


async def test_series_are_shown_by_a_process_that_starts_ahead(tmp_path: Path) -> None:
    """A process that starts with its clock 20 days ahead shows every series from the beginning."""
    async with scene(tmp_path) as made:
        before = made.series()
        await made.kill()
        made.time.wrong = 20 * DAY
        made.time.true += 5
        await made.start()
        assert made.series() == before
        await made.poll()
        assert made.series() == before
        made.time.wrong = 0
        made.time.true += MINUTE
        await made.poll()
        assert made.series().keys() >= before.keys()
        assert made.exact()


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("ahead", [20 * DAY, 100 * DAY, 1200 * DAY])
async def test_rows_stay_as_they_are_while_the_clock_is_ahead(
    tmp_path: Path, ahead: int, restarted: bool
) -> None:
    """A round of retention under a clock that is ahead deletes and downsamples nothing; the totals
    are exact afterwards.
    """
    async with scene(tmp_path) as made:
        before = stored(made)
        if restarted:
            await made.kill()
        made.time.wrong = ahead
        made.time.true += 5
        if restarted:
            await made.start()
        await made.maintenance()
        assert stored(made) == before
        made.time.wrong = 0
        made.time.true += 5
        await made.poll()
        made.time.true += HOUR
        await made.poll()
        assert made.exact()


async def test_deleted_rows_are_never_counted_again(tmp_path: Path) -> None:
    """Days whose rows were deleted are not booked again, though they are read again: neither in the
    same process nor in the next.
    """
    settings = {
        "history__days": "3d",
        "history__hours": "3d",
        "usage__reconcile": "1d",
        "costs__reconcile": "1d",
    }
    async with scene(tmp_path, **settings) as made:
        await made.maintenance()
        assert min(day for _, day in stored(made)) == made.time.true // DAY - 3
        made.given["usage.reconcile"] = "30d"
        for _ in range(3):
            await made.kill()
            await made.start()
            await made.poll()
            made.time.true += 2 * HOUR
            await made.poll()
            assert made.exact()


async def test_days_that_became_days_are_not_read_as_hours_by_old_fingerprints(
    tmp_path: Path,
) -> None:
    """Hours that became days take their fingerprints along."""
    async with scene(tmp_path) as made:
        source_state = made.source_state()
        hours = {start for width, start in source_state.fingerprints if width == HOUR}
        assert hours
        until = int(made.time.true) // DAY * DAY
        store: Any = made.exporter.recorder.store
        while maintenance.maintain(store, source_state, Retention(until, 0)):
            pass
        assert not {
            start for width, start in source_state.fingerprints if width == HOUR and start < until
        }


async def test_costs_are_shown_again_as_soon_as_the_clock_is_right(tmp_path: Path) -> None:
    """A poll of costs while the clock is ahead takes no day away for longer than that."""
    async with scene(tmp_path, costs__enabled=True) as made:

        def costs() -> int:
            return len(made.exporter.board.current().points["openai.api.daily_cost"])

        before = costs()
        assert before
        made.time.wrong = 20 * DAY
        made.time.true += 5
        await made.poll()
        made.time.wrong = 0
        made.time.true += 5
        await made.exporter.publish()
        assert costs() == before
