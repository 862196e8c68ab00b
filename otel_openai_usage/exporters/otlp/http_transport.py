"""OTLP over HTTP: one POST, with one deadline for the whole exchange and a limit for its answer."""

import asyncio
import gzip
import io
import os
import ssl
import time
from contextlib import AbstractAsyncContextManager, suppress
from threading import Event, Lock

import aiohttp
from yarl import URL

from otel_openai_usage.config import Otlp
from otel_openai_usage.errors import ConfigError
from otel_openai_usage.exporters.otlp.answer import MAX_ANSWER, Answer, http_answer, shortened
from otel_openai_usage.exporters.otlp.resolver import DaemonResolver
from otel_openai_usage.proxies import proxy_for

_READ_SIZE = 64 * 1024
_GZIP_LEVEL = 6
_CLOSE_WAIT = 1.0
"""Seconds that `close` waits for a request in progress."""
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Environment variables that name trusted authorities, if `otlp.tls.ca_file` names none."""


class HttpTransport:
    """One connection pool on its own event loop, which runs only while a request is sent.

    aiohttp is used because `asyncio.timeout` ends an exchange wherever it is: in the look-up of the
    name, in the TLS handshake, in a head or a body that arrives byte by byte. Proxies are those of
    the environment (http_proxy, https_proxy, all_proxy, no_proxy).
    """

    def __init__(self, otlp: Otlp, user_agent: str) -> None:
        self._otlp = otlp
        self._headers = {
            "User-Agent": user_agent,
            "Content-Type": "application/x-protobuf",
            "Accept-Encoding": "identity",
        }
        for key, value in otlp.headers.items():
            self._headers[key] = value.get_secret_value()
        self._compresses = otlp.compression == "gzip"
        if self._compresses:
            self._headers["Content-Encoding"] = "gzip"
        self._loop = asyncio.new_event_loop()
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[Answer] | None = None
        self._running = Lock()
        """Held while the event loop runs."""
        self._closed = Event()

    def send(self, body: bytes, seconds: float) -> Answer:
        """Send one POST. The whole exchange takes at most `seconds`."""
        deadline = time.monotonic() + seconds
        if self._compresses:
            body = gzip.compress(body, _GZIP_LEVEL)
        with self._running:
            if self._closed.is_set():
                return Answer("refused", "the exporter is closed")
            seconds_left = deadline - time.monotonic()
            self._task = self._loop.create_task(self._exchange(body, seconds_left))
            if self._closed.is_set():  # `close` may have come before there was a task
                self._task.cancel()
            try:
                return self._loop.run_until_complete(self._task)
            except asyncio.CancelledError:
                return Answer("refused", "the exporter was closed during the request")
            finally:
                self._task = None
                if self._closed.is_set():  # `close` may not have waited long enough
                    self._close_loop()

    def close(self) -> None:
        """Cancel the request in progress, and close the connections."""
        self._closed.set()
        task = self._task
        if task is not None:
            with suppress(RuntimeError):  # `send` may have closed the loop in between
                self._loop.call_soon_threadsafe(task.cancel)
        if self._running.acquire(timeout=_CLOSE_WAIT):
            try:
                self._close_loop()
            finally:
                self._running.release()

    def _close_loop(self) -> None:
        """Close connections and loop. The caller holds the lock."""
        if self._loop.is_closed():
            return
        if self._session is not None:
            self._loop.run_until_complete(self._session.close())
        self._loop.close()

    async def _exchange(self, body: bytes, seconds: float) -> Answer:
        status: int | None = None
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                url = _url(self._otlp.endpoint or "")
                session = self._open_session(url)
                # The loop stood still since the last request. Two turns let it notice which
                # connections the backend has closed, so that none of these is used.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                async with self._post(session, url, body) as response:
                    status = response.status
                    content = await _read_limited(response)
                    headers = {key.lower(): value for key, value in response.headers.items()}
                    return http_answer(status, headers, content, time.time())
        except TimeoutError:
            error_text = "no complete answer within otlp.timeout"
            return Answer("retryable", error_text + _status_note(status))
        except _TooLongError:
            error_text = f"the answer is longer than {MAX_ANSWER} bytes"
            return Answer("refused", error_text + _status_note(status))
        except (aiohttp.ClientSSLError, ssl.SSLError, ConfigError) as error:
            return Answer("refused", shortened(str(error)))
        except (aiohttp.ClientConnectionError, OSError) as error:
            error_text = shortened(str(error) or type(error).__name__)
            return Answer("retryable", error_text + _status_note(status))
        except (aiohttp.ClientError, ValueError) as error:
            error_text = shortened(f"{type(error).__name__}: {error}")
            return Answer("refused", error_text + _status_note(status))

    def _post(
        self, session: aiohttp.ClientSession, url: URL, body: bytes
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        proxy = proxy_for(str(url), os.environ)
        login = proxy.login if proxy else {}
        is_tunnelled = url.scheme == "https"
        # Without a tunnel the proxy reads the request itself.
        headers = self._headers if is_tunnelled else self._headers | login
        return session.post(
            url,
            data=io.BytesIO(body),
            headers=headers,
            allow_redirects=False,
            proxy=proxy.url if proxy else None,
            proxy_headers=login if is_tunnelled else None,
        )

    def _open_session(self, url: URL) -> aiohttp.ClientSession:
        """Return the session. Opened by the first request, as aiohttp needs a running loop."""
        if self._session is None:
            is_secure = url.scheme == "https"
            connector = aiohttp.TCPConnector(
                limit=1,
                resolver=DaemonResolver(),
                ssl=_tls_context(self._otlp) if is_secure else True,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                # `asyncio.timeout` is the only deadline.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                auto_decompress=False,
            )
        return self._session


class _TooLongError(Exception):
    """The answer is longer than any useful one."""


async def _read_limited(response: aiohttp.ClientResponse) -> bytes:
    """Return the body. Raises _TooLongError."""
    body = bytearray()
    async for piece in response.content.iter_chunked(_READ_SIZE):
        body += piece
        if len(body) > MAX_ANSWER:
            raise _TooLongError
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        # We accept no compression, and decompressing may take any amount of memory.
        return b""
    return bytes(body)


def _status_note(status: int | None) -> str:
    return "" if status is None else f" (its status was {status})"


def _url(endpoint: str) -> URL:
    """Return the address as it was written: path and query are not encoded a second time."""
    is_encoded = endpoint.isascii() and endpoint.isprintable() and " " not in endpoint
    return URL(endpoint, encoded=is_encoded)


def _tls_context(otlp: Otlp) -> ssl.SSLContext:
    """Return whom we trust, and our own certificate.

    Raises OSError if a file cannot be read, and ConfigError if it is no PEM.
    """
    tls = otlp.tls
    ca_file = _ca_file(otlp)
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        # OpenSSL says neither which file nor which setting.
        setting = " or ".join(_CA_VARIABLES)
        if tls and tls.ca_file:
            setting = "otlp.tls.ca_file (OTEL_EXPORTER_OTLP_CERTIFICATE)"
        raise ConfigError([f"{setting}: {ca_file} is no PEM file with certificates"]) from error
    if tls and tls.cert_file and tls.key_file:
        try:
            # With an empty password, OpenSSL does not ask for one on the terminal.
            context.load_cert_chain(tls.cert_file, tls.key_file, password="")
        except ssl.SSLError as error:
            cert = f"otlp.tls.cert_file (OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE): {tls.cert_file}"
            key = f"otlp.tls.key_file (OTEL_EXPORTER_OTLP_CLIENT_KEY): {tls.key_file}"
            expected = "PEM files are expected that belong together, the key without a password"
            raise ConfigError([f"{cert}, {key}: {expected}"]) from error
    return context


def _ca_file(otlp: Otlp) -> str | None:
    """Return the file with trusted authorities; None for those of the system."""
    if otlp.tls and otlp.tls.ca_file:
        return str(otlp.tls.ca_file)
    for variable in _CA_VARIABLES:
        value = os.environ.get(variable)
        if value:
            return value
    return None
