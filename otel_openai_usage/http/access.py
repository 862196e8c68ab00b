"""TLS and basic auth, from a web config file in the format of Prometheus' exporter-toolkit.

Format and behaviour: docs/web-configuration.md and web/handler.go of
github.com/prometheus/exporter-toolkit. As there, the file and the certificates are read again when
they change. Two things differ: the probes ask for no password, so that an orchestrator needs none,
and a protection that is in force is switched off by a restart only, never by a file that was
emptied.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import secrets
import ssl
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import bcrypt
from aiohttp import web
from aiohttp.typedefs import Handler

from otel_openai_usage.errors import ConfigError
from otel_openai_usage.http.toolkit import WebConfig, read
from otel_openai_usage.watched_file import WatchedFiles

log = logging.getLogger(__name__)

_NOBODY = bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt(10)).decode()
"""What an unknown user is compared with, so that it takes as long as a known one."""
_REMEMBERED = 256
_COMPARED_AT_ONCE = 16
"""So many passwords may wait for bcrypt, which is made to be slow."""
_OPEN = ("/healthz", "/readyz")
"""Paths that ask for no password."""


class Access:
    """Who may come in, and how the line is encrypted. Raises ConfigError if the file cannot be used
    at the start.

    Later, a changed file that cannot be used is told in the log, and the last good one stays.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._config = read(path)
        self._watched = _watch(path, self._config)
        self._key = secrets.token_bytes(32)
        self._right: set[bytes] = set()
        self._wrong: set[bytes] = set()
        self._comparing = 0
        self._worker = ThreadPoolExecutor(1, "bcrypt")  # one: comparing is made to cost much
        self._lock = Lock()
        self.ssl = self._context(self._config)
        if not (self._config.users or self._config.tls):
            log.warning(
                "the web config file names neither users nor TLS: everybody may read the metrics",
                extra={"event": "web_config_open", "file": str(path)},
            )

    @property
    def headers(self) -> Mapping[str, str]:
        """What every answer carries."""
        return self._config.headers

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let a request pass if it is a probe, if the file names no users, or if its user and
        password are right.
        """
        if request.path in _OPEN:
            return await handler(request)
        await asyncio.get_running_loop().run_in_executor(None, self._reread)
        if self._config.users:
            known = await self._known(request.headers.get("Authorization", ""))
            if known is None:
                busy = "too many passwords to compare; try again in a second\n"
                return web.Response(status=503, text=busy, headers={"Retry-After": "1"})
            if not known:
                return web.Response(
                    status=401, text="Unauthorized\n", headers={"WWW-Authenticate": "Basic"}
                )
        return await handler(request)

    async def _known(self, authorization: str) -> bool | None:
        """Whether user and password are right; None if there are too many to compare."""
        credentials = _credentials(authorization)
        if credentials is None:
            return False
        user, password = credentials
        hashed = self._config.users.get(user)
        # Looked up by a keyed digest: how long that takes tells nothing about the password.
        seen = hmac.digest(
            self._key,
            b"\0".join((user.encode(), (hashed or "").encode(), password)),
            hashlib.sha256,
        )
        if seen in self._right or seen in self._wrong:
            return seen in self._right
        if self._comparing >= _COMPARED_AT_ONCE:
            return None
        self._comparing += 1
        try:
            matches = await asyncio.get_running_loop().run_in_executor(
                self._worker, _matches, password, hashed or _NOBODY
            )
        finally:
            self._comparing -= 1
        right = matches and hashed is not None
        # Kept apart, so that somebody who guesses cannot have a good password compared again.
        remembered = self._right if right else self._wrong
        if len(remembered) >= _REMEMBERED:
            remembered.clear()
        remembered.add(seen)
        return right

    def _reread(self) -> None:
        """Read the file again if it, or a certificate, changed."""
        with self._lock:
            if not self._watched.changed():
                return
            try:
                self._take(read(self._path))
            except ConfigError as error:
                log.warning(
                    "web config file changed and cannot be used; the last good one stays",
                    extra={"event": "web_config_refused", "error": str(error)},
                )

    def _take(self, config: WebConfig) -> None:
        if problems := list(_weaker(self._config, config)):
            raise ConfigError([f"{self._path}: {problem}; restart" for problem in problems])
        self.ssl = self._context(config)
        self._config = config
        self._watched = _watch(self._path, config)

    def _context(self, config: WebConfig) -> ssl.SSLContext | None:
        if config.tls is None:
            return None
        context = config.tls.context()
        context.sni_callback = (
            self._handshake
        )  # called for every client, whether it names a server or not
        return context

    def _handshake(
        self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, context: ssl.SSLContext
    ) -> None:
        self._reread()
        if self.ssl and self.ssl is not context:
            connection.context = self.ssl


def _credentials(authorization: str) -> tuple[str, bytes] | None:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (user.decode(), password) if colon else None
    except ValueError:  # no base64, or no UTF-8
        return None


def _matches(password: bytes, hashed: str) -> bool:
    try:
        # bcrypt never looked further than 72 bytes, and newer versions refuse more.
        return bcrypt.checkpw(password[:72], hashed.encode())
    except ValueError:  # a password that bcrypt does not take, such as one with a NUL
        return False


def _weaker(before: WebConfig, after: WebConfig) -> Iterator[str]:
    """What a file that is read again must not change while we run."""
    if bool(before.tls) != bool(after.tls):
        yield "tls_server_config: TLS cannot be switched on or off while running"
    elif before.tls and after.tls and after.tls.clients < before.tls.clients:
        yield "tls_server_config.client_auth_type: cannot be weakened while running"
    if before.users and not after.users:
        yield "basic_auth_users: passwords cannot be switched off while running"


def _watch(path: Path, config: WebConfig) -> WatchedFiles:
    """The web config file and its certificates, as they are now."""
    watched = WatchedFiles([path, *config.files])
    watched.changed()
    return watched
