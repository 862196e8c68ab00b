"""The limits of a listener, tried with raw sockets."""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
from opentelemetry.sdk.resources import Resource

from otel_openai_usage.exporters.prometheus.reader import Format, PrometheusReader
from otel_openai_usage.exporters.self_metrics import SelfMetrics
from otel_openai_usage.http.limits import Limits
from otel_openai_usage.http.server import Server
from tests.exporters.boards import ORGANIZATION, board
from tests.http.certificates import Authority

GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
PAGE = b"#" * 16_000_000
"""More than the kernel's buffers hold."""

Serve = Callable[..., Awaitable[Server]]


class _Large(PrometheusReader):
    """Has a page that no buffer holds."""

    def page(self, form: Format = "text", *, gzip: bool = False) -> list[bytes]:
        """The page."""
        return [PAGE]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a server with these limits."""
    started: list[tuple[Server, SelfMetrics]] = []

    async def start(limits: Limits, web_config_file: Path | None = None) -> Server:
        shown = board(ORGANIZATION)
        reader = _Large(shown)
        self_metrics = SelfMetrics(shown, Resource({}), [reader])
        server = Server(
            reader,
            shown,
            list,
            host="127.0.0.1",
            port=0,
            limits=limits,
            web_config_file=web_config_file,
        )
        await server.start()
        started.append((server, self_metrics))
        return server

    yield start
    for server, self_metrics in started:
        await server.stop()
        self_metrics.shutdown()


def port_of(server: Server) -> int:
    """Where it listens."""
    return int(server.url.rpartition(":")[2])


async def knock(server: Server, sent: bytes = b"") -> socket.socket:
    """A connection on which something was sent, and nothing is read."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", port_of(server)))
    with suppress(OSError):
        await loop.sock_sendall(sock, sent)
    return sock


async def answer(sock: socket.socket, size: int = 65536) -> bytes:
    """What comes next; nothing if the connection is closed."""
    async with asyncio.timeout(10):
        try:
            return await asyncio.get_running_loop().sock_recv(sock, size)
        except ConnectionError:
            return b""


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def until(happened: Callable[[], bool]) -> None:
    """Wait until it did."""
    async with asyncio.timeout(10):
        while not happened():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def is_healthy(server: Server) -> bool:
    """Whether /healthz is answered on a new connection."""
    sock = await knock(server, GET % b"/healthz")
    text = await answer(sock)
    sock.close()
    return text.startswith(b"HTTP/1.1 200") and text.endswith(b"ok\n")


ATTACKS = {
    "silence": b"",
    "a head without an end": b"GET /metrics HTTP/1.1\r\nX-slow: ",
    "an idle connection": GET % b"/healthz",
    "a page that is not read": GET % b"/metrics",
    "pages that are not read": (GET % b"/metrics") * 200,
    "a body that does not come": b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x00\xa5\x01\x00\r\n\r\n",
    "a huge head": b"GET / HTTP/1.1\r\n" + b"X-a: b\r\n" * 50_000,
}


@pytest.mark.parametrize("sent", ATTACKS.values(), ids=ATTACKS)
async def test_health_is_answered_among_many_connections(serve: Serve, sent: bytes) -> None:
    """Every further connection is answered, however a client uses many more than the limit."""
    server = await serve(Limits(16, stall=60, request=60, answer=60))
    held = []
    for _ in range(8):
        held += [await knock(server, sent) for _ in range(8)]
        assert await is_healthy(server)
    for sock in held:
        sock.close()


async def test_a_client_that_does_not_read_is_disconnected(serve: Serve) -> None:
    """A client that reads nothing of its page is disconnected; one that reads slowly gets it."""
    server = await serve(Limits(16, stall=0.3, tick=0.05))
    lazy = await knock(server, GET % b"/metrics")
    slow = await knock(server, GET % b"/metrics")
    got = 0
    while got < len(PAGE):
        piece = await answer(slow, 2**20)
        assert piece
        got += len(piece)
        await asyncio.sleep(0.01)
    await until(lambda: not server._scrapes)
    got = 0
    while piece := await answer(lazy, 2**20):
        got += len(piece)
    assert got < len(PAGE)
    lazy.close()
    slow.close()


async def test_a_client_that_reads_too_slowly_is_disconnected(serve: Serve) -> None:
    """A client that reads a few bytes now and then loses its connection after a while."""
    server = await serve(Limits(16, stall=60, answer=0.5, tick=0.05))
    trickle = await knock(server, GET % b"/metrics")
    async with asyncio.timeout(10):
        while await answer(trickle, 100) and server._scrapes:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    trickle.close()


async def test_a_second_head_has_a_time_limit(serve: Serve) -> None:
    """A second head that never ends closes the connection, too."""
    server = await serve(Limits(16, request=0.3, tick=0.05))
    sock = await knock(server, GET % b"/healthz")
    assert (await answer(sock)).startswith(b"HTTP/1.1 200")
    await asyncio.get_running_loop().sock_sendall(sock, b"GET /healthz HT")
    assert await answer(sock) == b""
    sock.close()


async def test_too_many_scrapes_are_refused(serve: Serve) -> None:
    """Slow scrapes use half of the connections at most; further scrapes get a 503."""
    server = await serve(Limits(4, stall=60))
    held = [await knock(server, GET % b"/metrics") for _ in range(2)]
    await until(lambda: server._scrapes == 2)
    third = await knock(server, GET % b"/metrics")
    assert (await answer(third)).startswith(b"HTTP/1.1 503")
    for sock in (*held, third):
        sock.close()


async def test_at_the_limit_a_connection_is_refused_at_once(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """While every connection is being served, the next one gets a 503, logged once."""
    server = await serve(Limits(2, stall=60))
    released = threading.Event()

    def wait() -> list[str]:
        released.wait(10)
        return []

    server._not_ready = wait
    held = [await knock(server, GET % b"/readyz") for _ in range(2)]
    served = server._listener._connections
    await until(lambda: sum(each.in_request for each in served.values()) == 2)
    for _ in range(3):
        refused = await knock(server, GET % b"/healthz")
        assert (await answer(refused)).startswith(b"HTTP/1.1 503")
        assert await answer(refused) == b""
        refused.close()
    assert [record.__dict__["event"] for record in caplog.records] == ["connections_refused"]
    released.set()
    for sock in held:
        sock.close()


async def test_a_handshake_has_a_time_limit(serve: Serve, tmp_path: Path) -> None:
    """Over TLS, a connection that never shakes hands is closed, and others are answered."""
    authority = Authority(tmp_path)
    authority.issue("server")
    file = tmp_path / "web.yml"
    file.write_text("tls_server_config: {cert_file: server.crt, key_file: server.key}")
    server = await serve(Limits(4, request=0.5, tick=0.05), file)
    held = [await knock(server) for _ in range(12)]
    trusting = ssl.create_default_context(cafile=str(authority.file))
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{server.url}/healthz", ssl=trusting) as healthy,
    ):
        assert await healthy.text() == "ok\n"
    answers: Sequence[bytes] = await asyncio.gather(*map(answer, held))
    assert set(answers) == {b""}
    for sock in held:
        sock.close()


async def test_a_client_that_pipelines_is_disconnected_first(serve: Serve) -> None:
    """A client that sends requests without waiting for answers is disconnected first."""
    server = await serve(Limits(8, stall=60))
    before = descriptors()
    held = [await knock(server, (GET % b"/readyz") * 50) for _ in range(60)]
    assert await is_healthy(server)
    for sock in held:
        sock.close()
    await until(lambda: descriptors() <= before + 1)


def test_limits_leave_descriptors_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 256 file descriptors two listeners together leave half."""
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, 256))
    assert Limits.of_this_process().connections == 64
    monkeypatch.setattr("resource.getrlimit", lambda _: (1_000_000, 1_000_000))
    assert Limits.of_this_process().connections == 128
