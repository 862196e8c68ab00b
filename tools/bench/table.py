"""Figures to a table in Markdown, and into docs/performance.md between its markers."""

import platform
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

Found = Mapping[str, float]
BEGIN = "<!-- bench:begin -->"
END = "<!-- bench:end -->"
_PACKAGES = (
    "opentelemetry-sdk",
    "opentelemetry-exporter-prometheus",
    "prometheus_client",
    "aiohttp",
    "msgspec",
    "grpcio",
    "protobuf",
)


def seconds(value: float | None) -> str:
    """A duration to three digits."""
    if value is None:
        return "–"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.3g} ms"


def size(value: float | None) -> str:
    """Bytes as MB."""
    return "–" if value is None else f"{value / 1e6:.3g} MB"


def times(slow: float | None, quick: float | None) -> float | None:
    """How many times quicker."""
    return slow / quick if slow and quick else None


def fold(value: float | None) -> str:
    """How many times."""
    return "–" if value is None else f"{value:.0f}×"


def speed() -> float:
    """CPU seconds that ten million additions take in Python, the best of three: virtual machines
    are not equally quick every day.
    """
    taken = []
    for _ in range(3):
        began = time.process_time()
        total = 0
        for number in range(10_000_000):
            total += number
        taken.append(time.process_time() - began)
    return min(taken)


def machine() -> str:
    """Where it was measured."""
    cpu = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    cores = subprocess.run(["nproc"], capture_output=True, text=True, check=True).stdout.strip()
    memory = int(re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())[1]) / 2**20  # type: ignore[index]
    load = Path("/proc/loadavg").read_text().split()[0]
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}: {cores} cores ({cpu[1] if cpu else platform.machine()}), {memory:.0f} GiB, {platform.system()},"
        f" CPython {platform.python_version()}; {packages}. Load average at the end: {load}."
        f" Ten million additions in Python took {speed():.2f} s of CPU then."
    )


def _scrapes(found: Found, sizes: Sequence[int]) -> list[str]:
    lines = [
        "| scrape | series | this exporter | stock Python exporter | Go promhttp | against Go | CPU: this | stock | less |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for form in ("identity", "gzip"):
        for series in sizes:
            wall = {
                who: found.get(f"scrape.{form}.{who}.{series}.wall")
                for who in ("ours", "stock", "go")
            }
            cpu = {who: found.get(f"scrape.{form}.{who}.{series}.cpu") for who in ("ours", "stock")}
            against = times(wall["go"], wall["ours"])
            less = times(cpu["stock"], cpu["ours"])
            cells = [
                *map(seconds, wall.values()),
                fold(against),
                *map(seconds, cpu.values()),
                fold(less),
            ]
            lines.append(f"| {form} | {series:,} | {' | '.join(cells)} |")
    return lines


def _growth(found: Found, sizes: Sequence[int]) -> list[str]:
    rows: list[tuple[str, str, Callable[[float | None], str]]] = [
        (
            "poll that changes a fifth as many rows, shown and rendered: CPU",
            "poll.{}.otlp.cpu",
            seconds,
        ),
        ("… wall", "poll.{}.otlp.wall", seconds),
        ("OTLP export to a Collector: CPU", "send.{}.otlp.cpu", seconds),
        ("… wall", "send.{}.otlp.wall", seconds),
        ("… again, when nothing moved: CPU", "still.{}.otlp.cpu", seconds),
        ("poll that changes 100 rows: CPU", "trickle.{}.prometheus.cpu", seconds),
        ("poll with nothing new: CPU", "steady.{}.prometheus.cpu", seconds),
        ("… wall", "steady.{}.prometheus.wall", seconds),
        ("resident memory, Prometheus on", "rss.{}.prometheus", size),
        ("… at its peak", "peak.{}.prometheus", size),
        ("resident memory, Prometheus and OTLP on", "rss.{}.otlp", size),
        ("… at its peak", "peak.{}.otlp", size),
        ("resident memory of the stock exporter", "rss.stock.{}", size),
        ("resident memory of Go's promhttp", "rss.go.{}", size),
        ("event loop late while polling and exporting, p99", "lag.{}.otlp.p99", seconds),
        ("… at most", "lag.{}.otlp.max", seconds),
    ]
    lines = [
        "| at so many series | " + " | ".join(f"{series:,}" for series in sizes) + " |",
        "| --- " * (len(sizes) + 1) + "|",
    ]
    for title, name, form in rows:
        lines.append(
            f"| {title} | "
            + " | ".join(form(found.get(name.format(series))) for series in sizes)
            + " |"
        )
    return lines


def _pair(found: Found, name: str) -> str:
    return f"{size(found.get(f'{name}.before'))} · {size(found.get(f'{name}.after'))}"


def _single(found: Found) -> list[str]:
    young, old = (seconds(found.get(f"history.{age}.cpu")) for age in ("young", "old"))
    past = f"{found.get('history.rows', 0):,.0f} rows of history"
    rows: list[tuple[str, str]] = [
        (
            f"poll that changes 100 rows of 10,000 series: CPU without, and with {past}",
            f"{young} · {old}",
        ),
        (
            "first poll of 1,440 buckets × 100 rows: CPU · wall",
            f"{seconds(found.get('day.cpu'))} · {seconds(found.get('day.wall'))}",
        ),
        (
            "… event loop late at most · peak memory",
            f"{seconds(found.get('day.lag.max'))} · {size(found.get('day.peak'))}",
        ),
        (
            "resident memory after the start, nothing polled",
            size(found.get("rss.start.1000.prometheus")),
        ),
        (
            "… before and after a day in which 12 % of 10,000 attribute sets are replaced",
            _pair(found, "churn"),
        ),
        ("`--help`: CPU", seconds(found.get("help.cpu"))),
        (
            "start of the command to the first counter in a scrape",
            seconds(found.get("start.first")),
        ),
    ]
    return ["| once | |", "| --- | --- |", *(f"| {title} | {value} |" for title, value in rows)]


def bars(found: Found, series: int) -> list[tuple[str, str, str, bool | None]]:
    """What was promised, what was met, and whether it holds; None where it was not measured."""
    get = found.get
    poll = sum(get(f"{what}.{series}.otlp.cpu") or 0 for what in ("poll", "send")) or None
    identity, gzip, cpu = (
        times(
            get(f"scrape.{form}.{other}.{series}.{what}"),
            get(f"scrape.{form}.ours.{series}.{what}"),
        )
        for form, other, what in (
            ("identity", "go", "wall"),
            ("gzip", "go", "wall"),
            ("identity", "stock", "cpu"),
        )
    )
    steady = get(f"steady.{series}.prometheus.cpu")
    share = steady / poll if steady and poll else None
    late = [get(f"lag.{series}.otlp.{what}") for what in ("p99", "max")]

    def least(value: float | None, bar: float) -> tuple[str, bool | None]:
        return fold(value), None if value is None else value >= bar

    def most(
        value: float | None, bar: float, form: Callable[[float | None], str]
    ) -> tuple[str, bool | None]:
        return form(value), None if value is None else value < bar

    def percent(value: float | None) -> str:
        return "–" if value is None else f"{value * 100:.1f} %"

    return [
        ("scrape, identity, against Go promhttp", "15×", *least(identity, 15)),
        ("scrape, gzip, against Go promhttp", "100×", *least(gzip, 100)),
        ("scrape CPU against the stock Python exporter", "100×", *least(cpu, 100)),
        (
            "CPU per poll of 20,000 changed rows, rendering and one OTLP export included",
            "3.5 s",
            *most(poll, 3.5, seconds),
        ),
        ("poll with nothing new, of that", "2 %", *most(share, 0.02, percent)),
        ("RSS with Prometheus on", "450 MB", *most(get(f"rss.{series}.prometheus"), 450e6, size)),
        ("RSS with OTLP, too", "550 MB", *most(get(f"rss.{series}.otlp"), 550e6, size)),
        (
            "RSS growth over 24 simulated hours of churn (12 % replaced)",
            "5 %",
            *most(get("churn.growth"), 0.05, percent),
        ),
        ("event loop late, p99", "50 ms", *most(late[0], 0.05, seconds)),
        ("event loop late, at most", "150 ms", *most(late[1], 0.15, seconds)),
        (
            "RSS at 10,000 series, Prometheus and OTLP",
            "130 MB",
            *most(get("rss.10000.otlp"), 130e6, size),
        ),
        ("`--help`: CPU", "0.3 s", *most(get("help.cpu"), 0.3, seconds)),
    ]


def table(found: Found, sizes: Sequence[int]) -> str:
    """Everything, in Markdown."""
    said = {None: "–", True: "yes", False: "no"}
    held = [
        f"| {what} | {bar} | {value} | {said[ok]} |"
        for what, bar, value, ok in bars(found, max(sizes))
    ]
    return "\n".join(
        [
            machine(),
            "",
            f"| bar, at {max(sizes):,} series | | measured | holds |",
            "| --- | --- | --- | --- |",
            *held,
            "",
            *_scrapes(found, sizes),
            "",
            *_growth(found, sizes),
            "",
            *_single(found),
        ]
    )


def write(page: Path, text: str) -> None:
    """Put the table between the markers."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
