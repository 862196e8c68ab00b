"""Measures the dashboard over a year of 500 projects: reading the store, the first paint, interactions. In a real Chromium.

    .venv/bin/python tools/bench_dashboard.py [--projects 500] [--days 365] [--hours 14]
"""

import argparse
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import CDPSession, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parent.parent))

from otel_openai_usage.core.kinds import COSTS, USAGE_KINDS
from otel_openai_usage.core.model import Width, floor
from otel_openai_usage.dashboard.library import Library
from otel_openai_usage.dashboard.server import Server, content
from otel_openai_usage.state import rows
from otel_openai_usage.state.sqlite import Store

MODELS = ("gpt-5-2025-08-07", "gpt-5-mini-2025-08-07", "gpt-4o-2024-08-06", "o3-2025-04-16", "text-embedding-3-large")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
DRAWN = "document.querySelectorAll('.js-plotly-plot .main-svg').length >= 2 * document.querySelectorAll('.chart').length"
CLICK = """async (label) => {
  const link = [...document.querySelectorAll('.segment')].find(each => each.textContent === label);
  const began = performance.now();
  const done = new Promise(resolve => {
    const look = () => {
      const chosen = [...document.querySelectorAll('.segment.chosen')].some(each => each.textContent === label);
      if (chosen) { requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - began), 0)); } else { setTimeout(look, 4); }
    };
    look();
  });
  link.click();
  return await done;
}"""


def cpu(session: CDPSession) -> float:
    """Milliseconds of CPU that the page's main thread has had."""
    return float({each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}["TaskDuration"] * 1000)


def say(what: str, value: object) -> None:
    """One line of the result."""
    print(f"{what:<58} {value}")


def fill(path: Path, projects: int, days: int, hours: int) -> int:
    """A store with so many projects, three keys each; the last `hours` days by the hour. How many rows."""
    rng, today = random.Random(1), floor(int(time.time()), Width.DAY)  # noqa: S311 - no secret
    store = Store(path)
    kind = USAGE_KINDS["completions"]
    usage = store.book("default", kind, today, ("project_id", "user_id", "api_key_id", "model", "batch"))
    costs = store.book("default", COSTS, today, ("project_id", "line_item"))
    store.close()
    db = sqlite3.connect(path)
    sql = "INSERT INTO dims (source_id, key, total, shown, released, first_seen, changed, {}) VALUES (?, ?, '[]', '[]', 1, 0, 0, {})"
    count = 0
    for project in range(projects):
        for key in range(3):
            named = {"project_id": f"proj_{project:04}", "user_id": f"user-{(project + key) % 300:04}",
                     "api_key_id": f"key_{project:04}_{key}", "model": MODELS[(project + key) % len(MODELS)], "batch": "false"}  # fmt: skip
            id_ = _leaf(db, sql, usage.id, kind.dimensions, named)
            size = rng.randrange(1000, 100_000)
            stretches = [(Width.DAY, today - days * Width.DAY, today - hours * Width.DAY), (Width.HOUR, today - hours * Width.DAY, today)]
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
            db.executemany("INSERT INTO estimates VALUES (?, ?, ?, ?)", ((usage.id, id_, day, str(size / 1e5)) for day in every))
            for part in ("input", "output", "cached input"):
                item = {"project_id": named["project_id"], "line_item": f"{named['model']}, {part}", "currency": "usd"}
                id_ = _leaf(db, sql, costs.id, COSTS.dimensions, item)
                db.executemany(
                    "INSERT INTO readings (source_id, width, start, dims, cost, quantity) VALUES (?, 86400, ?, ?, ?, ?)",
                    ((costs.id, day, id_, f"{size / 3e5:.6f}", str(size)) for day in every),
                )
                count += days
    db.commit()
    db.close()
    return count


def _leaf(db: sqlite3.Connection, sql: str, source: int, dimensions: tuple[str, ...], named: dict[str, str]) -> int:
    values = [named.get(name) for name in dimensions]
    kind = COSTS if "currency" in named else USAGE_KINDS["completions"]
    key = rows.key(tuple(values), kind)
    return db.execute(sql.format(", ".join(dimensions), ", ".join("?" * len(dimensions))), (source, key, *values)).lastrowid or 0


def paint(page: Page, url: str) -> tuple[float, float]:
    """Milliseconds until the numbers stand there, and until every chart does."""
    page.goto(url, wait_until="commit")
    page.wait_for_selector("#tile-tokens")
    numbers = page.evaluate("performance.now()")
    page.wait_for_function(DRAWN)
    return numbers, page.evaluate("performance.now()")


def measure(path: Path) -> None:
    """Print everything about a store's dashboard."""
    library = Library(path)
    began = time.perf_counter()
    library.refresh()
    say("reading the store, once", f"{time.perf_counter() - began:.1f} s")
    for query in ("", "?by=project&period=12m", "?by=key&period=12m", "?by=user&model=gpt-4o-2024-08-06&period=90d"):
        began = time.perf_counter()
        content(library, query)
        say(f"working out {query or 'the first page'}", f"{(time.perf_counter() - began) * 1000:.0f} ms")
    server = Server(path, host="localhost", port=0, library=library)
    server.start()
    chromium = shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        context.set_default_timeout(20_000)
        page = context.new_page()
        say("first visit: numbers, charts", "{:.0f} ms, {:.0f} ms".format(*paint(page, server.url)))
        visits = [paint(page, server.url) for _ in range(5)]
        say("later visits, median: numbers, charts", "{:.0f} ms, {:.0f} ms".format(*map(statistics.median, zip(*visits, strict=True))))
        session = context.new_cdp_session(page)
        session.send("Performance.enable", {"timeDomain": "threadTicks"})
        for label in ("Project", "API key", "User", "90 days", "12 months", "Model", "30 days", "7 days"):
            page.wait_for_timeout(500)
            before = cpu(session)
            taken = page.evaluate(CLICK, label)
            say(f"click {label}: until drawn, the page's CPU", f"{taken:.0f} ms, {cpu(session) - before:.0f} ms")
        browser.close()
    server.close()


def main() -> None:
    """Make a store, measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--projects", type=int, default=500)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--hours", type=int, default=14, help="the last days, which are kept by the hour")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.db"
        say("rows", f"{fill(path, given.projects, given.days, given.hours):,}")
        measure(path)


if __name__ == "__main__":
    main()
