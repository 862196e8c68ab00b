"""The exporter under measurement, in a process of its own: wired by app.wire, polled on command.

Reads one JSON command a line from standard input and answers each with one line. Its clock is the
system's plus what it is told to add, so that a day passes in minutes; all else is real: HTTP,
SQLite, the listener, OTLP.
"""

import asyncio
import contextlib
import json
import os
import resource
import sqlite3
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import psutil

from otel_openai_usage.composition import app
from otel_openai_usage.config import load
from otel_openai_usage.domain.model import Names
from otel_openai_usage.engine.recorder import Clock
from otel_openai_usage.memory import tune_allocator
from tools.bench.series import Titles

BEAT = 0.005


@dataclass(slots=True)
class Heart:
    """Beats on the event loop, and remembers how late it was."""

    late: list[float] = field(default_factory=list)

    async def forever(self) -> None:
        """Beat."""
        while True:
            due = time.perf_counter() + BEAT
            await asyncio.sleep(BEAT)
            self.late.append(max(0.0, time.perf_counter() - due))

    def told(self) -> dict[str, float]:
        """Milliseconds late since the last time it was asked."""
        late = sorted(self.late)
        self.late = []
        if not late:
            return {"p50": 0.0, "p99": 0.0, "max": 0.0, "beats": 0}
        return {
            "p50": late[len(late) // 2] * 1000,
            "p99": late[int(len(late) * 0.99)] * 1000,
            "max": late[-1] * 1000,
            "beats": len(late),
        }


class Subject:
    """Does what it is told."""

    def __init__(self, exporter: app.Exporter, heart: Heart, ahead: list[float], path: str) -> None:
        self._exporter = exporter
        self._heart = heart
        self._ahead = ahead
        self._path = path
        self._process = psutil.Process()

    async def poll(self, **_: Any) -> dict[str, Any]:
        """One poll of everything, shown and rendered. Seconds."""
        wall = time.perf_counter()
        cpu = time.process_time()
        for loop in self._exporter.loops:
            if not await loop.once():
                raise RuntimeError(f"the poll did not succeed: {loop.error}")
        polled = time.perf_counter()
        polled_cpu = time.process_time()
        await self._exporter.publish()
        return {
            "wall": time.perf_counter() - wall,
            "cpu": time.process_time() - cpu,
            "read": polled - wall,
            "read_cpu": polled_cpu - cpu,
            "version": self._exporter.board.current().version,
        }

    async def send(self, **_: Any) -> dict[str, Any]:
        """One OTLP export. Seconds."""
        wall = time.perf_counter()
        cpu = time.process_time()
        if self._exporter.sender is None or not await asyncio.to_thread(
            self._exporter.sender.flush
        ):
            raise RuntimeError("the export did not arrive")
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}

    async def ahead(self, *, seconds: float, **_: Any) -> dict[str, Any]:
        """Let time pass."""
        self._ahead[0] += seconds
        return {"now": time.time() + self._ahead[0]}

    async def age(self, *, hours: int, **_: Any) -> dict[str, Any]:
        """Have a past: so many more hours of usage of every attribute set in the store. How many
        rows they are.
        """
        with contextlib.closing(sqlite3.connect(self._path)) as db, db:
            return {"rows": db.execute(_PAST, {"hours": hours}).rowcount}

    async def state(self, **_: Any) -> dict[str, Any]:
        """Memory in bytes, CPU seconds so far, series shown, lateness of the event loop since the
        last time.
        """
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        cpu = self._process.cpu_times()
        return {
            "rss": self._process.memory_info().rss,
            "peak": peak * 1024,
            "cpu": cpu.user + cpu.system,
            "series": sum(len(points) for points in self._exporter.board.current().points.values()),
            "lag": self._heart.told(),
        }


_PAST = """
INSERT INTO readings (source_id, width, start, dims, input, output, input_cached, input_audio, output_audio, input_cache_write, requests)
WITH RECURSIVE past(hour) AS (SELECT min(start) / 3600 - 24 FROM readings UNION ALL SELECT hour - 1 FROM past LIMIT :hours)
SELECT source_id, 3600, hour * 3600, dims.id, 9000, 3000, 2000, 900, 400, 600, 7 FROM past, dims
"""


def settings(upstream: str, otlp: str | None, extra: dict[str, object]) -> dict[str, object]:
    """Defaults, but for completions only and names that need no asking."""
    return {
        "usage.endpoints": ["completions"],
        "costs.enabled": False,
        "limits.enabled": False,
        "names.enabled": False,
        "api.requests_per_minute": 100_000,
        "prometheus.port": 0,
        "prometheus.host": "127.0.0.1",
        "otlp.enabled": otlp is not None,
        "otlp.interval": "1h",
        **({"otlp.endpoint": otlp} if otlp else {}),
        **extra,
    }


async def main() -> None:
    """Run until standard input ends."""
    tune_allocator()
    asked = json.loads(sys.argv[1])
    ahead = [0.0]
    heart = Heart()
    with tempfile.TemporaryDirectory() as folder:
        env = {"OPENAI_ADMIN_KEY": "sk-admin-bench", "OPENAI_BASE_URL": f"{asked['upstream']}/v1"}
        overrides = settings(asked["upstream"], asked["otlp"], asked["settings"])
        loaded = load(None, env, {"state.path": f"{folder}/state.db", **overrides})
        clock = Clock(lambda: time.time() + ahead[0], lambda: time.monotonic() + ahead[0])
        async with AsyncExitStack() as stack:
            exporter = await app.wire(loaded, stack, clock=clock, env=env)
            snapshot_builder = exporter.recorder.snapshot_builder
            names = Names(Titles("project"), Titles("key"), Titles("user"))
            await exporter.recorder.do(
                lambda: snapshot_builder.apply_names("default", names, clock.now())
            )
            beating = asyncio.create_task(heart.forever())
            subject = Subject(exporter, heart, ahead, f"{folder}/state.db")
            _say({"url": exporter.server.url if exporter.server else None})
            while line := await asyncio.to_thread(sys.stdin.readline):
                command = json.loads(line)
                _say(await getattr(subject, command.pop("do"))(**command))
            beating.cancel()


def _say(answer: dict[str, Any]) -> None:
    os.write(1, f"{json.dumps(answer)}\n".encode())


if __name__ == "__main__":
    asyncio.run(main())
