"""The Prometheus listener, over real HTTP."""

import asyncio
import gzip
import io
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import aiohttp
import pytest
from opentelemetry.sdk.resources import Resource
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from otel_openai_usage import logs
from otel_openai_usage.domain.snapshot import Board, Snapshot
from otel_openai_usage.errors import ListenError
from otel_openai_usage.exporters.prometheus.reader import Format, PrometheusReader
from otel_openai_usage.exporters.self_metrics import SelfMetrics
from otel_openai_usage.http.limits import Limits
from otel_openai_usage.http.server import Server
from tests.exporters.boards import ORGANIZATION, board, snapshot

OPENMETRICS = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"


class RunningServer:
    """A running server, with its board and the metrics of its own health."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.board = board(ORGANIZATION)
        self.reader = PrometheusReader(self.board)
        self.self_metrics = SelfMetrics(
            self.board, Resource({"service.name": "test"}), [self.reader]
        )
        self.reasons: list[str] = []
        self.server = Server(
            self.reader,
            self.board,
            lambda: self.reasons,
            host="127.0.0.1",
            port=0,
            version="1.2.3",
            limits=limits,
        )


@pytest.fixture
async def running() -> AsyncIterator[RunningServer]:
    """Start a server."""
    made = RunningServer()
    await made.server.start()
    yield made
    await made.server.stop()
    made.self_metrics.shutdown()


@pytest.fixture
async def client(running: RunningServer) -> AsyncIterator[aiohttp.ClientSession]:
    """Return a client that does not decompress answers."""
    async with aiohttp.ClientSession(running.server.url, auto_decompress=False) as session:
        yield session


async def test_a_scrape_shows_the_board_and_our_health(client: aiohttp.ClientSession) -> None:
    """Text by default, with usage, health, process and target_info; Prometheus parses it."""
    async with client.get("/metrics", headers={"Accept-Encoding": "identity"}) as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (
            200,
            "text/plain; version=0.0.4; charset=utf-8",
        )
        text = await answer.text()
    families = {family.name: family for family in parse_text(text)}
    assert sum(sample.value for sample in families["openai_api_tokens"].samples) == 13_345_684
    assert families["target_info"].samples[0].labels == {"service_name": "test"}
    assert families["otel_openai_usage_build_info"].samples[0].value == 1
    assert families["process_resident_memory_bytes"].samples[0].value > 0


async def test_openmetrics_by_accept(client: aiohttp.ClientSession) -> None:
    """Prometheus' Accept gets OpenMetrics with one end, which Prometheus' own strict parser reads."""
    async with client.get(
        "/metrics", headers={"Accept": OPENMETRICS, "Accept-Encoding": "identity"}
    ) as answer:
        text = await answer.text()
        assert (
            answer.headers["Content-Type"]
            == "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
        )
    assert (text.count("# EOF"), text[-6:]) == (1, "# EOF\n")
    assert "openai_api_tokens" in {family.name for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call]


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Return the log, set up as by `run`."""
    stream = io.StringIO()
    root = logging.getLogger()
    handlers = list(root.handlers)
    level = root.level
    logs.setup("info", "text", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


async def test_an_invalid_request_leaves_no_traceback(
    running: RunningServer, logged: io.StringIO
) -> None:
    """An invalid request, or a head that is too long, gets a 400 and leaves no line in the log."""
    host, port = running.server.url.removeprefix("http://").split(":")
    for nonsense in (
        b"\x16\x03\x01\x00\xa5\x01\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\x00b\r\n\r\n",
        b"GET /" + b"a" * 20_000,
    ):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(nonsense)
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(
            (b"HTTP/1.1 400", b"HTTP/1.0 400")
        )
        writer.close()
    assert logged.getvalue() == ""


async def test_a_silent_connection_is_ended() -> None:
    """A connection without a whole head is closed; one that scraped or waits for an answer is not."""
    running = RunningServer(Limits(64, request=0.3, tick=0.1))

    def slowly() -> list[str]:
        time.sleep(1.2)
        return ["slow"]

    running.server._not_ready = slowly
    await running.server.start()
    host, port = running.server.url.removeprefix("http://").split(":")
    silent, slow, good, waits = [await asyncio.open_connection(host, int(port)) for _ in range(4)]
    waits[1].write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
    slow[1].write(b"GET /metrics HTTP/1.1\r\nX-slow: ")
    for _ in range(2):
        good[1].write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await asyncio.wait_for(good[0].readuntil(b"ok\n"), 5)).startswith(b"HTTP/1.1 200")
        assert (
            await asyncio.wait_for(silent[0].read(), 5)
            == await asyncio.wait_for(slow[0].read(), 5)
            == b""
        )
    assert (await asyncio.wait_for(waits[0].readuntil(b"slow\n"), 5)).startswith(b"HTTP/1.1 503")
    for _, writer in (silent, slow, good, waits):
        writer.close()
    await running.server.stop()
    running.self_metrics.shutdown()


async def test_a_scraper_that_goes_away_leaves_no_traceback(
    running: RunningServer,
    client: aiohttp.ClientSession,
    logged: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A scrape that timed out is not logged, and the next one is answered."""
    gone = threading.Event()
    page = running.reader.page

    def late(form: Format = "text", *, gzip: bool = False) -> Sequence[bytes]:
        assert gone.wait(5)
        return page(form, gzip=gzip)

    monkeypatch.setattr(running.reader, "page", late)
    _, writer = await asyncio.open_connection(
        "127.0.0.1", int(running.server.url.rpartition(":")[2])
    )
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    async with client.get("/healthz") as answer:  # the scrape is on its way
        assert answer.status == 200
    writer.transport.abort()
    async with client.get("/healthz") as answer:  # and its end was seen
        assert answer.status == 200
    gone.set()
    async with client.get("/metrics") as answer:
        assert answer.status == 200
    assert logged.getvalue() == ""


async def test_gzip_is_one_member(client: aiohttp.ClientSession) -> None:
    """A compressed scrape is complete after its first gzip member, and its length is right."""
    async with client.get("/metrics", headers={"Accept-Encoding": "gzip"}) as answer:
        raw = await answer.read()
        assert (answer.headers["Content-Encoding"], int(answer.headers["Content-Length"])) == (
            "gzip",
            len(raw),
        )
    async with aiohttp.request("GET", answer.url, headers={"Accept-Encoding": "gzip"}) as again:
        assert "otel_openai_usage_build_info" in await again.text()
    assert gzip.decompress(raw).decode().startswith("# HELP openai_api_tokens_total")


async def test_a_published_snapshot_is_seen_by_the_next_scrape(
    running: RunningServer, client: aiohttp.ClientSession
) -> None:
    """A scrape has the last published snapshot, whether it was rendered before or not."""
    for version, refreshed in ((2, True), (3, False)):
        running.board.publish(
            snapshot({"openai.api.images": [({"organization": "acme"}, version)]}, version)
        )
        if refreshed:
            running.reader.refresh()
        async with client.get("/metrics", headers={"Accept-Encoding": "identity"}) as answer:
            assert (
                f'openai_api_images_total{{organization="acme"}} {version}.0' in await answer.text()
            )


async def test_many_scrapes_at_once_are_all_whole(client: aiohttp.ClientSession) -> None:
    """Each of many concurrent scrapes gets a whole page."""

    async def scrape() -> int:
        async with client.get("/metrics", headers={"Accept-Encoding": "identity"}) as answer:
            return len(
                [line for line in (await answer.text()).splitlines() if line.startswith("openai_")]
            )

    assert set(await asyncio.gather(*(scrape() for _ in range(30)))) == {12}


async def test_head_has_no_body(client: aiohttp.ClientSession) -> None:
    """HEAD answers as GET does, without the body."""
    async with client.head("/metrics") as answer:
        assert (answer.status, await answer.read()) == (200, b"")
        assert int(answer.headers["Content-Length"]) > 1000


async def test_probes(running: RunningServer, client: aiohttp.ClientSession) -> None:
    """/healthz says ok; /readyz says ready, or 503 and every reason why not."""
    async with client.get("/healthz") as answer:
        assert (answer.status, await answer.text()) == (200, "ok\n")
    async with client.get("/readyz") as answer:
        assert (answer.status, await answer.text()) == (200, "ready\n")
    running.reasons = ["costs: not tried yet", "state: disk full"]
    async with client.get("/readyz") as answer:
        assert (answer.status, await answer.text()) == (
            503,
            "costs: not tried yet\nstate: disk full\n",
        )


async def test_the_page_for_people(running: RunningServer, client: aiohttp.ClientSession) -> None:
    """/ has links, version and sources, escapes what it shows, and fetches nothing."""
    running.board.publish(
        snapshot(
            {
                "openai.api.up": [
                    ({"organization": "<b>", "source": "costs"}, 1),
                    ({"organization": "<b>", "source": "names"}, 0),
                ],
                "openai.api.last_success": [
                    ({"organization": "<b>", "source": "costs"}, 1_763_700_000.0)
                ],
            }
        )
    )
    async with client.get("/") as answer:
        page = await answer.text()
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert 'href="/metrics"' in page
    assert "1.2.3" in page
    assert '<td>&lt;b&gt;<td>costs<td class="up">up<td>2025-11-21 04:40:00 UTC' in page
    assert '<td>&lt;b&gt;<td>names<td class="down">down<td>never' in page
    assert "<b>" not in page
    assert "http://" not in page


async def test_an_empty_page_before_the_first_poll(
    running: RunningServer, client: aiohttp.ClientSession
) -> None:
    """Before the first snapshot the page says that no source was polled."""
    running.board.publish(Snapshot())
    async with client.get("/") as answer:
        assert "No source was polled yet" in await answer.text()


async def test_other_paths_and_methods(client: aiohttp.ClientSession) -> None:
    """Another path is 404, another method 405, and no answer names the software below us."""
    async with client.get("/nothing") as answer:
        assert (answer.status, answer.headers["Server"]) == (404, "otel-openai-usage")
    async with client.post("/metrics") as answer:
        assert answer.status == 405


async def test_a_used_port_is_an_error(running: RunningServer) -> None:
    """A port in use is a ListenError that names it and what to do."""
    port = int(running.server.url.rpartition(":")[2])
    second = Server(running.reader, running.board, list, host="127.0.0.1", port=port)
    with pytest.raises(
        ListenError, match=rf"listen on 127\.0\.0\.1:{port}: the address is in use; .* another port"
    ):
        await second.start()
    await second.stop()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
async def test_a_foreign_address_is_an_error(running: RunningServer, host: str) -> None:
    """An address that is not ours, or no address at all, is a ListenError."""
    other = Server(running.reader, running.board, list, host=host, port=0)
    with pytest.raises(ListenError, match=f"listen on {host}:0: .*; name"):
        await other.start()
    await other.stop()


async def test_localhost_listens_on_all_its_addresses_with_one_port(running: RunningServer) -> None:
    """`localhost` answers on 127.0.0.1, and on ::1 where there is IPv6, with the same port."""
    other = Server(running.reader, running.board, list, host="localhost", port=0)
    await other.start()
    port = int(other.url.rpartition(":")[2])
    for address in {found[4][0] for found in socket.getaddrinfo("localhost", None)}:
        try:
            with socket.create_connection((str(address), port), timeout=1) as connection:
                assert connection.getpeername()[1] == port
        except OSError as error:
            assert ":" in str(address), error  # noqa: PT017  # this machine has no IPv6
    await other.stop()


async def test_stopping_frees_the_port(unused_tcp_port_factory: Callable[[], int]) -> None:
    """After `stop` the same port can be bound at once."""
    port = unused_tcp_port_factory()
    for _ in range(2):
        shown = Board()
        server = Server(PrometheusReader(shown), shown, list, host="127.0.0.1", port=port)
        await server.start()
        await server.stop()
