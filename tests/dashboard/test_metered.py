"""Tests of what applications reported: tokens by customer, and who used the rest. Against the store's
own rows, in a real Chromium.
"""

import csv
import io
import re
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from otel_openai_usage.composition.stores import queries_opener
from otel_openai_usage.dashboard import allocated, controls, pages
from otel_openai_usage.dashboard.content import content
from otel_openai_usage.dashboard.coverage import coverage
from otel_openai_usage.dashboard.data import Data
from otel_openai_usage.dashboard.queries import Report
from otel_openai_usage.dashboard.server import Server
from otel_openai_usage.dashboard.store_watcher import StoreWatcher
from otel_openai_usage.dashboard.table import render
from otel_openai_usage.dashboard.view import DAY, View
from otel_openai_usage.domain.model import utc
from otel_openai_usage.reports import export
from otel_openai_usage.storage.sql.shares import shares
from otel_openai_usage.storage.sqlite.connection import StateConnection
from tests.dashboard.scene import NOW
from tests.dashboard.test_page import opened, table
from tests.dashboard.test_states import text

CUSTOMERS = (
    "SELECT subject, sum(requests), sum(input), sum(input_cached), sum(output) FROM readings JOIN dims ON dims.id = dims"
    " JOIN sources ON sources.id = readings.source_id WHERE kind = 'metered' AND start >= ? AND start < ? GROUP BY subject"
)
THE_DAY = NOW - 15 * 3600 - 3 * DAY
ONE_DAY = f"{utc(THE_DAY):%Y-%m-%d}..{utc(THE_DAY):%Y-%m-%d}"


@pytest.fixture
def data(watcher: StoreWatcher) -> Data:
    """What was read."""
    return watcher.loaded().data["default"]


@pytest.fixture
def alone(path: Path, tmp_path: Path) -> StoreWatcher:
    """A store with nothing but events."""
    copy = tmp_path / "state.db"
    shutil.copy(path, copy)
    with sqlite3.connect(copy) as db:
        db.execute(
            "DELETE FROM readings WHERE source_id NOT IN (SELECT id FROM sources WHERE kind = 'metered')"
        )
        db.execute("DELETE FROM estimates")
        db.execute("DELETE FROM sources WHERE kind != 'metered'")
    watcher = StoreWatcher(queries_opener(copy), clock=lambda: NOW)
    watcher.refresh()
    return watcher


def test_coverage_equals_the_gauges(path: Path, data: Data) -> None:
    """Of any past day the page shows, model by model, what `openai_unmetered_tokens` and
    `openai_metered_coverage` are made of.
    """
    with sqlite3.connect(path, factory=StateConnection) as db:
        sums_by_model: dict[str | None, list[int]] = {}
        for share in shares(db, THE_DAY):
            sums = sums_by_model.setdefault(share.model, [0, 0])
            sums[0] += share.used
            sums[1] += share.explained
    found = coverage(Report(data, View(period=ONE_DAY)))
    assert found is not None
    assert 0.2 < (found.whole.share or 0) < 0.8
    used = {model: sums for model, sums in sums_by_model.items() if any(sums)}
    assert [found.whole.used.sum(), found.whole.explained.sum()] == [
        sum(sums[place] for sums in used.values()) for place in (0, 1)
    ]
    for cover in found.models:
        if cover.id is not None:
            assert [cover.used.sum(), cover.explained.sum()] == used[cover.id]
    assert [cover.unexplained for cover in found.models[:7]] == sorted(
        (a - b for a, b in used.values()), reverse=True
    )[:7]


def test_coverage_adds_up_over_days(data: Data) -> None:
    """Thirty days' bars are the whole, whoever is looked at; a filter by model leaves that model
    alone.
    """
    found = coverage(Report(data, View()))
    assert found is not None
    assert sum(cover.unexplained for cover in found.models) == found.whole.unexplained
    model = found.models[0].id or ""
    one = coverage(Report(data, View(model=(model,), customer=("Casa Verde",))))
    assert one is not None
    assert (one.whole.unexplained, [cover.id for cover in one.models]) == (
        found.models[0].unexplained,
        [model],
    )


def test_what_events_do_not_know_is_not_compared(data: Data) -> None:
    """By project or key there is no coverage: an event knows neither."""
    assert coverage(Report(data, View(project=("proj_x",)))) is None
    page = text(pages.body(Report(data, View(by="customer", project=("proj_x",))), None))
    assert "Events have a customer and a model, nothing else." in page


def test_customers_on_the_page_are_the_stores(page: Page, url: str, path: Path) -> None:
    """Grouped by customer, table, tiles and chart show what is in the store, to the token; a click
    on one shows only that one.
    """
    with sqlite3.connect(path) as db:
        known = {name: counts for name, *counts in db.execute(CUSTOMERS, (THE_DAY, THE_DAY + DAY))}
    opened(page, f"{url}/?by=customer&period={ONE_DAY}")
    shown = {
        name: [int(text.replace(",", "").replace("–", "0")) for text in counts[-4:]]
        for name, *counts in table(page)
    }
    assert shown == {**known, "(unmetered)": [0] * 4, "(shared)": [0] * 4}
    assert (
        page.locator("#tile-tokens").get_attribute("data-value")
        == f"{float(sum(counts[1] + counts[3] for counts in known.values()))}"
    )
    assert page.locator("#consumed .bar").count() == min(len(known), 8)
    name = page.locator("#consumed .legend a .name").first.inner_text()
    page.locator("#consumed .legend a").first.click()
    expect(page.locator("#table tbody tr")).to_have_count(1)
    assert table(page)[0][0] == name
    assert "customer=" in page.url


def test_the_rest_on_the_page_is_the_stores(page: Page, url: str, data: Data) -> None:
    """The table of models shows what is not explained, most first; over a day stands that day's
    share.
    """
    opened(page, url)
    found = coverage(Report(data, View()))
    assert found is not None
    rows = [row.locator("td").all_inner_texts() for row in page.locator("#coverage tbody tr").all()]
    assert [row[0] for row in rows] == ["All models", *(cover.label for cover in found.models)]
    assert [int(row[3].replace(",", "").replace("−", "-")) for row in rows] == [
        cover.unexplained for cover in (found.whole, *found.models)
    ]
    strip = page.locator("#coverage tbody tr").first.locator(".plot")
    box = strip.bounding_box()
    assert box is not None
    strip.hover(position={"x": box["width"] * 10.5 / 30, "y": 5})
    share = found.whole.explained[10] / found.whole.used[10]
    expect(strip.locator(".values td").nth(2)).to_have_text(f"{share * 100:.0f}%")


def test_the_csv_by_customer_is_the_table(data: Data) -> None:
    """`/table.csv?by=customer` has every customer with its cost; together they cost the bill."""
    report = Report(data, View(by="customer"))
    lines = list(csv.DictReader(io.StringIO(render(report))))
    assert [(line["customer"], int(line["requests"])) for line in lines] == [
        (entry.label, entry.requests) for entry in report.entries
    ]
    billed = Report(data, View()).cost or 0.0
    assert sum(float(line["cost_usd"] or 0) for line in lines) == pytest.approx(billed)
    assert {"(unmetered)", "(shared)"} <= {line["customer"] for line in lines}


def test_customers_cost_what_the_export_says(data: Data, path: Path) -> None:
    """The page shows the amounts of the file, customer by customer, also of one project."""
    day = utc(THE_DAY).date()
    exported: dict[tuple[str, str], float] = {}
    for line in csv.DictReader(
        io.StringIO("".join(export.lines(queries_opener(path), day, day, "csv")))
    ):
        if line["record"] == "allocated":
            for project in {"", line["project_id"]}:
                key = (project, line["subject"])
                exported[key] = exported.get(key, 0.0) + float(line["allocated_cost"])
    for project in {project for project, _ in exported}:
        view = View(by="customer", period=ONE_DAY, project=(project,) if project else ())
        entries = Report(data, view).entries
        shown = {entry.label: entry.cost for entry in entries if entry.cost}
        asked = {name: cost for (one, name), cost in exported.items() if one == project and cost}
        # The file has parts in whole millionths, of a hundred line items.
        assert shown == pytest.approx(asked, abs=1e-3)


@pytest.mark.parametrize(
    "view", [View(by="customer"), View(by="project", customer=("(unmetered)",))]
)
def test_every_view_by_customer_sums_to_the_bill(data: Data, view: View) -> None:
    """All customers are the bill; one customer is its part of it, whatever the view groups by."""
    everybody = {entry.id: entry.cost or 0.0 for entry in Report(data, View(by="customer")).entries}
    wanted = sum(everybody[name] for name in view.customer or everybody)
    report = Report(data, view)
    assert report.cost == pytest.approx(wanted)
    assert sum(series.total for series in report.cost_series) == pytest.approx(wanted)


def test_many_customers_are_folded(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a bound of memory the smallest customers are one, and the sum stays the bill."""
    monkeypatch.setattr(allocated, "MAX_CELLS", 3 * data.costs.size * data.costs.days)
    found = Report(replace(data), View(by="customer"))
    names = {entry.label for entry in found.entries if entry.cost}
    assert "(other customers)" in names
    assert len(names) == 6
    assert found.cost == pytest.approx(Report(data, View()).cost)


def test_events_alone_make_a_dashboard(page: Page, alone: StoreWatcher) -> None:
    """Without a key of OpenAI's the page is about what was metered, by model or by customer, and
    compares it with nothing.
    """
    server = Server(alone, host="localhost", port=0)
    server.start()
    try:
        opened(page, server.url)
        assert page.locator("#consumed h2").inner_text() == "Tokens by model"
        assert page.locator("#choices .segment").all_inner_texts() == ["Model", "Customer"]
        assert page.locator("#coverage").count() == 0
        page.locator(".segment", has_text="Customer").click()
        expect(page.locator("#table h2")).to_have_text("By customer")
        assert re.search(
            r"what applications reported; OpenAI's own count is not read",
            page.locator("#page footer").inner_text(),
        )
    finally:
        server.close()


def test_a_bill_alone_shows_no_events(path: Path, tmp_path: Path) -> None:
    """A store that has only costs does not mention events that were never sent."""
    copy = tmp_path / "state.db"
    shutil.copy(path, copy)
    with sqlite3.connect(copy) as db:
        db.execute(
            "DELETE FROM readings WHERE source_id NOT IN (SELECT id FROM sources WHERE kind = 'costs')"
        )
        db.execute("DELETE FROM estimates")
    watcher = StoreWatcher(queries_opener(copy), clock=lambda: NOW)
    watcher.refresh()
    page = text(content(watcher, "").body)
    assert "applications" not in page
    assert "etered" not in page
    assert "$" in page


def test_a_bill_beside_events_is_shown(data: Data) -> None:
    """Who reads costs but no usage sees what was billed, by what the bill knows, with the requests
    that applications reported.
    """
    metered = Report(replace(data, usage=data.metered), View(by="project"))
    assert metered.cost == Report(data, View(by="project")).cost
    assert metered.counted("requests") == Report(data, View(by="customer")).counted("requests")
    page = text(pages.body(metered, None))
    assert "Cost by project" in page
    assert "Metered requests" in page
    assert [
        word
        for word in ("Model", "Project", "API key", "User", "Customer")
        if word in text(controls.choices(metered, ["default"]))
    ] == [
        "Model",
        "Project",
        "Customer",
    ]


def test_without_events_there_are_no_customers(path: Path, tmp_path: Path) -> None:
    """Who meters nothing sees nothing of customers."""
    copy = tmp_path / "state.db"
    shutil.copy(path, copy)
    with sqlite3.connect(copy) as db:
        db.execute(
            "DELETE FROM readings WHERE source_id IN (SELECT id FROM sources WHERE kind = 'metered')"
        )
    watcher = StoreWatcher(queries_opener(copy), clock=lambda: NOW)
    watcher.refresh()
    made = content(watcher, "")
    assert "Customer" not in text(made.choices)
    assert "Who used the rest?" not in text(made.body)
