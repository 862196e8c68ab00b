"""Which proxy is used, and that it is."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from otel_openai_usage.errors import ConfigError, Unavailable
from otel_openai_usage.proxies import Proxy, proxy_for
from tests.http.certificates import Authority
from tests.providers.openai.conftest import Connect
from tests.providers.openai.upstream import Upstream, serve

HTTPS = "https://api.openai.com/v1"


@pytest.mark.parametrize(
    ("env", "url"),
    [
        ({}, None),
        ({"HTTPS_PROXY": ""}, None),
        ({"HTTP_PROXY": "http://p:1"}, None),
        ({"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ({"https_proxy": "p:3128"}, "http://p:3128"),
        ({"https_proxy": "p"}, "http://p:80"),
        ({"https_proxy": "https://p"}, "https://p:443"),
        ({"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:2"}, "http://a:1"),
        ({"ALL_PROXY": "p:1"}, "http://p:1"),
        ({"all_proxy": "p:1", "HTTPS_PROXY": "http://b:2/"}, "http://b:2"),
        ({"https_proxy": "[::1]:3128"}, "http://[::1]:3128"),
        ({"https_proxy": "p:1", "NO_PROXY": "*"}, None),
        ({"https_proxy": "p:1", "NO_PROXY": "openai.com"}, None),
        ({"https_proxy": "p:1", "no_proxy": "localhost, .openai.com"}, None),
        ({"https_proxy": "p:1", "no_proxy": "*.openai.com"}, None),
        ({"https_proxy": "p:1", "no_proxy": "API.OPENAI.COM:443"}, None),
        ({"https_proxy": "p:1", "no_proxy": "api.openai.com:80"}, "http://p:1"),
        ({"https_proxy": "p:1", "no_proxy": "penai.com,10.0.0.0/8,"}, "http://p:1"),
        ({"https_proxy": "p:1", "no_proxy": "", "NO_PROXY": "api.openai.com"}, None),
    ],
    ids=str,
)
def test_which_proxy(env: dict[str, str], url: str | None) -> None:
    """The variables mean what they mean elsewhere."""
    found = proxy_for(HTTPS, env)
    assert (found and found.url) == url


@pytest.mark.parametrize(
    ("no_proxy", "target"),
    [
        ("10.0.0.0/8", "http://10.1.2.3/v1"),
        ("127.0.0.1", "http://127.0.0.1:8080/v1"),
        ("::1", "http://[::1]:8080/v1"),
        ("[::1]:8080", "http://[::1]:8080/v1"),
        ("fd00::/8", "https://[fd00::5]/v1"),
    ],
)
def test_exceptions_by_address(no_proxy: str, target: str) -> None:
    """An address is excepted by itself or by its network, with a port or without."""
    assert proxy_for(target, {"ALL_PROXY": "p:1", "NO_PROXY": no_proxy}) is None
    assert proxy_for(target, {"ALL_PROXY": "p:1", "NO_PROXY": "192.0.2.1"}) is not None


def test_user_and_password_are_in_no_text() -> None:
    """They go to the proxy and nowhere else."""
    found = proxy_for(HTTPS, {"HTTPS_PROXY": "http://me:p%40ss@p:1"})
    assert found == Proxy("http://p:1", "HTTPS_PROXY", "me", "p@ss")
    assert "p@ss" not in repr(found)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("http://p:99999", "expected a port from 1 to 65535"),
        ("socks5://me:secret@p:1080", "proxies are http:// or https:// here, not socks5://"),
        ("http://", "got no host"),
        ("http://p..example:1", "expected a host whose parts"),
        ("http://" + "a" * 70, "expected a host whose parts"),
        ("my proxy:3128", "expected a host whose parts"),
    ],
)
def test_what_is_no_proxy(value: str, problem: str) -> None:
    """A wrong variable is named, and its password is not."""
    with pytest.raises(ConfigError, match=problem) as caught:
        proxy_for(HTTPS, {"HTTPS_PROXY": value})
    assert str(caught.value).startswith("HTTPS_PROXY: ")
    assert "secret" not in str(caught.value)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


class _Tunnels:
    """A proxy that opens tunnels (CONNECT), by TLS if it has a context."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.context = context
        self.asked: list[str] = []
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head)
        port = head.split()[1].rpartition(":")[2]
        there = await asyncio.open_connection("127.0.0.1", int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(
            _pump(reader, there[1]), _pump(there[0], writer), return_exceptions=True
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["_Tunnels"]:
        server = await asyncio.start_server(self.handle, "127.0.0.1", 0, ssl=self.context)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()


def _context(paths: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*paths)
    return context


@pytest.mark.parametrize("scheme", ["", "http://", "https://"])
async def test_https_through_a_proxy(scheme: str, connect: Connect, tmp_path: Path) -> None:
    """An https base_url is asked through a tunnel, also of a proxy that speaks TLS itself; the
    login goes to the proxy, the key does not.
    """
    authority = Authority(tmp_path)
    trusting = ssl.create_default_context(cafile=authority.file)
    context = _context(authority.issue("server"))
    proxy = _Tunnels(context if scheme == "https://" else None)
    upstream = Upstream(script=[b"[1]"])
    async with serve(upstream, ssl_context=context), proxy.serving():
        client = await connect(
            base_url=upstream.url,
            env={"HTTPS_PROXY": f"{scheme}me:secret@127.0.0.1:{proxy.port}"},
            retries=0,
            session=lambda **options: aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=trusting), **options
            ),
        )
        assert await client.get("organization/costs", endpoint="costs") == b"[1]"
    (head,) = proxy.asked
    assert head.startswith("CONNECT 127.0.0.1:")
    assert "Proxy-Authorization: Basic bWU6c2VjcmV0" in head
    assert "sk-admin" not in head


async def test_a_proxy_that_is_not_there_is_named(connect: Connect, unused_tcp_port: int) -> None:
    """Whoever reads the error knows that a proxy was used, and which variable says so."""
    client = await connect(
        base_url="http://openai.test/v1",
        env={"http_proxy": f"127.0.0.1:{unused_tcp_port}"},
        retries=0,
    )
    with pytest.raises(Unavailable, match="check base_url, http_proxy and the network"):
        await client.get("organization/costs", endpoint="costs")


async def test_a_proxy_that_wants_a_login(upstream: Upstream, connect: Connect) -> None:
    """407 says what is missing."""
    upstream.script = [web.Response(status=407)]
    proxy = upstream.url.removesuffix("/v1")
    client = await connect(base_url="http://openai.test/v1", env={"http_proxy": proxy}, retries=0)
    with pytest.raises(Unavailable, match="407; the proxy asks for a login"):
        await client.get("organization/costs", endpoint="costs")
