"""Who may send events: clients that know one of the bearer tokens."""

import hmac
import logging
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from otel_openai_usage.watched_file import WatchedFiles

log = logging.getLogger(__name__)


class Tokens:
    """Tokens from the configuration, and from the lines of `file`, which is read when it changes.

    Without tokens and without a file, every client may send events.
    """

    def __init__(self, tokens: Iterable[str] = (), file: Path | None = None) -> None:
        self._fixed = [_digest(token) for token in tokens]
        self._file = file
        self._watched = WatchedFiles([file] if file else [])
        self._from_file: list[bytes] = []
        self._is_open = not self._fixed and file is None
        self._logged_problem = ""

    def allow(self, authorization: str) -> bool:
        """Whether an Authorization header carries a known token.

        Takes as long for a wrong token as for a right one, so the time does not help to guess.
        """
        if self._is_open:
            return True
        if self._file is not None:
            self._read_if_changed(self._file)
        scheme, _, token = authorization.partition(" ")
        given = _digest(token.strip())
        # No early return: the time must not show which token is nearly right.
        is_known = False
        for known in (*self._fixed, *self._from_file):
            is_known |= hmac.compare_digest(given, known)
        return is_known and scheme.lower() == "bearer"

    def _read_if_changed(self, file: Path) -> None:
        if not self._watched.changed():
            return
        try:
            lines = file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            # Nothing was read: try again at the next request.
            self._watched.forget()
            if self._logged_problem != str(error):
                log.warning(
                    "events.tokens_file cannot be read; the tokens read before are still valid",
                    extra={"event": "tokens_file_unreadable", "error": str(error)},
                )
                self._logged_problem = str(error)
            return
        tokens = [line.strip() for line in lines]
        self._from_file = [_digest(token) for token in tokens if token]
        self._logged_problem = ""


def _digest(token: str) -> bytes:
    """Hash a token. All digests have one length, so the time of a comparison does not depend on the
    length of a token.
    """
    return sha256(token.encode("utf-8", "surrogateescape")).digest()
