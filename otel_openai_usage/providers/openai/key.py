"""The admin key: a fixed secret, or a file that is read again when it changes."""

import asyncio
import logging
from pathlib import Path

from otel_openai_usage.errors import ConfigError

log = logging.getLogger(__name__)

_Stamp = tuple[int, int, int]


class Key:
    """Gives the key to send now. Its repr and its log lines never hold it.

    With `path` the file is looked at before each request (one stat, in a thread) and read when its
    time, size or inode changed. A file that is gone, empty or no key keeps the last good key and is
    logged once. Raises ConfigError when the first reading gives no key.
    """

    def __init__(self, secret: str = "", *, path: Path | None = None) -> None:
        self._path = path
        self._stamp: _Stamp | None = None
        self._complained: str | None = None
        self._secret = _checked(secret, "admin_key") if path is None else self._first(path)

    def __repr__(self) -> str:
        return f"Key(path={str(self._path)!r})" if self._path else "Key('***')"

    async def current(self) -> str:
        """The key, after a look at whether its file changed."""
        return (
            self._secret if self._path is None else await asyncio.to_thread(self._look, self._path)
        )

    async def reread(self) -> str:
        """The key, read anew from its file even if nothing seems changed."""
        self._stamp = None
        return await self.current()

    def _first(self, path: Path) -> str:
        try:
            self._stamp, secret = _read(path)
        except OSError as error:
            raise ConfigError([f"admin_key_file: {path}: {error.strerror or error}"]) from error
        return _checked(secret, f"admin_key_file: {path}")

    def _look(self, path: Path) -> str:
        try:
            if self._stamp is None or _stamp(path) != self._stamp:
                self._stamp, secret = _read(path)
                self._secret = _checked(secret, f"admin_key_file: {path}")
            self._complained = None
        except OSError as error:
            self._complain(path, error.strerror or str(error))
        except ConfigError as error:
            self._complain(path, str(error))
        return self._secret

    def _complain(self, path: Path, reason: str) -> None:
        if self._complained != reason:
            log.warning(
                "key file gives no key, keeping the last one",
                extra={"path": str(path), "reason": reason},
            )
        self._complained = reason


def _stamp(path: Path) -> _Stamp:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(path: Path) -> tuple[_Stamp, str]:
    # Stamped before reading: a write in between is seen as a change at the next look.
    return _stamp(path), path.read_text(encoding="utf-8", errors="replace").strip()


def _checked(secret: str, where: str) -> str:
    if not secret:
        raise ConfigError([f"{where}: empty; expected an admin key"])
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise ConfigError(
            [
                f"{where}: holds blanks or characters that no key has; expected one line with the admin key"
            ]
        )
    return secret
