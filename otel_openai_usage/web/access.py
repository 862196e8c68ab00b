"""TLS and basic auth, from a web config file in the format of Prometheus' exporter-toolkit.

Format and behaviour: docs/web-configuration.md and web/handler.go of
github.com/prometheus/exporter-toolkit. As there, all paths ask for the password, and the file and
the certificates are read again when they change.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import secrets
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import bcrypt
from aiohttp import web
from aiohttp.typedefs import Handler

from otel_openai_usage.errors import ConfigError
from otel_openai_usage.web.toolkit import WebConfig, read

log = logging.getLogger(__name__)

_NOBODY = bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt(10)).decode()
"""What an unknown user is compared with, so that it takes as long as a known one."""
_REMEMBERED = 256


class Access:
    """Who may come in, and how the line is encrypted. Raises ConfigError if the file cannot be used
    at the start.

    Later, a changed file that cannot be used is told in the log, and the last good one stays.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._config = read(path)
        self._stamp = _stamp(path, self._config)
        self._key = secrets.token_bytes(32)
        self._verdicts: dict[bytes, bool] = {}
        self._worker = ThreadPoolExecutor(1, "bcrypt")  # one: comparing is made to cost much
        self._lock = Lock()
        self.ssl = self._context()

    @property
    def headers(self) -> Mapping[str, str]:
        """What every answer carries."""
        return self._config.headers

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets a request pass if the file names no users, or its user and password are right."""
        await asyncio.get_running_loop().run_in_executor(None, self._reread)
        if self._config.users and not await self._known(request.headers.get("Authorization", "")):
            return web.Response(
                status=401, text="Unauthorized\n", headers={"WWW-Authenticate": "Basic"}
            )
        return await handler(request)

    async def _known(self, authorization: str) -> bool:
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
        if seen not in self._verdicts:
            right = await asyncio.get_running_loop().run_in_executor(
                self._worker, _matches, password, hashed or _NOBODY
            )
            if len(self._verdicts) >= _REMEMBERED:
                self._verdicts.clear()
            self._verdicts[seen] = right and hashed is not None
        return self._verdicts[seen]

    def _reread(self) -> None:
        """Read the file again if it, or a certificate, changed."""
        with self._lock:
            stamp = _stamp(self._path, self._config)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            try:
                self._take(read(self._path))
            except ConfigError as error:
                log.warning(
                    "web config file changed and cannot be used; the last good one stays",
                    extra={"error": str(error)},
                )

    def _take(self, config: WebConfig) -> None:
        if bool(config.tls) != bool(self._config.tls):
            raise ConfigError(
                [
                    f"{self._path}: tls_server_config: TLS cannot be switched on or off while running; restart"
                ]
            )
        self._config = config
        self._stamp = _stamp(self._path, config)
        self.ssl = self._context()

    def _context(self) -> ssl.SSLContext | None:
        if self._config.tls is None:
            return None
        context = self._config.tls.context()
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
    except (binascii.Error, UnicodeDecodeError):
        return None


def _matches(password: bytes, hashed: str) -> bool:
    return bcrypt.checkpw(
        password[:72], hashed.encode()
    )  # bcrypt never looked further, and newer versions refuse more


def _stamp(path: Path, config: WebConfig) -> tuple[tuple[int, int] | None, ...]:
    return tuple(map(_touched, (path, *config.files)))


def _touched(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
