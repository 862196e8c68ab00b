"""Who may send events: whoever knows one of the Bearer tokens."""

import hmac
import logging
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

log = logging.getLogger(__name__)


class Tokens:
    """Tokens from the configuration and, where there is a `file`, one a line of it; it is read
    again when it changes.

    Without either, everybody is let in.
    """

    def __init__(self, tokens: Iterable[str] = (), file: Path | None = None) -> None:
        self._fixed = [_digest(token) for token in tokens]
        self._file = file
        self._stamp = (0, 0, 0)
        self._read: list[bytes] = []
        self._open = not self._fixed and file is None
        self._told = ""

    def allow(self, authorization: str) -> bool:
        """Whether an Authorization header has a token. Takes as long for a wrong one as for a right
        one.
        """
        if self._open:
            return True
        self._look()
        scheme, _, token = authorization.partition(" ")
        given = _digest(token.strip())
        found = False
        for known in (*self._fixed, *self._read):
            found |= hmac.compare_digest(given, known)
        return found and scheme.lower() == "bearer"

    def _look(self) -> None:
        if self._file is None:
            return
        try:
            stat = self._file.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if stamp != self._stamp:
                lines = self._file.read_text("utf-8").splitlines()
                self._read = [_digest(line.strip()) for line in lines if line.strip()]
                self._stamp = stamp
            self._told = ""
        except (OSError, UnicodeDecodeError) as error:
            if self._told != str(error):
                log.warning(
                    "events.tokens_file cannot be read; the tokens read before stay good",
                    extra={"error": str(error)},
                )
                self._told = str(error)


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogateescape")).digest()
