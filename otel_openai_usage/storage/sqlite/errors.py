"""Turns errors of SQLite and of the operating system into StateError with a full sentence."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from otel_openai_usage.errors import StateCorrupt, StateError, StateInUse

NOT_DECODABLE = (ValueError, TypeError, LookupError, ArithmeticError)
"""The errors that decoding a damaged value raises. (UnicodeError and JSONDecodeError are
ValueErrors, the errors of decimal are ArithmeticErrors.)
"""

ADVICE = (
    "restore it from a backup (`otel-openai-usage state restore FILE`), or move it away to begin"
    " counting anew (the counters then start again)"
)
"""What to do with a state that cannot be used."""


@contextmanager
def translate_errors(path: str, action: str) -> Iterator[None]:
    """Raise StateError for SQLite's and the system's errors.

    The message says what was done (`action`, such as "read"), what happened and what to do. Errors
    of decoding are translated for the action "read" only: elsewhere they are bugs.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _from_sqlite(path, action, error) from error
    except NOT_DECODABLE as error:
        # SQLite's own messages quote damaged text, so decoding them may fail, too.
        if action != "read" and not isinstance(error, UnicodeError):
            raise
        raise not_decodable(path, error) from error
    except OSError as error:
        raise StateError(
            f"{action} the state file {path}: {error.strerror or error};"
            " check the path and its permissions"
        ) from error


def not_decodable(path: str, error: Exception) -> StateCorrupt:
    """The error for a stored value that cannot be decoded."""
    return StateCorrupt(
        f"the state file {path} is damaged (a stored value cannot be understood: {error}); {ADVICE}"
    )


def _from_sqlite(path: str, action: str, error: sqlite3.DatabaseError) -> StateError:
    what = f"{action} the state file {path}: {error}"
    extended_code = getattr(error, "sqlite_errorcode", None) or 0
    code = extended_code & 0xFF
    is_damaged = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    if is_damaged or "unsupported file format" in str(error):
        return StateCorrupt(f"{what}; {ADVICE}")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StateInUse(f"{what}; another program has it locked: end that one")
    if code == sqlite3.SQLITE_FULL:
        return StateError(f"{what}; make room on that disk, nothing is lost meanwhile")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StateError(f"{what}; the file and its folder must be writable for this user")
    return StateError(what)


def no_state(path: object) -> StateError:
    """The error for a path without a state."""
    return StateError(
        f"looked for the state file {path}: there is none; `otel-openai-usage run` makes it"
    )
