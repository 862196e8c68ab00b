"""The processes of the benchmark: each case runs in its own, and is asked over its standard input
and output.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from tools.bench.series import exposed

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent


class Child:
    """A process that says its URL first, and ends when its standard input does."""

    def __init__(self, command: list[str], **env: str) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **env},
        )
        self.stats = psutil.Process(self._process.pid)

    def line(self) -> str:
        """The next line that it says; RuntimeError if it ended."""
        if not self._process.stdout or not (text := self._process.stdout.readline()):
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")
        return text.strip()

    def write(self, text: str) -> None:
        """Tell it something."""
        if self._process.stdin:
            self._process.stdin.write(text)
            self._process.stdin.flush()

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Have a Subject do something; what it says of it."""
        self.write(json.dumps({"do": do, **arguments}) + "\n")
        answer: dict[str, Any] = json.loads(self.line())
        return answer

    def cpu(self) -> float:
        """CPU seconds it has used so far."""
        times = self.stats.cpu_times()
        return float(times.user + times.system)

    def stop(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self._process.communicate(timeout=20)


def python(module: str, *arguments: str) -> list[str]:
    """The command line of one of our modules."""
    return [sys.executable, "-m", f"tools.bench.{module}", *arguments]


@contextlib.contextmanager
def running(command: list[str], **env: str) -> Iterator[Child]:
    """A Child, and its end."""
    child = Child(command, **env)
    try:
        yield child
    finally:
        child.stop()


class Upstream:
    """The stand-in for OpenAI, and what is used in it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def stretch(self, start: int, minutes: int, rows: int, sets: int, first: int = 0) -> None:
        """Have this used, too (see upstream.Stretch)."""
        body = json.dumps(
            {"start": start, "minutes": minutes, "rows": rows, "sets": sets, "first": first}
        ).encode()
        urllib.request.urlopen(
            urllib.request.Request(f"{self.url}/stretch", data=body, method="POST"), timeout=60
        ).close()


@contextlib.contextmanager
def openai() -> Iterator[Upstream]:
    """A running Upstream."""
    with running(python("upstream")) as child:
        yield Upstream(child.line())


@contextlib.contextmanager
def subject(
    upstream: Upstream, settings: Mapping[str, object], otlp: str | None = None
) -> Iterator[tuple[Child, str]]:
    """The exporter under measurement, and its URL."""
    asked = {"upstream": upstream.url, "otlp": otlp, "settings": settings}
    with running(python("subject", json.dumps(asked))) as child:
        yield child, json.loads(child.line())["url"]


@contextlib.contextmanager
def collector(folder: Path) -> Iterator[str | None]:
    """The endpoint of a real Collector with its default limits; None where there is none (`make
    servers` builds it).
    """
    from tests.real.processes import Process, free_port

    where = subprocess.run(
        [ROOT / "tools" / "install-real-servers.sh", "--where"],
        capture_output=True,
        text=True,
        check=True,
    )
    program = shutil.which(where.stdout.strip())
    if program is None:
        yield None
        return
    endpoint = f"127.0.0.1:{free_port()}"
    process = Process(
        [program, "--config", HERE / "collector.yaml"],
        folder / "otelcol.log",
        env={**os.environ, "BENCH_ENDPOINT": endpoint},
    )
    process.until(lambda: "Everything is ready" in process.output, "the Collector")
    try:
        yield f"http://{endpoint}"
    finally:
        process.stop()


def promhttp(folder: Path) -> Path | None:
    """Go's promhttp over our series, built; None where there is no Go."""
    if shutil.which("go") is None:
        return None
    program = folder / "promhttp"
    subprocess.run(["go", "build", "-o", program, "."], cwd=HERE / "promhttp", check=True)
    return program


def feed(child: Child, sets: int) -> None:
    """Tell the Go program what to serve."""
    for name, labels, value in exposed(sets):
        child.write(
            f"{json.dumps({'name': f'{name.replace(chr(46), chr(95))}_total', 'labels': labels, 'value': value})}\n"
        )
    child.write("\n")


def scrape(url: str, *, gzip: bool) -> tuple[float, int]:
    """Seconds and bytes of one scrape, read as fast as the socket gives it and not looked at."""
    host = urlsplit(url).hostname
    port = urlsplit(url).port
    buffer = bytearray(2**20)
    encoding = "gzip" if gzip else "identity"
    request = f"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nAccept-Encoding: {encoding}\r\n\r\n"
    began = time.perf_counter()
    with socket.create_connection((host, port or 80), timeout=60) as connection:
        connection.sendall(request.encode())
        size = 0
        while count := connection.recv_into(buffer):
            size += count
    return time.perf_counter() - began, size
