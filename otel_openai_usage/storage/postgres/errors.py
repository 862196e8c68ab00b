"""Turns errors of the driver into StateError with a full sentence. No password is in it."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors as pg

from otel_openai_usage.errors import StateCorrupt, StateError, StateUnavailable

NOT_DECODABLE = (ValueError, TypeError, LookupError, ArithmeticError)
"""The errors that decoding a damaged value raises."""
REPEATABLE = (pg.SerializationFailure, pg.DeadlockDetected)
"""The server asks to repeat the transaction."""

_ADVICE: tuple[tuple[type[psycopg.Error], str], ...] = (
    (pg.InvalidPassword, "check state.password_file, PGPASSWORD or PGPASSFILE"),
    (pg.InvalidAuthorizationSpecification, "check the user in state.url and pg_hba.conf"),
    (pg.InvalidCatalogName, "create it with `createdb`, or correct state.url"),
    (
        pg.InsufficientPrivilege,
        "grant the user CREATE and USAGE on the schema, as docs/storage.md shows",
    ),
    (
        pg.ReadOnlySqlTransaction,
        "name the primary in state.url, or add target_session_attrs=read-write",
    ),
    (pg.InvalidSchemaName, "create the schema that search_path in state.url names"),
    (pg.DiskFull, "make room on the server's disk, nothing is lost meanwhile"),
    (pg.TooManyConnections, "raise max_connections of the server, or use pgbouncer"),
    (pg.UndefinedTable, "start `otel-openai-usage run` once, which creates the tables"),
    (pg.UndefinedColumn, "start `otel-openai-usage run` once, which adds the columns"),
)
_AUTHENTICATION = (
    ("password authentication failed", "check state.password_file, PGPASSWORD or PGPASSFILE"),
    ("no password supplied", "set state.password_file, PGPASSWORD or PGPASSFILE"),
    ("certificate", "check sslmode and sslrootcert in state.url"),
    ("SSL", "check sslmode and sslrootcert in state.url"),
    ("does not exist", "create it, or correct state.url"),
    ("too many", "raise max_connections of the server, or use pgbouncer"),
    ("session is read-only", "name the primary in state.url"),
    ("unsupported startup parameter", "pgbouncer refuses it; see ignore_startup_parameters there"),
)
"""Errors of a refused connection have no code, so their text is looked through."""
_AT_START = "check state.url, and that the server runs"
_AWAY = "everything waits and goes on when it is back"


@contextmanager
def translate_errors(shown: str, action: str) -> Iterator[None]:
    """Raise StateError for the driver's errors. `shown` is the location without a password.

    StateUnavailable is raised where the server cannot be reached. Errors of decoding are translated
    for the action "read" only: elsewhere they are bugs.
    """
    try:
        yield
    except psycopg.Error as error:
        raise translated(shown, action, error) from error
    except NOT_DECODABLE as error:
        if action != "read":
            raise
        raise StateCorrupt(
            f"read the state in {shown}: a stored value cannot be understood ({error});"
            " restore it from a backup"
        ) from error


def translated(shown: str, action: str, error: psycopg.Error) -> StateError:
    """The error as a sentence: what was done, what happened, what to do."""
    said = _first_line(error)
    what = f"{action} the state in {shown}: {said}"
    for kind, advice in _ADVICE:
        if isinstance(error, kind):
            return StateError(f"{what}; {advice}")
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        for text, advice in _AUTHENTICATION:
            if text in said:
                return StateUnavailable(f"{what}; {advice}")
        return StateUnavailable(f"{what}; {_AT_START if action == 'opened' else _AWAY}")
    return StateError(what)


def _first_line(error: psycopg.Error) -> str:
    """What the server or libpq said, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
