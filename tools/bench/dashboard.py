"""`python -m tools.bench.dashboard [--quick] [--dry]`: the dashboard over a year of 500 projects,
in a real Chromium.

The dashboard runs as the installed command, in a process of its own, on the same cores as the
browser. Writes its table into docs/dashboard.md.
"""

import argparse
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import psutil
from playwright.sync_api import Browser, CDPSession, Page, sync_playwright

from otel_openai_usage.domain.endpoints import COSTS, USAGE_ENDPOINTS, Endpoint
from otel_openai_usage.domain.metered import METERED
from otel_openai_usage.domain.model import Width, floor
from otel_openai_usage.storage.sql.values import encode_dims
from otel_openai_usage.storage.sqlite.store import Store
from tools.bench.processes import ROOT
from tools.bench.table import machine, write

Line: TypeAlias = tuple[str, str, str, bool | None]
"""What is measured, its bar, what was met, whether it holds."""

PAGE = ROOT / "docs" / "dashboard.md"
FIRST = 1500.0
CLICK = 300.0
"""Milliseconds that were promised."""
MODELS = (
    "gpt-5-2025-08-07",
    "gpt-5-mini-2025-08-07",
    "gpt-4o-2024-08-06",
    "o3-2025-04-16",
    "text-embedding-3-large",
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CLICKS = {
    "group by": ("Project", "API key", "User", "Customer", "Model"), "period": ("90 days", "12 months", "This month", "7 days", "30 days"),
    "filter by a name in the legend": ("#cost .legend a", ".clear"),
}  # fmt: skip
EVERYTHING = """() => {
  const charts = [...document.querySelectorAll('.chart')];
  const widgets = document.querySelectorAll('.dash-dropdown').length > 3 && document.querySelector('.dash-datepicker-input-wrapper');
  return widgets && charts.length > 5 && charts.every(chart => chart.querySelector('path')) && performance.now();
}"""
"""Everything is there when the numbers, the charts, the lists and the calendar are."""
DRAWN = """async (wanted) => {
  const named = [...document.querySelectorAll('.segment')].find(each => each.textContent === wanted);
  const link = named || document.querySelector(wanted);
  const began = performance.now();
  let last = 0;
  const painted = () => requestAnimationFrame(() => setTimeout(() => { last = performance.now(); }));
  const observer = new MutationObserver(painted);
  observer.observe(document.getElementById('root'), {subtree: true, childList: true, attributes: true, characterData: true});
  link.click();
  while (!last || performance.now() - last < 400) { await new Promise(resolve => setTimeout(resolve, 20)); }
  observer.disconnect();
  return last - began;
}"""
"""Milliseconds from a click until the last change of the page is painted."""


def fill(path: Path, projects: int, days: int, hours: int) -> int:
    """A store with so many projects, three keys each; the last `hours` days by the hour. How many
    rows.
    """
    rng = random.Random(1)  # noqa: S311 - no secret
    today = floor(int(time.time()), Width.DAY)
    store = Store(path)
    endpoint = USAGE_ENDPOINTS["completions"]
    usage = store.source_state(
        "default", endpoint, today, ("project_id", "user_id", "api_key_id", "model", "batch")
    )
    costs = store.source_state("default", COSTS, today, ("project_id", "line_item"))
    events = store.source_state("default", METERED, today, ())
    store.close()
    db = sqlite3.connect(path)
    sql = "INSERT INTO dims (source_id, key, total, shown, released, first_seen, changed, {}) VALUES (?, ?, '[]', '[]', 1, 0, 0, {})"
    count = 0
    for project in range(projects):
        for key in range(3):
            named = {
                "project_id": f"proj_{project:04}",
                "user_id": f"user-{(project + key) % 300:04}",
                "api_key_id": f"key_{project:04}_{key}",
                "model": MODELS[(project + key) % len(MODELS)],
                "batch": "false",
            }
            id_ = _stored_series(db, sql, usage.id, endpoint, named)
            size = rng.randrange(1000, 100_000)
            stretches = [
                (Width.DAY, today - days * Width.DAY, today - hours * Width.DAY),
                (Width.HOUR, today - hours * Width.DAY, today),
            ]
            for width, first, last in stretches:
                db.executemany(
                    "INSERT INTO readings (source_id, width, start, dims, input, output, input_cached, input_audio, output_audio,"
                    " input_cache_write, requests) VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, 0, ?)",
                    (
                        (usage.id, int(width), start, id_, size, size // 5, size // 3, size // 500)
                        for start in range(first, last, width)
                    ),
                )
                count += (last - first) // width
            every = range(today - days * Width.DAY, today, Width.DAY)
            db.executemany(
                "INSERT INTO estimates VALUES (?, ?, ?, ?)",
                ((usage.id, id_, day, str(size / 1e5)) for day in every),
            )
            for part in ("input", "output", "cached input"):
                item = {
                    "project_id": named["project_id"],
                    "line_item": f"{named['model']}, {part}",
                    "currency": "usd",
                }
                id_ = _stored_series(db, sql, costs.id, COSTS, item)
                db.executemany(
                    "INSERT INTO readings (source_id, width, start, dims, cost, quantity) VALUES (?, 86400, ?, ?, ?, ?)",
                    ((costs.id, day, id_, f"{size / 3e5:.6f}", str(size)) for day in every),
                )
                count += days
    for customer in range(200):
        id_ = _stored_series(
            db,
            sql,
            events.id,
            METERED,
            {"subject": f"customer-{customer}", "model": MODELS[customer % len(MODELS)]},
        )
        size = rng.randrange(1000, 100_000)
        every = range(today - days * Width.DAY, today, Width.DAY)
        db.executemany(
            "INSERT INTO readings (source_id, width, start, dims, input, output, input_cached, reasoning, requests)"
            " VALUES (?, 86400, ?, ?, ?, ?, 0, 0, ?)",
            ((events.id, day, id_, size, size // 5, size // 500) for day in every),
        )
        count += days
    db.commit()
    db.close()
    return count


def _stored_series(
    db: sqlite3.Connection, sql: str, source: int, endpoint: Endpoint, named: dict[str, str]
) -> int:
    values = [named.get(name) for name in endpoint.dimensions]
    columns = ", ".join(endpoint.dimensions)
    marks = ", ".join("?" * len(values))
    return (
        db.execute(
            sql.format(columns, marks), (source, encode_dims(tuple(values), endpoint), *values)
        ).lastrowid
        or 0
    )


def serve(folder: Path) -> tuple["subprocess.Popen[str]", str]:
    """The installed command over the store in a folder, and where it is, once it has read all."""
    (folder / "config.yaml").write_text(f"state: {{path: {folder / 'state.db'}}}\n")
    command = [
        str(Path(sys.executable).with_name("otel-openai-usage")),
        "dashboard",
        "-c",
        str(folder / "config.yaml"),
        "--port",
        "0",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    url = process.stdout.readline().split()[-1] if process.stdout else ""
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{url}/table.csv", timeout=10).close()
        except urllib.error.HTTPError:
            time.sleep(0.1)
        else:
            return process, url
    raise RuntimeError("the dashboard never had anything to show")


def visit(page: Page, url: str) -> float:
    """Milliseconds until everything is drawn."""
    page.goto(url, wait_until="commit")
    return float(page.wait_for_function(EVERYTHING, polling="raf").json_value())


def first(browser: Browser, url: str) -> tuple[float, float]:
    """A visit with an empty cache: until everything is drawn, and the CPU that the page has had."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    session = watched(page)
    taken = visit(page, url)
    used = cpu(session)
    context.close()
    return taken, used


def watched(page: Page) -> CDPSession:
    """What tells of a page's CPU from now on."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    return session


def cpu(session: CDPSession) -> float:
    """Milliseconds of CPU that the page's main thread has had."""
    return float(
        {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}[
            "TaskDuration"
        ]
        * 1000
    )


def clicks(page: Page, times: int, spent: Callable[[], float]) -> list[Line]:
    """Every kind of click, so many times each."""
    session = watched(page)
    page.evaluate(DRAWN, "Project")  # what happens once has happened
    lines: list[Line] = []
    every: list[float] = []
    before = cpu(session), spent()
    for what, labels in CLICKS.items():
        taken = [page.evaluate(DRAWN, label) for _ in range(times) for label in labels]
        every += taken
        lines.append((f"{what}, median of {len(taken)}", *bar(statistics.median(taken), CLICK)))
    used = [
        (after - former) / len(every)
        for after, former in zip((cpu(session), spent()), before, strict=True)
    ]
    slowest = (f"the slowest of these {len(every)} clicks", *bar(max(every), CLICK))
    return [
        *lines,
        slowest,
        (
            "CPU for a click: the page's · the dashboard's",
            "",
            f"{used[0]:.0f} ms · {used[1]:.0f} ms",
            None,
        ),
    ]


def bar(met: float, promised: float) -> tuple[str, str, bool]:
    """A bar in milliseconds, what was met, and whether it holds."""
    return f"{promised:.0f} ms", f"{met:.0f} ms", met < promised


def measure(folder: Path, times: int) -> list[Line]:
    """Everything about a store's dashboard."""
    began = time.perf_counter()
    process, url = serve(folder)
    started = time.perf_counter() - began
    dashboard = psutil.Process(process.pid)

    def spent() -> float:
        return float(sum(dashboard.cpu_times()[:2])) * 1000

    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=FLAGS
            )
            first(browser, url)  # the command's own first answer is not the browser's
            before = spent()
            fresh, used = zip(*(first(browser, url) for _ in range(times)), strict=True)
            served = (spent() - before) / times
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            visit(page, url)
            later = [visit(page, url) for _ in range(times)]
            done = clicks(page, times, spent)
            browser.close()
        return [
            ("start of the command until it has read all", "", f"{started:.1f} s", None),
            ("its memory then", "", f"{dashboard.memory_info().rss / 1e6:.0f} MB", None),
            (
                f"first visit, empty cache, until everything is drawn: median of {times}",
                *bar(statistics.median(fresh), FIRST),
            ),
            ("… the slowest", *bar(max(fresh), FIRST)),
            (
                "… CPU: the page's · the dashboard's",
                "",
                f"{statistics.median(used):.0f} ms · {served:.0f} ms",
                None,
            ),
            (f"later visits: median of {times}", *bar(statistics.median(later), FIRST)),
            *done,
        ]
    finally:
        process.terminate()
        process.wait(20)


def table(lines: Sequence[Line]) -> str:
    """Everything, in Markdown."""
    said = {None: "", True: "yes", False: "no"}
    rows = [
        f"| {what} | {promised} | {met} | {said[holds]} |" for what, promised, met, holds in lines
    ]
    return "\n".join(
        [machine(), "", "| | bar | measured | holds |", "| --- | --- | --- | --- |", *rows]
    )


def main() -> None:
    """Make a store, measure, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the projects, fewer times; writes nothing"
    )
    parser.add_argument("--dry", action="store_true", help="write nothing")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        count = fill(
            Path(folder) / "state.db", projects=50 if asked.quick else 500, days=365, hours=14
        )
        text = table(
            [
                ("rows in the store", "", f"{count:,}", None),
                *measure(Path(folder), 2 if asked.quick else 5),
            ]
        )
    print(text)
    if not (asked.quick or asked.dry):
        write(PAGE, text)


if __name__ == "__main__":
    main()
