"""Tests of what is shown when there is little, old, or only legacy data."""

import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from otel_openai_usage.composition.stores import queries_opener
from otel_openai_usage.dashboard import pages, units
from otel_openai_usage.dashboard.content import content, report
from otel_openai_usage.dashboard.data import Data
from otel_openai_usage.dashboard.figures import stacked
from otel_openai_usage.dashboard.freshness import stale
from otel_openai_usage.dashboard.month_figure import month
from otel_openai_usage.dashboard.queries import Report, Series
from otel_openai_usage.dashboard.store_watcher import StoreWatcher
from otel_openai_usage.dashboard.view import DAY, View
from otel_openai_usage.domain.endpoints import STORED
from otel_openai_usage.domain.model import Width, Window, floor, utc
from otel_openai_usage.engine import recording
from otel_openai_usage.storage.sqlite.store import Store
from tests.dashboard.scene import NOW


def text(component: object) -> str:
    """Everything a page says."""
    if isinstance(component, str):
        return component
    if isinstance(component, list | tuple):
        return " ".join(text(child) for child in component)
    return text(getattr(component, "children", None) or "")


@pytest.fixture
def data(watcher: StoreWatcher) -> Data:
    """What was read."""
    return watcher.loaded().data["default"]


def test_an_unknown_organization_is_not_another_one(watcher: StoreWatcher) -> None:
    """A link with an unknown name says so, and offers the known ones; its table is
    none.
    """
    page = text(content(watcher, "?organization=nobody").body)
    assert "No organization 'nobody'" in page
    assert "default" in page
    assert "$" not in page
    assert report(watcher, "?organization=nobody") is None


def test_days_before_the_first_are_not_drawn_as_free(data: Data) -> None:
    """In the month in which the store begins, the line begins with it; an entry that is on no bill
    has no cost, not one of nothing.
    """
    whole, late = (
        Report(replace(data, first=first), View())
        for first in (data.first, Report(data, View()).month.start + 3 * DAY)
    )
    drawn = [
        next(mark["d"] for mark in month(each, str, "")["marks"] if mark["kind"] == "line thick")
        for each in (whole, late)
    ]
    assert [path.count("L") for path in drawn] == [drawn[0].count("L"), drawn[0].count("L") - 3]
    assert not drawn[1].startswith("M0.0 ")
    free = [entry.label for entry in Report(data, View()).entries if entry.cost == 0]
    assert free == []


def test_legacy_rows_alone_make_a_dashboard(tmp_path: Path) -> None:
    """Somebody with an ordinary key sees requests and tokens by model, and that no cost is known."""
    store = Store(tmp_path / "state.db")
    endpoint = STORED["legacy"]
    today = floor(NOW, Width.DAY)
    source_state = store.source_state("default", endpoint, 0, ())
    named = {"operation": "completion", "model": "gpt-4o-2024-08-06"}
    dims = tuple(named.get(name) for name in endpoint.dimensions)
    amounts = {"requests": 12, "input": 7786, "output": 120}
    row = tuple(amounts.get(measure.name, 0) for measure in endpoint.measures)
    hours = {today - Width.DAY * day + 3600: {dims: row} for day in range(5)}
    days = Window(today - Width.DAY * 4, today + Width.DAY)
    recording.record_range(store, source_state, days, Width.HOUR, hours, NOW)
    store.close()
    watcher = StoreWatcher(queries_opener(tmp_path / "state.db"), clock=lambda: NOW)
    watcher.refresh()
    report = Report(watcher.loaded().data["default"], View())
    assert [
        (entry.label, entry.requests, entry.input, entry.output, entry.cost)
        for entry in report.entries
    ] == [("gpt-4o-2024-08-06", 60, 38_930, 600, None)]
    page = text(content(watcher, "").body)
    assert "Usage is from OpenAI's undocumented legacy endpoint." in page
    assert "nothing is priced yet" in page


def test_a_store_without_rows_says_so(tmp_path: Path) -> None:
    """A store without rows has another text than a missing one."""
    Store(tmp_path / "state.db").close()
    watcher = StoreWatcher(queries_opener(tmp_path / "state.db"), clock=lambda: NOW)
    assert "Reading the store" in text(content(watcher, "").body)
    watcher.refresh()
    assert "Nothing was used yet" in text(content(watcher, "").body)


def test_old_data_is_called_old(data: Data, watcher: StoreWatcher) -> None:
    """When nothing was read for hours the page asks whether the exporter runs; when one source
    fails it is named.
    """
    fresh = [replace(status, last_success=int(NOW) - 60) for status in data.statuses]
    assert stale(replace(data, statuses=fresh)) == []
    old = [replace(status, last_success=int(NOW) - 5 * 3600) for status in data.statuses]
    assert len(stale(replace(data, statuses=old))) == len(data.statuses)
    one = [replace(fresh[0], last_success=int(NOW) - 5 * 3600), *fresh[1:]]
    assert stale(replace(data, statuses=one)) == [(fresh[0].source, 5 * 3600)]


def test_usage_without_a_price_is_named_beside_the_estimate(data: Data) -> None:
    """Tokens without a price are counted and their models named, so that the estimate is known to
    be a lower bound.
    """
    report = Report(data, View(cost="estimated"))
    assert "priced" in data.usage.amounts
    unpriced = replace(
        data.usage,
        amounts={
            **data.usage.amounts,
            "unpriced": data.usage.amounts["input"] + data.usage.amounts["output"],
        },
    )
    every = Report(replace(data, usage=unpriced), View(cost="estimated"))
    assert every.unpriced[0] == report.counted("input") + report.counted("output")
    assert (
        every.unpriced[1][0]
        == max((entry for entry in report.entries), key=lambda entry: entry.input + entry.output).id
    )


def test_a_page_is_made_within_a_moment(watcher: StoreWatcher) -> None:
    """Working out a view takes less than 0.3 seconds of CPU, whatever is grouped by."""
    for by in ("model", "project", "key", "user"):
        began = time.thread_time()
        content(watcher, f"?by={by}&period=90d")
        assert time.thread_time() - began < 0.3


def test_a_period_that_goes_on_is_drawn_until_today(data: Data) -> None:
    """What has not come yet is not drawn as if nothing had been used; a period that is all to come
    says that it has nothing.
    """
    report = Report(data, View(period=f"{utc(NOW - 40 * DAY):%Y-%m-%d}..2034-01-01"))
    assert (report.bins[-1], len(report.bins), report.weekly) == (report.today, 41, False)
    page = text(pages.body(Report(data, View(period="2040-01-01..2040-02-01")), None))
    assert "Nothing was used in this period." in page
    assert "Nothing was billed or estimated in this period." in page


def test_a_long_chart_has_space_for_its_texts(data: Data) -> None:
    """However long a chart is, at most a dozen texts stand below it, with their years where there
    are several.
    """
    first = data.first or 0
    for years, most in ((0, 8), (0.5, 13), (2, 9), (8, 9)):
        old = replace(data, first=floor(int(first - years * 365 * DAY), DAY))
        report = Report(old, View(period=f"{utc(old.first or 0):%Y-%m-%d}..{utc(NOW):%Y-%m-%d}"))
        across = stacked(report, report.request_series, {}, units.count, "")["across"]
        assert 2 <= len(across) <= most
        assert (" 20" in across[0][1]) is (years > 1)


def test_a_credit_is_drawn_below_zero(data: Data) -> None:
    """What was given back goes down from 0, as far as it is worth, beside what goes up; it is among
    the first in the list.
    """
    report = Report(data, View(period=f"{utc(NOW):%Y-%m-%d}..{utc(NOW):%Y-%m-%d}"))
    figure = stacked(
        report,
        [Series("a", "a", np.array([60.0])), Series("b", "b", np.array([-40.0]))],
        {},
        units.money,
        "",
    )
    assert [text for _, text in figure["up"]] == [
        "−$50.00",
        "−$25.00",
        "$0.00",
        "$25.00",
        "$50.00",
        "$75.00",
    ]
    heights = [
        [float(number) for number in re.findall(r"(?:V|M[\d.]+ )([\d.]+)", mark["d"])]
        for mark in figure["marks"][1:]
    ]
    assert heights == [[600.0, 120.0], [600.0, 920.0]]
    costs = data.costs.amounts["cost"].copy()
    costs[0, -3] = -1e6
    credited = replace(
        data, costs=replace(data.costs, amounts={**data.costs.amounts, "cost": costs})
    )
    assert Report(credited, View(period="7d")).cost_series[0].total < -9e5
