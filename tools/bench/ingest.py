"""`python -m tools.bench.ingest [--quick] [--dry]`: events a second that are stored before they are
answered, and what the helper costs.

The exporter runs as the installed command, in a process of its own; this process is the load, on
the same cores. Writes its table into docs/metering.md.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import psutil
import yaml

from otel_openai_metering import Meter
from tools.bench.processes import ROOT
from tools.bench.table import machine, write

PAGE = ROOT / "docs" / "metering.md"
_EVENT = (
    '{{"specversion":"1.0","id":"chatcmpl-{run}-{number}","source":"bench","type":"openai","subject":"customer-{customer}",'
    '"time":"2026-11-22T01:00:00Z","data":{{"prompt_tokens":13,"completion_tokens":7,"total_tokens":20,"model":"gpt-4o"}}}}'
)


@dataclass(slots=True)
class Load:
    """Events a second, microseconds of the exporter's CPU for each, and seconds until each answer."""

    rate: float
    cpu: float
    late: list[float] = field(repr=False)

    def within(self, part: float) -> float:
        """So many milliseconds did that part of the requests take at most."""
        return sorted(self.late)[int(len(self.late) * part)] * 1000


class Exporter:
    """The installed command, with the events listener only."""

    def __init__(self, folder: Path, port: int) -> None:
        sections: dict[str, object] = {
            name: {"enabled": False} for name in ("usage", "costs", "limits", "names", "prices")
        }
        sections |= {"events": {"enabled": True, "port": port}, "prometheus": {"port": port + 1}}
        sections |= {"state": {"path": str(folder / "state.db")}}
        (folder / "config.yaml").write_text(yaml.safe_dump(sections))
        command = Path(sys.executable).with_name("otel-openai-usage")
        self.port = port
        self._state = folder / "state.db"
        self._process = psutil.Popen(
            [command, "run", "-c", folder / "config.yaml", "--log-level", "error"]
        )

    async def listening(self) -> None:
        """Wait until it listens."""
        for _ in range(200):
            try:
                (await asyncio.open_connection("localhost", self.port))[1].close()
            except OSError:
                await asyncio.sleep(0.1)
            else:
                return
        raise RuntimeError("the exporter does not listen")

    def spent(self) -> float:
        """Seconds of CPU so far."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    @property
    def resident(self) -> int:
        """Bytes of memory that are its own now."""
        return int(self._process.memory_info().rss)

    @property
    def stored(self) -> int:
        """Bytes of its state, without what waits to be written back."""
        return self._state.stat().st_size

    def end(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait(20)


def requests(host: str, batch: int, run: str) -> Iterator[bytes]:
    """Requests with events that nobody has seen, for ever."""
    number = 0
    kind = f"application/cloudevents{'' if batch == 1 else '-batch'}+json"
    while True:
        events = [
            _EVENT.format(run=run, number=number + place, customer=(number + place) % 200)
            for place in range(batch)
        ]
        number += batch
        body = (events[0] if batch == 1 else f"[{','.join(events)}]").encode()
        head = f"POST /api/v1/events HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        yield head.encode() + body


async def load(
    exporter: Exporter,
    connections: int,
    batch: int,
    events: int,
    *,
    rate: float = 0.0,
    run: str = "",
) -> Load:
    """Send that many events; `rate` a second, or as quickly as it goes. Every answer must be 204."""
    source = requests(f"localhost:{exporter.port}", batch, run or os.urandom(6).hex())
    late = []
    left = events
    began = time.perf_counter()
    spent = exporter.spent()

    async def one(place: int) -> None:
        nonlocal left
        reader, writer = await asyncio.open_connection("localhost", exporter.port)
        due = began + place * batch / rate if rate else began
        while left > 0:
            left -= batch
            if rate:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                due += connections * batch / rate
            before = time.perf_counter()
            writer.write(next(source))
            answer = await reader.readuntil(b"\r\n\r\n")
            late.append(time.perf_counter() - before)
            if not answer.startswith(b"HTTP/1.1 204"):
                raise RuntimeError(answer.decode())
        writer.close()

    await asyncio.gather(*(one(place) for place in range(connections)))
    sent = len(late) * batch
    return Load(sent / (time.perf_counter() - began), (exporter.spent() - spent) / sent * 1e6, late)


async def measure(exporter: Exporter, many: int) -> list[tuple[str, str, str, bool | None]]:
    """What was promised, what was met, whether it holds."""
    await exporter.listening()
    await load(exporter, 8, 100, 5_000)
    single = await load(exporter, 32, 1, many // 50)
    half = await load(exporter, 32, 1, many // 100, rate=1_000)
    empty = await load(exporter, 8, 100, many // 10, run="first")
    before = exporter.resident
    stored = exporter.stored
    await load(exporter, 8, 100, many)
    grown = exporter.resident / before - 1
    stored = exporter.stored - stored
    full = await load(exporter, 8, 100, many // 10)
    known = await load(exporter, 8, 100, many // 10, run="first")
    slower = empty.rate / min(full.rate, known.rate)
    dearer = max(full.cpu, known.cpu) / empty.cpu
    return [
        ("single events, 32 connections", "2,000/s", f"{single.rate:,.0f}/s", single.rate >= 2_000),
        ("… CPU of the exporter for each", "", f"{single.cpu:.0f} µs", None),
        ("batches of 100, 8 connections", "20,000/s", f"{empty.rate:,.0f}/s", empty.rate >= 20_000),
        ("… CPU of the exporter for each event", "", f"{empty.cpu:.0f} µs", None),
        ("single events at 1,000/s: p50", "", f"{half.within(0.5):.1f} ms", None),
        ("… p99", "50 ms", f"{half.within(0.99):.1f} ms", half.within(0.99) < 50),
        (
            f"memory after {many:,} more events",
            "flat",
            f"{before / 1e6:.0f} MB {grown:+.0%}",
            grown < 0.1,
        ),
        ("… the state on the disk", "", f"{stored / 1e6:+.0f} MB", None),
        (
            f"batches with {many:,} identities known: new events",
            "",
            f"{full.rate:,.0f}/s, {full.cpu:.0f} µs",
            None,
        ),
        ("… known events", "", f"{known.rate:,.0f}/s, {known.cpu:.0f} µs", None),
        ("… the slower of the two against an empty store", "2×", f"{slower:.1f}×", slower <= 2),
        ("… the dearer of the two, in CPU", "2×", f"{dearer:.1f}×", dearer <= 2),
    ]


def helper() -> list[tuple[str, str, str, bool | None]]:
    """What the helper adds to a call, and to a chunk of a stream."""
    meter = Meter("http://127.0.0.1:1", spool=False, queue=10**6, env={})
    chunks = 20_000
    meter._run = lambda: None  # type: ignore[method-assign]  # the thread would take its share of the clock
    usage = SimpleNamespace(prompt_tokens=13, completion_tokens=7, total_tokens=20)
    response = SimpleNamespace(id="chatcmpl-1", created=1, model="gpt-4o", usage=usage)
    taken = []
    for _ in range(5_000):
        before = time.perf_counter()
        meter.record(response, "customer-1", team="search")
        taken.append(time.perf_counter() - before)
    delta = SimpleNamespace(content=" word")
    chunk = SimpleNamespace(
        id="c", created=1, model="m", usage=None, choices=[SimpleNamespace(delta=delta)]
    )
    times = []
    for stream in (iter([chunk] * chunks), meter.stream(iter([chunk] * chunks), "customer-1")):
        before = time.perf_counter()
        for _ in stream:
            pass
        times.append((time.perf_counter() - before) / chunks)
    call = sorted(taken)[len(taken) // 2] * 1e6
    piece = (times[1] - times[0]) * 1e6
    return [
        ("the helper, added to a call", "50 µs", f"{call:.1f} µs", call < 50),
        ("… to a streamed chunk", "5 µs", f"{piece:.2f} µs", piece < 5),
    ]


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.ingest", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of the events")
    parser.add_argument("--dry", action="store_true", help="leave the page as it is")
    asked = parser.parse_args()
    found = helper()
    with tempfile.TemporaryDirectory() as folder:
        exporter = Exporter(Path(folder), 18_951)
        try:
            found = asyncio.run(measure(exporter, 200_000 if asked.quick else 1_000_000)) + found
        finally:
            exporter.end()
    said = {None: "", True: "yes", False: "no"}
    lines = [f"| {what} | {bar} | {value} | {said[holds]} |" for what, bar, value, holds in found]
    text = "\n".join(
        [machine(), "", "| | bar | measured | holds |", "| --- | --- | --- | --- |", *lines]
    )
    print(text)
    if not (asked.quick or asked.dry):
        write(PAGE, text)


if __name__ == "__main__":
    main()
