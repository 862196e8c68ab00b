"""Tests of the page in a real Chromium."""

import csv
import re
import shutil
import sqlite3
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from otel_openai_usage.composition.stores import queries_opener
from otel_openai_usage.dashboard import units
from otel_openai_usage.dashboard.chart_parts import ticks
from otel_openai_usage.dashboard.queries import Report
from otel_openai_usage.dashboard.server import Server
from otel_openai_usage.dashboard.store_watcher import StoreWatcher
from otel_openai_usage.dashboard.view import DAY, View
from otel_openai_usage.domain.model import utc
from tests.dashboard.scene import NOW

DRAWN = "(charts => charts.length && charts.every(chart => chart.querySelector('path')))([...document.querySelectorAll('.chart')])"
BARS = """name => [...document.querySelectorAll(`#${name} .bar`)].map(bar => [bar.style.color, bar.getBoundingClientRect().height])"""


def opened(page: Page, url: str) -> Page:
    """The page, once everything on it is drawn."""
    page.goto(url)
    page.wait_for_selector("#table tbody tr")
    page.wait_for_function(DRAWN)
    return page


def table(page: Page) -> list[list[str]]:
    """The table's cells, as text."""
    return [row.locator("td").all_inner_texts() for row in page.locator("#table tbody tr").all()]


def report(watcher: StoreWatcher, view: View) -> Report:
    """The same view, worked out without a browser."""
    return Report(watcher.loaded().data["default"], view)


def test_numbers_on_the_page_are_the_stores(page: Page, url: str, watcher: StoreWatcher) -> None:
    """Tiles and table show, to the digit, what the store holds."""
    opened(page, f"{url}/?by=project")
    known = report(watcher, View(by="project"))
    assert float(page.locator("#tile-cost").get_attribute("data-value") or 0) == pytest.approx(
        known.cost
    )
    assert float(page.locator("#tile-requests").get_attribute("data-value") or 0) == known.counted(
        "requests"
    )
    assert [row[0] for row in table(page)] == [entry.label for entry in known.entries]
    assert [row[1] for row in table(page)] == [
        f"${entry.cost or 0:,.2f}" for entry in known.entries
    ]


def test_every_chart_is_drawn(page: Page, url: str) -> None:
    """Cost, month, tokens, requests and the comparison are there, and each has something in it."""
    opened(page, url)
    ids = page.locator(".chart[id]").evaluate_all("charts => charts.map(each => each.id)")
    assert ids == [
        "chart-cost",
        "chart-month",
        "chart-tokens",
        "chart-requests",
        "chart-comparison",
    ]
    assert page.locator(".chart:not(:has(.bar, .line, .heat))").count() == 0


def test_bars_are_as_high_as_their_values(page: Page, url: str, watcher: StoreWatcher) -> None:
    """On one day's page, each colour's bar has its share of the height that the axis gives to the
    sum.
    """
    day = f"{utc(NOW - 2 * DAY):%Y-%m-%d}"
    opened(page, f"{url}/?by=project&period={day}..{day}")
    series = report(watcher, View(by="project", period=f"{day}..{day}")).cost_series
    heights = [height for _, height in page.evaluate(BARS, "cost")]
    plot = page.locator("#cost .plot").bounding_box()
    top = ticks(sum(one.total for one in series))[-1]
    assert plot is not None
    assert heights == pytest.approx([one.total / top * plot["height"] for one in series], abs=0.2)


def test_the_mouse_shows_the_numbers_of_a_day(page: Page, url: str, watcher: StoreWatcher) -> None:
    """Over a day stand its date, every series that has something, and the sum; the arrow keys go on
    to the next day.
    """
    opened(page, f"{url}/?by=project&period=30d")
    known = report(watcher, View(by="project"))
    plot = page.locator("#cost .plot").bounding_box()
    assert plot is not None
    page.mouse.move(plot["x"] + plot["width"] * 10.5 / 30, plot["y"] + 50)
    box = page.locator("#cost .values")
    expect(box.locator("b")).to_have_text(
        f"{utc(known.bins[10]):%a} {units.long(utc(known.bins[10]).date())}"
    )
    rows = [row.locator("td").all_inner_texts()[1:] for row in box.locator("tr").all()]
    say = [[one.label, units.money(one.values[10])] for one in known.cost_series if one.values[10]]
    assert rows == [
        *say,
        ["Total", units.money(sum(float(one.values[10]) for one in known.cost_series))],
    ]
    page.locator("#chart-cost").focus()
    page.keyboard.press("ArrowRight")
    expect(box.locator("b")).to_have_text(
        f"{utc(known.bins[11]):%a} {units.long(utc(known.bins[11]).date())}"
    )


def test_a_url_that_is_sent_shows_the_same(browser: Browser, page: Page, url: str) -> None:
    """Clicks end in a URL; somebody else's browser that opens it shows the same numbers in the same
    order.
    """
    opened(page, url)
    page.locator(".segment", has_text="90 days").click()
    expect(page.locator(".segment.chosen").first).to_have_text("90 days")
    page.locator(".segment", has_text=re.compile("^Project$")).click()
    expect(page.locator("#table h2")).to_have_text("By project")
    page.locator("#table th a", has_text="Requests").click()
    expect(page.locator("#table th[aria-sort=descending]")).to_contain_text("Requests")
    page.locator("#table tbody td a").first.click()
    expect(page.locator("#table tbody tr")).to_have_count(1)
    assert re.search(r"period=90d&by=project&sort=-requests&project=proj_", page.url)
    other = browser.new_context().new_page()
    assert table(opened(other, page.url)) == table(page)
    assert other.locator(".value").all_inner_texts() == page.locator(".value").all_inner_texts()
    other.context.close()


def test_back_goes_back(page: Page, url: str) -> None:
    """The browser's own buttons go through the views."""
    opened(page, url)
    page.locator(".segment", has_text=re.compile("^User$")).click()
    expect(page.locator("#table h2")).to_have_text("By user")
    page.go_back()
    expect(page.locator("#table h2")).to_have_text("By model")


def test_a_filter_is_chosen_from_a_list(page: Page, url: str, watcher: StoreWatcher) -> None:
    """A choice in a list narrows the page and stands in the URL."""
    opened(page, f"{url}/?by=project")
    name = report(watcher, View(by="project")).entries[0].label
    page.locator(".filter").first.click()
    page.get_by_role("option", name=name).or_(page.locator("label", has_text=name)).first.click()
    expect(page.locator("#table tbody tr")).to_have_count(1)
    assert "project=proj_" in page.url
    page.keyboard.press("Escape")
    page.get_by_text("Clear filters").click()
    expect(page.locator("#table tbody tr")).not_to_have_count(1)
    assert "project=proj_" not in page.url


def test_the_csv_is_what_the_table_shows(page: Page, url: str, tmp_path: Path) -> None:
    """The file that is downloaded has the table's lines, numbers and order."""
    opened(page, f"{url}/?by=project&sort=requests")
    with page.expect_download() as download:
        page.locator("#csv").click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    lines = list(csv.DictReader(file.open(encoding="utf-8")))
    assert file.name.startswith("openai-by-project-")
    assert [line["project"] for line in lines] == [row[0] for row in table(page)]
    assert [f"${float(line['cost_usd']):,.2f}" for line in lines] == [row[1] for row in table(page)]


def test_nothing_leaves_localhost(page: Page, url: str) -> None:
    """Everything the page loads comes from the dashboard itself, and nothing it does is refused or
    an error.
    """
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on(
        "console", lambda message: errors.append(message.text) if message.type == "error" else None
    )
    page.on("pageerror", lambda error: errors.append(str(error)))
    opened(page, url)
    page.locator("#cost .plot").hover()
    page.locator(".segment", has_text="12 months").click()
    expect(page.locator(".segment.chosen").first).to_have_text("12 months")
    hosts = {urlsplit(each).netloc for each in asked if not each.startswith(("data:", "blob:"))}
    assert hosts == {urlsplit(url).netloc}
    assert not errors


def test_a_first_visit_is_light(browser: Browser, url: str) -> None:
    """An empty cache is sent less than 1.5 MB: no Plotly, nothing for tables and browsers that are
    not there.
    """
    page = browser.new_context().new_page()
    opened(page, url)
    page.wait_for_selector(".dash-datepicker-input-wrapper")
    sent = page.evaluate(
        "performance.getEntriesByType('resource').map(each => [each.name, each.decodedBodySize])"
    )
    page.context.close()
    assert sum(size for _, size in sent) < 1_500_000
    assert not [
        name for name, _ in sent if re.search("plotly|polyfill|dash_table|async-graph", name)
    ]


def test_no_inline_script_may_run(page: Page, url: str) -> None:
    """The policy lets no inline script and no eval run, but for the lines that Dash starts with."""
    policy = page.request.get(url).headers["content-security-policy"]
    scripts = next(part for part in policy.split(";") if part.strip().startswith("script-src"))
    assert "unsafe" not in scripts
    opened(page, url)
    written = "document.head.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = eval(1)'}))"
    assert page.evaluate(f"() => {{ {written}; return window.ran ?? 'refused' }}") == "refused"


def test_a_page_of_another_name_is_refused(page: Page, url: str) -> None:
    """A name that somebody points at this machine gets no numbers."""
    answer = page.request.get(url, headers={"Host": "evil.example"})
    assert answer.status == 403


def test_dark_is_dark(page: Page, url: str) -> None:
    """A system that is set to dark has a dark page with light text, charts included; the button
    turns it light for good.
    """
    page.emulate_media(color_scheme="dark")
    opened(page, url)
    colour = "getComputedStyle(document.querySelector('{}')).{}"
    assert page.evaluate(colour.format("body", "backgroundColor")) == "rgb(15, 17, 21)"
    assert page.evaluate(colour.format("#cost .across", "color")) == "rgb(162, 169, 182)"
    page.locator("#theme").click()
    page.locator("#theme").click()
    page.reload()
    expect(page.locator("#theme")).to_have_text("Theme: light")
    assert page.evaluate(colour.format("body", "backgroundColor")) == "rgb(246, 247, 249)"
    page.locator("#theme").click()
    expect(page.locator("#theme")).to_have_text("Theme: system")


def test_names_are_text_whatever_they_say(page: Page, path: Path, tmp_path: Path) -> None:
    """A project whose name is a script, or does not end, is shown as it is called, runs nothing and
    pushes nothing off the page.
    """
    copy = tmp_path / "state.db"
    shutil.copy(path, copy)
    script = "<img src=x onerror='document.title=1'><script>document.title=1</script>"
    with sqlite3.connect(copy) as db:
        for which, name in (("min", script), ("max", "x" * 900)):
            db.execute(
                f"UPDATE names SET name = ? WHERE id = (SELECT {which}(id) FROM names WHERE what = 'project')",
                (name,),
            )
    watcher = StoreWatcher(queries_opener(copy), clock=lambda: NOW)
    watcher.refresh()
    server = Server(watcher, host="localhost", port=0)
    server.start()
    try:
        page.set_viewport_size({"width": 390, "height": 800})
        opened(page, f"{server.url}/?by=project")
        assert script in [row[0] for row in table(page)]
        assert page.title() == "OpenAI usage and cost"
        assert page.evaluate("document.documentElement.scrollWidth") == 390
    finally:
        server.close()


def test_a_missing_store_is_reported(page: Page, tmp_path: Path) -> None:
    """Before the exporter's first start the page says what is missing and what makes it."""
    server = Server(StoreWatcher(queries_opener(tmp_path / "none.db")), host="localhost", port=0)
    server.start()
    try:
        page.goto(server.url)
        expect(page.locator(".empty")).to_contain_text(
            "none.db: there is none; `otel-openai-usage run` makes it"
        )
    finally:
        server.close()
