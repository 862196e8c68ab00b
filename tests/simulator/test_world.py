"""Laws of the simulated organization's truth and of what is visible of it."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from operator import add

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_openai_usage.domain.endpoints import ENDPOINTS, USAGE_ENDPOINTS, Endpoint
from otel_openai_usage.domain.model import Amounts, Dims, Rows, Width, Window, utc
from otel_openai_usage.simulator.lateness import DEMO, HARSH, PROMPT, Delays, Fate, Lateness
from otel_openai_usage.simulator.world import World

THURSDAY = 1795046400
HOUR = 3600
DAY = 86400
FLOWS = [endpoint for endpoint in USAGE_ENDPOINTS.values() if not endpoint.level]
LATE = World.tiny(5, lateness=HARSH)
LATER = utc(THURSDAY + 40 * DAY)


@pytest.fixture
def tiny() -> World:
    """A small world whose lateness a test may change."""
    return World.tiny(5, lateness=PROMPT)


@pytest.fixture(scope="module")
def company() -> World:
    """The default world; nobody changes it."""
    return World(5, lateness=PROMPT)


def summed(buckets: dict[int, Rows]) -> dict[Dims, Amounts]:
    """The sum over all buckets."""
    sums: dict[Dims, Amounts] = {}
    for rows in buckets.values():
        for dims, amounts in rows.items():
            sums[dims] = tuple(map(add, sums[dims], amounts)) if dims in sums else amounts
    return sums


def test_every_kind_is_used_even_in_a_tiny_world(tiny: World) -> None:
    """On one working day a tiny world uses all eleven kinds and its costs are above zero."""
    day = Window(THURSDAY, THURSDAY + DAY)
    used = {
        endpoint: [sum(int(amounts[0]) for amounts in tiny.totals(endpoint, day).values())]
        for endpoint in USAGE_ENDPOINTS
    }
    assert [endpoint for endpoint, (amount,) in used.items() if amount <= 0] == []
    assert sum(amounts[0] for amounts in tiny.cost_totals(day).values()) > 10


@pytest.mark.parametrize("endpoint", FLOWS, ids=lambda endpoint: str(endpoint.name))
def test_hours_are_the_sums_of_their_minutes_and_days_of_their_hours(
    company: World, endpoint: Endpoint
) -> None:
    """Whatever the width, the buckets of two days add up to the truth about them, series by series."""
    days = Window(THURSDAY, THURSDAY + 2 * DAY)
    truth = company.totals(endpoint.name, days, endpoint.group_by)
    assert truth
    for width in Width:
        assert (
            summed(company.visible(endpoint.name, days, width, endpoint.group_by, LATER)) == truth
        )


@pytest.mark.parametrize("name", ENDPOINTS)
def test_grouping_loses_nothing(company: World, name: str) -> None:
    """The sum over all groups is the ungrouped total, for each dimension and for all of them."""
    day = Window(THURSDAY, THURSDAY + DAY)
    (whole,) = company.totals(name, day).values()
    for group_by in [(dimension,) for dimension in ENDPOINTS[name].group_by] + [
        ENDPOINTS[name].group_by
    ]:
        parts = company.totals(name, day, group_by).values()
        total = tuple(sum(column) for column in zip(*parts, strict=True))
        itemised = "line_item" in group_by
        # Quantities of different units are only given by line item.
        assert total[:1] == whole[:1] if name == "costs" and itemised else total == whole


def test_filters_take_out_parts(company: World) -> None:
    """What one project used is what the grouping says of it; batches and others make the whole."""
    day = Window(THURSDAY, THURSDAY + DAY)
    by_project = company.totals("completions", day, ("project_id",))
    for dims, amounts in by_project.items():
        (alone,) = company.totals("completions", day, (), {"project_id": {str(dims[0])}}).values()
        assert alone == amounts
    batch, other = (
        company.totals("completions", day, (), {"batch": {value}}) for value in ("true", "false")
    )
    (whole,) = company.totals("completions", day).values()
    assert tuple(map(add, *batch.values(), *other.values())) == whole


def test_parts_of_tokens_lie_within_the_whole(company: World) -> None:
    """In every minute the cached, written, audio and image tokens fit into the input, and there are
    no tokens without requests.
    """
    readings = company.readings(
        "completions",
        Window(THURSDAY, THURSDAY + DAY),
        Width.MINUTE,
        ENDPOINTS["completions"].group_by,
        LATER,
    )
    rows = [flow for _, found in readings for _, flow in found]
    assert len(rows) > 5000
    for into, out, cached, audio_in, audio_out, written, requests, image_in, image_out, *_ in rows:
        assert min(into, out, cached, audio_in, audio_out, written, image_in, image_out) >= 0
        assert cached + written + audio_in + image_in <= into
        assert audio_out + image_out <= out
        assert requests > 0


def test_the_same_seed_is_the_same_world_in_any_order() -> None:
    """Two worlds of one seed agree though asked in different order; another seed does not."""
    windows = [Window(THURSDAY + hour * HOUR, THURSDAY + (hour + 2) * HOUR) for hour in range(20)]

    def ask(world: World, order: list[Window]) -> dict[Window, dict[int, Rows]]:
        return {
            w: world.visible("completions", w, Width.MINUTE, ("model",), utc(w.end + 60))
            for w in order
        }

    one = ask(World.tiny(3, lateness=HARSH), windows)
    other = ask(World.tiny(3, lateness=HARSH), windows[::-1])
    assert one == other
    assert ask(World.tiny(4, lateness=HARSH), windows[:1]) != {windows[0]: one[windows[0]]}


@settings(max_examples=40, deadline=None)
@given(
    endpoint=st.sampled_from([endpoint.name for endpoint in FLOWS]),
    start=st.integers(0, 3 * 1440),
    length=st.integers(1, 200),
    width=st.sampled_from(list(Width)),
    extra=st.integers(0, 7200),
)
def test_what_is_visible_becomes_the_truth(
    endpoint: str, start: int, length: int, width: Width, extra: int
) -> None:
    """After `settles_after` any window at any width shows exactly the truth, through all lateness
    at once.
    """
    window = Window(THURSDAY + start * 60, THURSDAY + (start + length) * 60)
    now = utc(window.end) + LATE.settles_after + timedelta(seconds=extra)
    group_by = ENDPOINTS[endpoint].group_by
    assert summed(LATE.visible(endpoint, window, width, group_by, now)) == LATE.totals(
        endpoint, window, group_by
    )


@pytest.mark.parametrize(
    ("lateness", "least"),
    [
        (Lateness(delay=(timedelta(minutes=3), timedelta(minutes=9))), 1),
        (Lateness(growing=0.9), 50),
        (Lateness(late=0.9), 50),
        (Lateness(restated=0.9), 50),
        (Lateness(moved=0.9), 50),
        (Lateness(nameless=0.9), 50),
        (Lateness(vanishing=0.9), 20),
    ],
    ids=["delay", "growing", "late", "restated", "moved", "nameless", "vanishing"],
)
def test_each_lateness_shows_something_else_first(
    tiny: World, lateness: Lateness, least: int
) -> None:
    """Each option alone makes many minutes differ from the truth at first, and none after
    `settles_after`.
    """
    tiny.lateness = lateness
    hour = Window(THURSDAY + 10 * HOUR, THURSDAY + 11 * HOUR)
    group_by = ENDPOINTS["completions"].group_by
    truth = tiny.visible("completions", hour, Width.MINUTE, group_by, LATER)
    seen = [
        tiny.visible("completions", hour, Width.MINUTE, group_by, utc(hour.end + after * 60))
        for after in (1, 10, 30, 60, 120)
    ]
    differing = sum(shown[minute] != truth[minute] for shown in seen for minute in truth)
    assert differing >= least
    settled = tiny.visible(
        "completions", hour, Width.MINUTE, group_by, utc(hour.end) + tiny.settles_after
    )
    assert settled == truth


def test_growing_minutes_come_in_equal_steps(tiny: World) -> None:
    """With all minutes growing in four steps over an hour, a quarter more of each is seen every
    quarter of an hour.
    """
    tiny.lateness = Lateness(growing=1.0, grows_for=timedelta(hours=1), steps=4)
    hour = Window(THURSDAY + 10 * HOUR, THURSDAY + 11 * HOUR)
    minute = next(
        m
        for m in range(hour.start, hour.end, 60)
        if len(tiny.totals("moderations", Window(m, m + 60))) == 1
    )
    ((whole,),) = (
        [int(a[0]) for a in tiny.totals("moderations", Window(minute, minute + 60)).values()],
    )
    window = Window(minute, minute + 60)
    end = minute + 60
    seen = [
        tiny.visible("moderations", window, Width.MINUTE, (), utc(end + age))[minute]
        for age in (0, 899, 900, 1800, 2699, 2700)
    ]
    assert [rows[None, None, None, None][0] for rows in seen] == [
        whole * part // 4 for part in (1, 1, 2, 3, 3, 4)
    ]


@pytest.mark.parametrize(
    "lateness",
    [PROMPT, DEMO, HARSH, Lateness(restated=0.3, moved=0.3, vanishing=0.4)],
    ids=["prompt", "demo", "harsh", "wrong"],
)
def test_settles_after_is_a_bound_for_every_minute(lateness: Lateness) -> None:
    """Whatever a minute's fate, at the age of `settles_after` all of it is seen at its own place."""
    delays = Delays(lateness)
    parts = [
        delays.part(delays.luck(seed, 1), minute, delays.settles)
        for seed in range(200)
        for minute in range(60)
    ]
    assert {(part.num, part.den, part.fate) for part in parts} == {(1, 1, Fate.PLAIN)} | (
        {(4, 4, Fate.PLAIN)} if lateness.growing else set()
    )


def test_restated_minutes_go_up_and_down(tiny: World) -> None:
    """Among restated minutes some are shown too high and some too low before they are right."""
    tiny.lateness = Lateness(restated=1.0)
    hour = Window(THURSDAY + 10 * HOUR, THURSDAY + 11 * HOUR)
    first = tiny.visible("moderations", hour, Width.MINUTE, (), utc(hour.end))
    final = tiny.visible("moderations", hour, Width.MINUTE, (), LATER)
    signs = {
        (first[minute][dims][0] > final[minute][dims][0])
        for minute in final
        for dims in final[minute]
        if first[minute] != final[minute]
    }
    assert signs == {True, False}


def test_split_rows_add_up(tiny: World) -> None:
    """Rows that come as two of one key add up to the row that they are."""
    hour = Window(THURSDAY + 10 * HOUR, THURSDAY + 11 * HOUR)
    whole = tiny.visible("completions", hour, Width.MINUTE, ("model",), LATER)
    tiny.lateness = Lateness(split=0.5)
    rows = [
        found for _, found in tiny.readings("completions", hour, Width.MINUTE, ("model",), LATER)
    ]
    assert any(len(found) > len({dims for dims, _ in found}) for found in rows)
    assert tiny.visible("completions", hour, Width.MINUTE, ("model",), LATER) == whole


def test_a_minute_is_unknown_until_it_ends(tiny: World) -> None:
    """Even without lateness nothing is shown of the running minute, and all of it once it has
    ended.
    """
    start = THURSDAY + 10 * HOUR
    minute = next(
        m for m in range(start, start + HOUR, 60) if tiny.totals("moderations", Window(m, m + 60))
    )
    window = Window(minute, minute + 60)
    assert tiny.visible("moderations", window, Width.MINUTE, (), utc(minute + 59)) == {minute: {}}
    assert tiny.visible("moderations", window, Width.MINUTE, (), utc(minute + 60)) == {
        minute: tiny.totals("moderations", window)
    }


def test_costs_follow_usage_and_settle(tiny: World) -> None:
    """Costs of a running day only grow, lag by `costs_delay`, and are the truth once settled."""
    tiny.lateness = replace(PROMPT, costs_delay=timedelta(hours=2))
    day = Window(THURSDAY, THURSDAY + DAY)

    def shown(hours: float) -> Decimal:
        rows = tiny.visible("costs", day, Width.DAY, (), utc(THURSDAY + hours * HOUR))[THURSDAY]
        return sum((Decimal(amounts[0]) for amounts in rows.values()), Decimal(0))

    (truth,) = tiny.cost_totals(day).values()
    growing = [shown(hours) for hours in range(1, 28)]
    assert growing[0] == 0
    assert all(before <= after for before, after in pairwise(growing))
    assert growing[23] < growing[25] == truth[0]
    tiny.lateness = HARSH
    now = utc(day.end) + tiny.settles_after
    group_by = ("project_id", "line_item")
    assert tiny.visible("costs", day, Width.DAY, group_by, now)[THURSDAY] == tiny.cost_totals(
        day, group_by
    )
    assert tiny.visible("costs", day, Width.DAY, group_by, utc(day.end))[
        THURSDAY
    ] != tiny.cost_totals(day, group_by)


def test_costs_are_usage_times_prices(company: World) -> None:
    """The cost of a model's output is its output tokens at the table's price, to the last digit."""
    day = Window(THURSDAY, THURSDAY + DAY)
    used = company.totals("completions", day, ("model", "batch"))
    decided = company.totals("decisions", day, ("model", "batch"))
    model = "gpt-5-mini-2025-08-07"
    full = sum(
        int(a[1]) for rows in (used, decided) for d, a in rows.items() if d[3:5] == (model, "false")
    )
    half = sum(
        int(a[1]) for rows in (used, decided) for d, a in rows.items() if d[3:5] == (model, "true")
    )
    cost, quantity = next(
        amounts
        for dims, amounts in company.cost_totals(day, ("line_item",)).items()
        if dims[1] == f"{model}, output"
    )
    assert cost == full * Decimal("0.000002") + half * Decimal("0.000001")
    assert quantity == full + half
    items = {dims[1]: amounts for dims, amounts in company.cost_totals(day, ("line_item",)).items()}
    rows = [a for found in (used, decided) for d, a in found.items() if d[3] == model]
    assert items[f"{model}, input"][1] + items[f"{model}, cached input"][1] == sum(
        int(a[0]) for a in rows
    )
    assert items[f"{model}, cached input"][1] == sum(int(a[2]) for a in rows)


def test_it_looks_like_a_company(company: World) -> None:
    """Chats peak in the daytime, batches at night, weekends are quieter, and every project, key and
    most users are seen.
    """
    chats = company.visible(
        "audio_speeches", Window(THURSDAY, THURSDAY + DAY), Width.HOUR, (), LATER
    )
    by_hour = [sum(int(amounts[1]) for amounts in rows.values()) for rows in chats.values()]
    assert sum(by_hour[8:17]) > 5 * sum(by_hour[:6] + by_hour[20:])
    nightly = company.visible(
        "completions", Window(THURSDAY, THURSDAY + DAY), Width.HOUR, (), LATER, {"batch": {"true"}}
    )
    assert (
        max(nightly, key=lambda hour: sum(int(a[6]) for a in nightly[hour].values()))
        < THURSDAY + 5 * HOUR
    )
    thursday, saturday = (
        sum(int(a[1]) for a in company.totals("audio_speeches", Window(day, day + DAY)).values())
        for day in (THURSDAY, THURSDAY + 2 * DAY)
    )
    assert saturday < thursday / 3
    seen = company.totals(
        "completions", Window(THURSDAY, THURSDAY + 7 * DAY), ("project_id", "user_id", "api_key_id")
    )
    assert {dims[0] for dims in seen} == {project.id for project in company.company.projects}
    assert {key.id for key in company.company.keys} <= {dims[2] for dims in seen} | {None}
    assert None in {dims[2] for dims in seen}


def test_a_world_can_be_big() -> None:
    """Projects, keys, users and models scale: the asked-for number of each appears in a day's
    usage.
    """
    world = World(2, projects=8, keys=40, users=20, models=30, activity=2, lateness=PROMPT)
    seen = world.totals(
        "completions", Window(THURSDAY, THURSDAY + DAY), ("project_id", "api_key_id", "model")
    )
    assert len({dims[0] for dims in seen}) == 8
    assert len({dims[2] for dims in seen} - {None}) >= 30
    assert len({dims[3] for dims in seen}) >= 30


def test_nonsense_is_refused() -> None:
    """A world without keys, shares beyond one and a grouping that the kind lacks raise ValueError."""
    with pytest.raises(ValueError, match="at least one project"):
        World(keys=0)
    with pytest.raises(ValueError, match="add up to at most 1"):
        Lateness(late=0.7, moved=0.7)
    with pytest.raises(ValueError, match="shortest and a longest"):
        Lateness(delay=(timedelta(2), timedelta(1)))
    with pytest.raises(ValueError, match="cannot be grouped by model"):
        World.tiny().totals("vector_stores", Window(0, 60), ("model",))


def test_storage_is_a_level(company: World) -> None:
    """Vector stores show the bytes held in a bucket's last minute, whatever its width, summed over
    projects when ungrouped.
    """
    hour = Window(THURSDAY, THURSDAY + HOUR)
    by_project = company.totals("vector_stores", hour, ("project_id",))
    (whole,) = company.totals("vector_stores", hour).values()
    assert len(by_project) == 5
    assert whole[0] == sum(int(amounts[0]) for amounts in by_project.values())
    for width in Width:
        shown = company.visible("vector_stores", hour, width, ("project_id",), LATER)
        assert shown[max(shown)] == by_project


def test_demo_lateness_is_small() -> None:
    """The default world settles within a quarter of an hour."""
    assert World().settles_after == DEMO.settles_after <= timedelta(minutes=15)
