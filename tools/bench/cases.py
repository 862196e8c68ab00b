"""What is measured. Each case starts processes of its own and gives figures in seconds, bytes and
counts.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.bench.processes import (
    Child,
    Upstream,
    feed,
    openai,
    promhttp,
    python,
    running,
    scrape,
    subject,
)
from tools.bench.series import MEASURES

DAY = 86400
WARM = 12
"""Half hours of churn before memory is looked at: by then the heap has its shape."""


@dataclass(slots=True)
class Figures:
    """What was measured, by name."""

    sizes: Sequence[int]
    times: int
    found: dict[str, float] = field(default_factory=dict)

    def note(self, name: str, value: float) -> None:
        """Keep a figure, and say it."""
        self.found[name] = value
        print(f"  {name:<48} {value:.6g}", flush=True)

    def notes(self, name: str, values: Sequence[float]) -> None:
        """Keep the median."""
        self.note(name, statistics.median(values))


def sets(series: int) -> int:
    """Attribute sets of completions that make about so many series."""
    return max(1, series // MEASURES)


def minute() -> int:
    """The start of the running minute."""
    return int(time.time()) // 60 * 60


def scrapes(figures: Figures, who: str, series: int, child: Child, url: str) -> None:
    """Wall and CPU of scrapes, plain and compressed."""
    for gzip, form in ((False, "identity"), (True, "gzip")):
        scrape(url, gzip=gzip)
        cpu = child.cpu()
        taken = [scrape(url, gzip=gzip) for _ in range(figures.times * (4 if who == "ours" else 1))]
        figures.note(f"scrape.{form}.{who}.{series}.cpu", (child.cpu() - cpu) / len(taken))
        figures.notes(f"scrape.{form}.{who}.{series}.wall", [seconds for seconds, _ in taken])
        figures.note(f"scrape.{form}.{who}.{series}.bytes", taken[-1][1])
    figures.note(f"rss.{who}.{series}", child.stats.memory_info().rss)


def yardsticks(figures: Figures, folder: Path) -> None:
    """The same series through the stock Python exporter and through Go's promhttp."""
    program = promhttp(folder)
    if program is None:
        print("  Go is not installed: the comparison with promhttp is left out")
    for series in figures.sizes:
        with running(python("stock", str(sets(series)))) as child:
            scrapes(figures, "stock", series, child, child.line())
        if program:
            with running([str(program)]) as child:
                feed(child, sets(series))
                scrapes(figures, "go", series, child, child.line())


def live(figures: Figures, series: int, otlp: str | None) -> None:
    """An exporter at so many series: polls that change a fifth of as many rows, polls that change
    nothing, scrapes, exports.
    """
    name = f"{series}.{'otlp' if otlp else 'prometheus'}"
    with openai() as upstream:
        now = minute()
        many = sets(series)
        upstream.stretch(now - 170 * 60, 170, -(-many // 170), many)
        with subject(upstream, {"usage.start": "170m"}, otlp) as (exporter, url):
            figures.note(f"rss.start.{name}", exporter.ask("state")["rss"])
            exporter.ask("poll")
            if otlp:
                exporter.ask("send")
            exporter.ask("state")
            _changing(figures, name, exporter, upstream, now, series, otlp)
            if not otlp:
                scrapes(figures, "ours", series, exporter, url)
            state = exporter.ask("state")
            figures.note(f"series.{name}", state["series"])
            figures.note(f"rss.{name}", state["rss"])
            figures.note(f"peak.{name}", state["peak"])


def _changing(
    figures: Figures,
    name: str,
    exporter: Child,
    upstream: Upstream,
    now: int,
    series: int,
    otlp: str | None,
) -> None:
    polls = []
    sends = []
    lags = []
    for _ in range(figures.times):
        upstream.stretch(now, 20, max(1, series // 100), sets(series))
        exporter.ask("ahead", seconds=1200)
        now += 1200
        polls.append(exporter.ask("poll"))
        if otlp:
            sends.append(exporter.ask("send"))
        if len(polls) == 1:
            _steady(figures, name, exporter)
            now = _trickle(figures, f"trickle.{name}", exporter, upstream, now, series)
        lags.append(exporter.ask("state")["lag"])
    figures.notes(f"poll.{name}.cpu", [each["cpu"] for each in polls])
    figures.notes(f"poll.{name}.wall", [each["wall"] for each in polls])
    for measure in ("cpu", "wall"):
        if sends:
            figures.notes(f"send.{name}.{measure}", [each[measure] for each in sends])
    figures.notes(f"lag.{name}.p99", [lag["p99"] / 1000 for lag in lags])
    figures.note(f"lag.{name}.max", max(lag["max"] for lag in lags) / 1000)


def _steady(figures: Figures, name: str, exporter: Child) -> None:
    """The same window again, in which 20,000 rows and those from before stand as they stood; and
    exports of the same.
    """
    exporter.ask("poll")
    if name.endswith("otlp"):
        sends = [exporter.ask("send") for _ in range(figures.times + 1)]
        figures.notes(f"still.{name}.cpu", [each["cpu"] for each in sends[1:]])
    steady = [exporter.ask("poll") for _ in range(figures.times)]
    figures.notes(f"steady.{name}.cpu", [each["cpu"] for each in steady])
    figures.notes(f"steady.{name}.wall", [each["wall"] for each in steady])


def _trickle(
    figures: Figures, name: str, exporter: Child, upstream: Upstream, now: int, series: int
) -> int:
    """Minutes in which 100 attribute sets used something. The minute after them."""
    polls = []
    for _ in range(figures.times):
        upstream.stretch(now, 1, 100, sets(series))
        exporter.ask("ahead", seconds=60)
        now += 60
        polls.append(exporter.ask("poll"))
    figures.notes(f"{name}.cpu", [each["cpu"] for each in polls])
    return now


def history(figures: Figures, series: int = 10_000, hours: int = 90 * 24) -> None:
    """The same minutes without and with 90 days of hours in the store."""
    with openai() as upstream:
        now = minute()
        upstream.stretch(now - 170 * 60, 170, -(-sets(series) // 170), sets(series))
        with subject(upstream, {"usage.start": "170m"}) as (exporter, _):
            exporter.ask("poll")
            now = _trickle(figures, "history.young", exporter, upstream, now, series)
            figures.note("history.rows", exporter.ask("age", hours=hours)["rows"])
            _trickle(figures, "history.old", exporter, upstream, now, series)


def day(figures: Figures) -> None:
    """The first poll of a whole day in minutes: 1,440 buckets of 100 rows."""
    with openai() as upstream:
        now = minute()
        upstream.stretch(now - 1439 * 60, 1440, 100, sets(max(figures.sizes)))
        with subject(upstream, {"usage.start": "24h", "usage.settle": "24h"}) as (exporter, _):
            poll = exporter.ask("poll")
            state = exporter.ask("state")
    figures.note("day.cpu", poll["cpu"])
    figures.note("day.wall", poll["wall"])
    figures.note("day.lag.max", state["lag"]["max"] / 1000)
    figures.note("day.peak", state["peak"])


def churn(figures: Figures, share: float = 0.12, many: int = 10_000, hours: int = 24) -> None:
    """`hours` simulated hours in which attribute sets come and go, at `max_series` of them: three
    instruments are full.

    Each half hour a twentieth of those that live is used; in the day `share` of them is replaced
    for ever. Three days went before, so that as much is read again at the beginning as at the end.
    """
    with openai() as upstream:
        now = minute()
        rows = many // 600
        upstream.stretch(now - 3 * DAY, 3 * DAY // 60 - 30, rows, many)
        upstream.stretch(now - 1800, 30, -(-many // 30), many)
        with subject(upstream, {"usage.start": "3d", "attributes.max_series": many}) as (
            exporter,
            _,
        ):
            for half in range(WARM + hours * 2):
                if half == WARM:
                    before = exporter.ask("state")
                upstream.stretch(now, 30, rows, many, first=int(half * many * share / hours / 2))
                exporter.ask("ahead", seconds=1800)
                now += 1800
                exporter.ask("poll")
            state = exporter.ask("state")
    name = "churn"
    figures.note(f"{name}.before", before["rss"])
    figures.note(f"{name}.after", state["rss"])
    figures.note(f"{name}.series.before", before["series"])
    figures.note(f"{name}.series.after", state["series"])
    figures.note(f"{name}.growth", state["rss"] / before["rss"] - 1)


def start(figures: Figures) -> None:
    """`--help`, and the time from the start of the command until a scrape shows the first counter."""
    used = []
    for _ in range(figures.times):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "otel_openai_usage", "--help"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    figures.notes("help.cpu", used)
    from tests.real.installed import KEY, Exporter, Simulator, Surroundings
    from tests.real.processes import get

    with tempfile.TemporaryDirectory() as folder:
        surroundings = Surroundings(Path(folder))
        simulator = Simulator(surroundings)
        try:
            began = time.perf_counter()
            exporter = Exporter(
                surroundings,
                [],
                {"OPENAI_ADMIN_KEY": KEY, "OPENAI_BASE_URL": simulator.base_url},
                "/healthz",
            )
            try:
                _until(lambda: "openai_api_tokens_total{" in get(f"{exporter.url}/metrics")[1])
                figures.note("start.first", time.perf_counter() - began)
            finally:
                exporter.process.stop()
        finally:
            simulator.process.stop()


def _until(done: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise RuntimeError(f"not done after {seconds:g} s")
        time.sleep(0.02)
