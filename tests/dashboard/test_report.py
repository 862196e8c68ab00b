"""Tests of the numbers, against the simulated company's own truth."""

import csv
import io
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from otel_openai_usage.composition.stores import queries_opener
from otel_openai_usage.dashboard import controls
from otel_openai_usage.dashboard.cube import Column
from otel_openai_usage.dashboard.data import Data
from otel_openai_usage.dashboard.items import split
from otel_openai_usage.dashboard.queries import TOP, Report
from otel_openai_usage.dashboard.store_watcher import StoreWatcher
from otel_openai_usage.dashboard.table import render
from otel_openai_usage.dashboard.view import View
from otel_openai_usage.domain.endpoints import USAGE_ENDPOINTS
from otel_openai_usage.domain.model import Window
from otel_openai_usage.simulator.world import World
from otel_openai_usage.storage.sqlite.queries import open_queries
from tests.dashboard.scene import NOW


@pytest.fixture
def data(watcher: StoreWatcher) -> Data:
    """What was read."""
    return watcher.loaded().data["default"]


def billed(world: World, report: Report, *by: str) -> dict[tuple[str | None, ...], float]:
    """What the days of a report that are over really cost."""
    window = Window(report.asked.start, min(report.asked.end, report.today))
    dims = ("project_id", "line_item", "api_key_id", "user_id", "api_source", "currency")
    sums: dict[tuple[str | None, ...], float] = {}
    for row, amounts in world.cost_totals(window, ("project_id", "line_item")).items():
        named = dict(zip(dims, row, strict=True))
        key = tuple(
            split(named["line_item"]).label if name == "model" else named[f"{name}_id"]
            for name in by
        )
        sums[key] = sums.get(key, 0.0) + float(amounts[0])
    return sums


@pytest.mark.parametrize("by", ["model", "project"])
def test_cost_is_what_was_billed(world: World, data: Data, by: str) -> None:
    """Every line of the table, and the tile, cost what the company was billed, to the cent."""
    report = Report(data, View(by=by))
    truth = {key[0]: cost for key, cost in billed(world, report, by).items() if cost}
    shown = {entry.id: entry.cost for entry in report.entries if entry.cost}
    assert report.basis == "billed"
    assert shown == pytest.approx(truth)
    assert report.cost == pytest.approx(sum(truth.values()))


@pytest.mark.parametrize(
    ("by", "dimension"), [("project", "project_id"), ("key", "api_key_id"), ("user", "user_id")]
)
def test_counts_are_what_was_used(world: World, data: Data, by: str, dimension: str) -> None:
    """Requests and tokens of every line are the company's own, to the token."""
    report = Report(data, View(by=by, period="7d"))
    window = Window(report.asked.start, report.today)
    truth: dict[str | None, list[int]] = {}
    for endpoint in USAGE_ENDPOINTS.values():
        if endpoint.level or dimension not in endpoint.group_by:
            continue
        for dims, amounts in world.totals(endpoint.name, window, (dimension,)).items():
            named = dict(zip((measure.name for measure in endpoint.measures), amounts, strict=True))
            sums = truth.setdefault(dims[endpoint.dimensions.index(dimension)], [0, 0, 0, 0])
            for place, name in enumerate(("requests", "input", "input_cached", "output")):
                sums[place] += int(named.get(name, 0))
    shown = {
        entry.id: [entry.requests, entry.input, entry.cached, entry.output]
        for entry in report.entries
    }
    assert {id_: sums for id_, sums in shown.items() if any(sums)} == {
        id_: sums for id_, sums in truth.items() if any(sums)
    }


def test_the_dashboard_and_the_history_agree(path: Path, data: Data) -> None:
    """The estimate of a month is the sum that the store's own history gives, and so is what has no
    price.
    """
    report = Report(data, View(by="key", period="last-month"))
    with open_queries(path) as past:
        days = past.usage(report.asked.start, report.asked.end)
    assert report.cost == pytest.approx(float(sum(day.estimate or 0 for day in days)))
    assert report.unpriced[0] == sum(day.unpriced for day in days)
    assert sum(entry.input for entry in report.entries) == sum(day.input for day in days)


def test_what_the_bill_does_not_know_is_estimated(data: Data) -> None:
    """By API key the bill says nothing, so the estimate is shown and called one; a filter by key
    does the same.
    """
    assert Report(data, View(by="key")).basis == "estimated"
    assert Report(data, View(key=(next(iter(data.names.api_keys)),))).basis == "estimated"
    assert Report(data, View(cost="estimated")).basis == "estimated"


def test_without_prices_and_without_a_bill_there_is_no_cost(data: Data) -> None:
    """An unknown cost is None, not 0."""
    usage = replace(
        data.usage,
        amounts={
            name: rows
            for name, rows in data.usage.amounts.items()
            if name not in {"estimate", "priced"}
        },
    )
    report = Report(replace(data, usage=usage), View(by="key"))
    assert (report.priced, report.cost, report.entries[0].cost, report.cost_series) == (
        False,
        None,
        None,
        [],
    )


def test_a_chart_adds_up_to_its_total(data: Data) -> None:
    """The few series that have a colour and the rest are together all there is, by day and by week."""
    for period in ("30d", "12m"):
        report = Report(data, View(period=period))
        assert sum(one.total for one in report.cost_series) == pytest.approx(report.cost)
        assert len(report.cost_series) == TOP + 1
        assert report.cost_series[-1].rest
    assert report.weekly


def test_filters_add_up(data: Data) -> None:
    """What the projects cost one by one is what they cost together."""
    whole = Report(data, View(by="project"))
    parts = [
        Report(data, View(by="project", project=(entry.id,))).cost
        for entry in whole.entries
        if entry.id
    ]
    without_project = [entry.cost for entry in whole.entries if entry.id is None]
    assert sum(part or 0.0 for part in [*parts, *without_project]) == pytest.approx(whole.cost)


def test_movers_compare_days_that_are_comparable(world: World, data: Data) -> None:
    """Twenty-nine whole days against the twenty-nine before them: today is not over, so it counts
    for neither.
    """
    report = Report(data, View(by="project"))
    assert report.compared is not None
    after, before = report.compared
    assert (after.days, before.days, before.end) == (29, 29, after.start)
    entry = next(entry for entry in report.movers if entry.id)
    filters = {"project_id": (entry.id or "",)}
    totals = [
        world.cost_totals(Window(span.start, span.end), (), filters) for span in (after, before)
    ]
    cost = [sum(float(amounts[0]) for amounts in rows.values()) for rows in totals]
    assert entry.change == pytest.approx(cost[0] - cost[1])


def test_a_store_that_is_too_young_compares_nothing(data: Data) -> None:
    """Where the period before is not known, nothing has changed by any share."""
    report = Report(data, View(period="90d"))
    assert (report.compared, report.cost_change, report.movers) == (None, None, [])


def test_caching_saved_what_the_bill_says(world: World, data: Data) -> None:
    """Cached tokens at the full price of the same model, less what they cost."""
    report = Report(data, View())
    window = Window(report.asked.start, report.today)
    lines: dict[str, list[float]] = {}
    for dims, amounts in world.cost_totals(window, ("line_item",)).items():
        lines[dims[1] or ""] = [float(amount) for amount in amounts]
    saved = 0.0
    for text, (cost, quantity) in lines.items():
        model, comma, charged = text.partition(", ")
        if comma and charged == "cached input" and f"{model}, input" in lines:
            full = lines[f"{model}, input"]
            saved += full[0] / full[1] * quantity - cost
    assert saved > 0
    assert report.savings.money == pytest.approx(saved)


def test_the_budget_is_that_of_the_view(world: World, data: Data) -> None:
    """All of it is measured by the organization's limit, one project by its own, and anything else
    by none.
    """
    project = next(project for project in world.company.projects if project.limit_cents)
    whole, part, other = (
        Report(data, view)
        for view in (View(), View(project=(project.id,)), View(model=("gpt-5-2025-08-07",)))
    )
    assert whole.limit is not None
    assert part.limit is not None
    assert (float(whole.limit.amount), float(part.limit.amount) * 100) == (
        20_000.0,
        project.limit_cents,
    )
    assert other.limit is None


def test_the_csv_is_the_table(data: Data) -> None:
    """Line by line the file has what the table has, in its order, with money as it is and not as it
    is shown.
    """
    report = Report(data, View(by="project", sort="name"))
    lines = list(csv.DictReader(io.StringIO(render(report))))
    assert [line["project"] for line in lines] == [entry.label for entry in report.entries]
    assert [float(line["cost_usd"]) for line in lines] == pytest.approx(
        [entry.cost for entry in report.entries]
    )
    assert [int(line["input_tokens"]) for line in lines] == [
        entry.input for entry in report.entries
    ]


def test_a_name_that_is_a_formula_is_text_in_the_csv(data: Data) -> None:
    """Whoever may name a project can not run anything in the spreadsheet of whoever pays."""
    project = next(iter(data.names.projects))
    names = replace(data.names, projects={project: '=HYPERLINK("http://x")'})
    lines = list(
        csv.DictReader(io.StringIO(render(Report(replace(data, names=names), View(by="project")))))
    )
    assert {line["project"] for line in lines if line["project_id"] == project} == {
        '\'=HYPERLINK("http://x")'
    }


def test_the_store_is_read_while_it_is_written(path: Path, tmp_path: Path) -> None:
    """A row that another connection commits is on the page after the next look; nothing of the
    store changes by looking.
    """
    copy = tmp_path / "state.db"
    copy.write_bytes(path.read_bytes())
    watcher = StoreWatcher(queries_opener(copy), clock=lambda: NOW)
    with sqlite3.connect(copy) as db:
        db.execute("PRAGMA journal_mode = WAL")
        watcher.refresh()
        before = Report(watcher.loaded().data["default"], View(by="project")).cost or 0.0
        (source,) = db.execute("SELECT id FROM sources WHERE kind = 'costs'").fetchone()
        (stored_series,) = db.execute(
            "SELECT dims FROM readings WHERE source_id = ? LIMIT 1", (source,)
        ).fetchone()
        day = NOW - 15 * 3600
        db.execute(
            "INSERT INTO readings (source_id, width, start, dims, cost) VALUES (?, 86400, ?, ?, '12.5')",
            (source, day, stored_series),
        )
        db.commit()
        db.execute("UPDATE sources SET horizon = 1")  # a transaction that is open meanwhile
        watcher.refresh()
    assert watcher.loaded().problem is None
    assert Report(watcher.loaded().data["default"], View(by="project")).cost == pytest.approx(
        before + 12.5
    )


def test_a_store_that_goes_away_leaves_what_was_read(path: Path, tmp_path: Path) -> None:
    """The last reading stays, with the reason why there is no newer one."""
    copy = tmp_path / "state.db"
    copy.write_bytes(path.read_bytes())
    watcher = StoreWatcher(queries_opener(copy), clock=lambda: NOW)
    watcher.refresh()
    copy.unlink()
    watcher.refresh()
    assert "default" in watcher.loaded().data
    assert str(copy) in (watcher.loaded().problem or "")


def test_a_list_offers_some_names_and_finds_the_others(data: Data) -> None:
    """Of a thousand projects fifty are sent, those that are chosen, and how many more there are;
    typing finds any of them.
    """
    names = replace(
        data.names, projects={f"proj_{number:04}": f"Project {number}" for number in range(1000)}
    )
    column = Column.of(list(names.projects))
    many = replace(
        data,
        names=names,
        usage=replace(data.usage, columns={**data.usage.columns, "project": column}),
    )
    report = Report(many, View(project=("proj_0999",)))
    offered = [option["label"] for option in controls.offered(report, "project")]
    more = len(many.options["project"]) - 50
    assert (len(offered), offered[0], offered[-1]) == (
        52,
        "Project 999",
        f"{more:,} more: type a part of the name",
    )
    assert [option["label"] for option in controls.offered(report, "project", "ECT 77")] == [
        "Project 999",
        "Project 77",
        *(f"Project {number}" for number in range(770, 780)),
    ]
