"""The admin key: a fixed secret, or a file that is read again when it changes."""

import asyncio
import logging
from pathlib import Path

from otel_openai_usage.errors import ConfigError
from otel_openai_usage.watched_file import WatchedFiles

log = logging.getLogger(__name__)


class Key:
    """Returns the key to send now. Its repr and its log lines never hold it.

    With `path` the file is checked before each request (one stat, in a thread) and read when its
    time, size or inode changed. While the file is missing, empty or no key, the last good key is
    used; that is logged once. Raises ConfigError if the first reading yields no key.
    """

    def __init__(self, secret: str = "", *, path: Path | None = None) -> None:
        self._path = path
        self._problem: str | None = None
        """Why the file yields no key now, as it was logged."""
        if path is None:
            self._secret = _checked(secret, "admin_key")
            return
        self._watched = WatchedFiles([path])
        self._watched.changed()
        try:
            text = _text(path)
        except OSError as error:
            raise ConfigError([f"admin_key_file: {path}: {error.strerror or error}"]) from error
        self._secret = _checked(text, f"admin_key_file: {path}")

    def __repr__(self) -> str:
        return f"Key(path={str(self._path)!r})" if self._path else "Key('***')"

    async def current(self) -> str:
        """The key, from its file if that changed."""
        if self._path is None:
            return self._secret
        return await asyncio.to_thread(self._read_if_changed, self._path)

    async def reread(self) -> str:
        """The key, read from its file again even if the file seems unchanged."""
        if self._path is not None:
            self._watched.forget()
        return await self.current()

    def _read_if_changed(self, path: Path) -> str:
        if not self._watched.changed():
            return self._secret
        try:
            self._secret = _checked(_text(path), f"admin_key_file: {path}")
        except OSError as error:
            # Nothing was read: try again before the next request.
            self._watched.forget()
            self._log_problem(path, error.strerror or str(error))
        except ConfigError as error:
            self._log_problem(path, str(error))
        else:
            self._problem = None
        return self._secret

    def _log_problem(self, path: Path, reason: str) -> None:
        """Log why the file yields no key, unless that was logged before."""
        if self._problem != reason:
            log.warning(
                "the key file holds no key; the last key is still used",
                extra={"event": "key_file_empty", "path": str(path), "reason": reason},
            )
        self._problem = reason


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip()


def _checked(secret: str, where: str) -> str:
    """The secret. Raises ConfigError, with the place but not the secret, if it cannot be a key."""
    if not secret:
        raise ConfigError([f"{where}: empty; expected an admin key"])
    is_printable = secret.isascii() and secret.isprintable()
    if not is_printable or " " in secret:
        problem = "contains blanks or characters that no key has"
        raise ConfigError([f"{where}: {problem}; expected one line with the admin key"])
    return secret
