"""OTLP over HTTP: one POST, whose whole exchange has one deadline and whose answer has a limit."""

import asyncio
import gzip
import io
import os
import socket
import ssl
import time
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from otel_openai_usage.config import Otlp
from otel_openai_usage.errors import ConfigError
from otel_openai_usage.exporters.otlp.delivery import ANSWER_LIMIT, Answer, http_answer, shortened
from otel_openai_usage.proxies import proxy_for

_PIECE = 64 * 1024
_GZIP_LEVEL = 6
_OWN_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Variables that name authorities to trust, where `otlp.tls.ca_file` names none."""


class HttpTransport:
    """One connection pool on an event loop of its own, which runs only while a request is sent.

    aiohttp is used because `asyncio.timeout` ends an exchange wherever it is: in the look-up of the
    name, the TLS handshake, a head or a body that drips. Proxies are those of the environment
    (http_proxy, https_proxy, all_proxy, no_proxy).
    """

    def __init__(self, otlp: Otlp, user_agent: str) -> None:
        self._otlp = otlp
        self._headers = {
            "User-Agent": user_agent,
            "Content-Type": "application/x-protobuf",
            "Accept-Encoding": "identity",
        }
        self._headers |= {key: value.get_secret_value() for key, value in otlp.headers.items()}
        if otlp.compression == "gzip":
            self._headers["Content-Encoding"] = "gzip"
        self._loop = asyncio.new_event_loop()
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[Answer] | None = None
        self._running = Lock()
        self._closed = Event()

    def send(self, body: bytes, seconds: float) -> Answer:
        """One POST."""
        end = time.monotonic() + seconds
        packed = gzip.compress(body, _GZIP_LEVEL) if self._otlp.compression == "gzip" else body
        with self._running:
            if self._closed.is_set():
                return Answer("refused", "the exporter is closed")
            self._task = self._loop.create_task(self._exchange(packed, end - time.monotonic()))
            if self._closed.is_set():  # `close` may not have seen the task
                self._task.cancel()
            try:
                return self._loop.run_until_complete(self._task)
            except asyncio.CancelledError:
                return Answer("refused", "the exporter was closed while it sent")
            finally:
                self._task = None
                if self._closed.is_set():  # `close` may have given up waiting for us
                    self._release()

    def close(self) -> None:
        """Cancel the request that is on its way, and let go of the connections."""
        self._closed.set()
        task = self._task
        if task is not None:
            with suppress(RuntimeError):  # the loop may have been closed meanwhile
                self._loop.call_soon_threadsafe(task.cancel)
        if self._running.acquire(timeout=1.0):
            try:
                self._release()
            finally:
                self._running.release()

    def _release(self) -> None:
        """Let go of connections and loop. For whoever holds the lock."""
        if self._loop.is_closed():
            return
        if self._session is not None:
            self._loop.run_until_complete(self._session.close())
        self._loop.close()

    async def _exchange(self, body: bytes, seconds: float) -> Answer:
        status: int | None = None
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                session = self._session = self._session or self._new_session()
                # The loop stood still since the last request. One turn lets it see which
                # connections the backend has closed, so that none of these is used.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                url = _url(self._otlp.endpoint or "")
                proxy = proxy_for(str(url), os.environ)
                login = proxy.login if proxy else {}
                is_tunnelled = url.scheme == "https"
                async with session.post(
                    url,
                    data=io.BytesIO(body),
                    # Without a tunnel the proxy reads the request itself.
                    headers=self._headers if is_tunnelled else self._headers | login,
                    allow_redirects=False,
                    proxy=proxy.url if proxy else None,
                    proxy_headers=login if is_tunnelled else None,
                ) as response:
                    status = response.status
                    content = await _limited(response)
                    headers = {key.lower(): value for key, value in response.headers.items()}
                    return http_answer(status, headers, content, time.time())
        except TimeoutError:
            return Answer("try again", f"no complete answer within otlp.timeout{_after(status)}")
        except _TooLongError:
            return Answer(
                "refused", f"the answer is longer than {ANSWER_LIMIT} bytes{_after(status)}"
            )
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            return Answer("refused", shortened(str(error)))
        except (aiohttp.ClientConnectionError, OSError) as error:
            return Answer(
                "try again", shortened(str(error) or type(error).__name__) + _after(status)
            )
        except (aiohttp.ClientError, ConfigError, ValueError) as error:
            return Answer("refused", shortened(f"{type(error).__name__}: {error}") + _after(status))

    def _new_session(self) -> aiohttp.ClientSession:
        secure = urlsplit(self._otlp.endpoint or "").scheme == "https"
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=1,
                resolver=DaemonResolver(),
                ssl=tls_context(self._otlp) if secure else True,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            auto_decompress=False,
        )


class _TooLongError(Exception):
    """The answer has more bytes than any of use."""


async def _limited(response: aiohttp.ClientResponse) -> bytes:
    pieces = bytearray()
    async for piece in response.content.iter_chunked(_PIECE):
        pieces += piece
        if len(pieces) > ANSWER_LIMIT:
            raise _TooLongError
    packed = response.headers.get("Content-Encoding", "identity").lower() != "identity"
    return b"" if packed else bytes(pieces)  # we asked for none; unpacking might take any memory


def _after(status: int | None) -> str:
    return "" if status is None else f" (its status was {status})"


def _url(endpoint: str) -> URL:
    """The address as it was written: its path and query are not encoded anew."""
    plain = endpoint.isascii() and endpoint.isprintable() and " " not in endpoint
    return URL(endpoint, encoded=plain)


def tls_context(otlp: Otlp) -> ssl.SSLContext:
    """Whom we trust, and who we are. Raises OSError, of which ssl.SSLError is one."""
    tls = otlp.tls
    bundle = str(tls.ca_file) if tls and tls.ca_file else None
    bundle = bundle or next(filter(None, map(os.environ.get, _OWN_BUNDLES)), None)
    context = ssl.create_default_context(cafile=bundle)
    if tls and tls.cert_file and tls.key_file:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    return context


class DaemonResolver(AbstractResolver):
    """Looks names up in a thread that does not keep the process from ending, however long it takes."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host. Raises OSError."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[Any]] = loop.create_future()

        def notify(addresses: list[Any], error: OSError | None) -> None:
            if found.done():
                return
            if error is None:
                found.set_result(addresses)
            else:
                found.set_exception(error)

        def policy() -> None:
            addresses: list[Any] = []
            failure: OSError | None = None
            try:
                addresses = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                failure = OSError(f"{host}: {error}")
            with suppress(RuntimeError):  # nobody waits any more: the loop is closed
                loop.call_soon_threadsafe(notify, addresses, failure)

        Thread(target=policy, name="otlp-resolver", daemon=True).start()
        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=address[1],
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in await found
        ]

    async def close(self) -> None:
        """Nothing is kept."""
