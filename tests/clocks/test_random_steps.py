"""A clock that steps at random, with restarts at any step, costs nothing."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from otel_openai_usage.domain.endpoints import SHOWN_TOKEN_TYPES
from otel_openai_usage.domain.model import Width
from tests.clocks.scene import DAY, HOUR, MINUTE, Scene, scene

YEAR = 365 * DAY
WRONG = [0, 0, 0, 5, -5, HOUR, -HOUR, DAY, -DAY, 4 * DAY, -4 * DAY, 20 * DAY, -20 * DAY]
WRONG += [100 * DAY, -100 * DAY, 4 * YEAR, -4 * YEAR, 30 * YEAR, -30 * YEAR]
STEP = st.tuples(
    st.sampled_from([5, MINUTE, HOUR, 7 * HOUR, 12 * HOUR]),
    st.sampled_from(WRONG),
    st.sampled_from(["poll", "upkeep", "both", "publish"]),
    st.booleans(),
)
KEPT = {
    "usage__reconcile": "7d",  # more than all pauses together
    "usage__start": "10d",
    "history__hours": "8d",
    "history__days": "30d",
}


@settings(max_examples=12)
@given(st.lists(STEP, min_size=1, max_size=8))
async def test_random_steps(steps: list[tuple[int, int, str, bool]]) -> None:
    """After the clock is right again every series is shown and exact, nothing was counted twice, and
    every row is still stored: none was old by the true clock.
    """
    with tempfile.TemporaryDirectory() as folder:
        async with scene(Path(folder), **KEPT) as made:
            for pause, wrong, what, restarts in steps:
                made.time.true += pause
                made.time.wrong = wrong
                if restarts:
                    await made.kill()
                    await made.start()
                await act(made, what)
            made.time.wrong = 0
            for _ in range(5):
                made.time.true += 1900
                await act(made, "both")
            check(made)


async def act(made: Scene, what: str) -> None:
    """Poll, look after the history, or only publish."""
    if what in ("poll", "both"):
        await made.poll()
    if what in ("upkeep", "both"):
        await made.maintenance()
    await made.exporter.publish()


def check(made: Scene) -> None:
    """Totals are OpenAI's, rows add up to them, and all of it is shown."""
    assert made.exact()
    source_state = made.source_state()
    sums: dict[object, int] = {}
    for row in made.exporter.recorder.store.rows_within(
        source_state, tuple(Width), source_state.progress.epoch, 2**40
    ):
        sums[row.dims] = sums.get(row.dims, 0) + sum(map(int, row.amounts))
    totals = {
        dims: sum(map(int, stored_series.total))
        for dims, stored_series in source_state.series.items()
    }
    assert {dims: value for dims, value in sums.items() if value} == {
        dims: value for dims, value in totals.items() if value
    }
    shown = made.series()
    # Not every number that is stored is shown.
    places = [
        place
        for place, measure in enumerate(source_state.endpoint.measures)
        if measure.instrument and measure.token_type in (None, *SHOWN_TOKEN_TYPES)
    ]
    everything = sum(
        int(stored_series.total[place])
        for stored_series in source_state.series.values()
        for place in places
    )
    assert sum(shown.values()) == everything
