"""Whatever OpenAI answers, the exporter lives, counts nothing of a bad answer, and reads the rest."""

import asyncio
import gc
import logging
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from otel_openai_usage.errors import Bug
from otel_openai_usage.testing import Harness
from tests.fuzz.answers import Fuzzer, good

BUDGET = 32 * 2**20
"""api.max_bytes of the exporter under test."""
SLACK = 64 * 2**20
"""Bytes that its series, names and the libraries may grow by beside that."""


class Server:
    """An organization that is fuzzed and one that is sound, behind one address."""

    def __init__(self, fuzzer: Fuzzer) -> None:
        self.fuzzer = fuzzer
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            url = urlsplit(head.split()[1])
            writer.write(self._answer(url.path, parse_qs(url.query)))
            await writer.drain()
        writer.close()

    def _answer(self, path: str, query: Mapping[str, Sequence[str]]) -> bytes:
        if path.startswith("/odd/"):
            answer = self.fuzzer.answer(path, query)
            raw = answer.raw
            answer.raw = raw[:2000]  # to look at; the test's own memory must stay small
            return raw
        import json

        body = json.dumps(good(path, query, "sound")).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Server"]:
        server = await asyncio.start_server(self.handle, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()


def settings(server: Server, path: Path) -> dict[str, Any]:
    """Both organizations; everything that OpenAI is asked for is asked for."""
    return {
        "organizations": [
            {"name": name, "admin_key": f"sk-admin-{name}", "base_url": f"{server.url}/{name}/v1"}
            for name in ("odd", "sound")
        ],
        "api": {
            "requests_per_minute": 10**9,
            "retries": 0,
            "timeout": "10s",
            "max_bytes": BUDGET,
        },
        "usage": {"endpoints": ["completions"], "settle": "10m", "reconcile_interval": "1s"},
        "prometheus": {"enabled": False},
        "prices": {"enabled": False},
        "state": {"path": str(path / "state.db")},
    }


def rss() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def fuzz(seed: int, answers: int, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Poll until so many answers were given; look at what came of them after every poll."""
    caplog.set_level(logging.WARNING)
    async with Server(Fuzzer(seed)).serving() as server:
        harness = Harness(settings(server, path))
        await harness.start()
        before = rss()
        seen = 0
        while len(server.fuzzer.made) < answers:
            began = time.time()
            await harness.poll()
            exporter = harness._running()
            for loop in exporter.loops:
                assert not isinstance(loop.error, Bug), (loop.source, loop.error)
                if loop.organization == "sound":
                    assert loop.error is None, (loop.source, loop.error)
            for source_state in exporter.recorder.source_states:
                if source_state.organization == "sound":
                    assert source_state.status.up
                    assert source_state.status.last_success is not None
                    assert source_state.status.last_success >= int(began)
            if len(server.fuzzer.made) - seen > 500:
                seen = len(server.fuzzer.made)
                gc.collect()
                assert rss() - before < BUDGET + SLACK
        counted = {
            value
            for source_state in exporter.recorder.source_states
            for dims in source_state.series
            for value in dims
            if value is not None
        }
        bad = {answer.mark for answer in server.fuzzer.made if answer.is_bad}
        assert len(bad) > answers // 10
        assert {answer.mark for answer in server.fuzzer.made} & counted  # the rest is counted
        wrongly = [answer for answer in server.fuzzer.made if answer.mark in bad & counted]
        assert not wrongly, repr([answer.raw for answer in wrongly])
        page = harness.page().decode()
        assert 'openai_api_up{organization="sound",source="usage/completions"} 1' in page
        await harness.close()
    assert len(caplog.records) < 200  # a flood would be one for each answer


async def test_some_odd_answers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Four hundred of them."""
    await fuzz(1, 400, tmp_path, caplog)


@pytest.mark.long
async def test_ten_thousand_odd_answers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Ten thousand of them."""
    await fuzz(2, 10_000, tmp_path, caplog)
