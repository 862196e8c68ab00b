"""Describes a state in a database without changing it, also while an exporter is writing it."""

from contextlib import closing
from dataclasses import dataclass

from otel_openai_usage.config.location import DatabaseLocation
from otel_openai_usage.domain.model import utc
from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.postgres.connection import PostgresDatabase, connect
from otel_openai_usage.storage.postgres.errors import translate_errors
from otel_openai_usage.storage.postgres.replicas import owners, size_on_server
from otel_openai_usage.storage.postgres.schema import version_of
from otel_openai_usage.storage.postgres.store import newest_commit, safety_warnings
from otel_openai_usage.storage.sql import notes


@dataclass(frozen=True, slots=True)
class StateInfo:
    """A state as it was found. `organizations` are (name, OpenAI's id) pairs."""

    path: str
    version: int
    size: int
    counting_since: int | None
    last_write: int
    commit: int
    instance: str
    organizations: tuple[tuple[str, str | None], ...]
    owners: tuple[tuple[str, str], ...]
    """(scope, host and process) pairs."""

    @property
    def running(self) -> bool:
        """Whether an exporter has the state open."""
        return bool(self.owners)

    @property
    def doubts(self) -> list[str]:
        """This store has no losses."""
        return []

    @property
    def lines(self) -> list[tuple[str, str]]:
        """What `state info` prints: pairs of heading and text."""
        since = _time(self.counting_since) if self.counting_since else "not yet"
        names = [name if id_ is None else f"{name} ({id_})" for name, id_ in self.organizations]
        written = _time(self.last_write) if self.last_write else "unknown"
        by_owner: dict[str, list[str]] = {}
        for scope, owner in self.owners:
            by_owner.setdefault(owner, []).append(scope)
        in_use = [f"by {owner}: {', '.join(scopes)}" for owner, scopes in by_owner.items()]
        return [
            ("location", self.path),
            ("size", f"{self.size} bytes, version {self.version}"),
            ("counting since", since),
            ("organizations", ", ".join(names) or "none yet"),
            ("last write", f"{written}, commit {self.commit}"),
            ("instance", self.instance or "none yet"),
            ("in use", "; ".join(in_use) or "no"),
            ("losses", "none"),
        ]


def describe(location: DatabaseLocation) -> StateInfo:
    """Describe the state. Raises StateError, also if there is none."""
    shown = str(location)
    with translate_errors(shown, "opened"):
        connection = connect(location)
    with closing(connection), translate_errors(shown, "read"):
        version = version_of(connection, shown)
        if not version:
            raise StateError(
                f"looked for a state in {shown}: there is none; `otel-openai-usage run` makes it"
            )
        db = PostgresDatabase(connection)
        number, written = newest_commit(db)
        (began,) = db.execute("SELECT min(epoch) FROM sources WHERE epoch > 0").fetchone() or (
            None,
        )
        sql = (
            "SELECT organization, max(organization_id) FROM sources GROUP BY organization"
            " ORDER BY min(id)"
        )
        return StateInfo(
            path=shown,
            version=version,
            size=size_on_server(connection),
            counting_since=began,
            last_write=written,
            commit=number,
            instance=notes.read(db, notes.INSTANCE_ID) or "",
            organizations=tuple(db.execute(sql).fetchall()),
            owners=owners(connection),
        )


def inspect(location: DatabaseLocation) -> str:
    """What is there, in a sentence. Raises StateError if `run` could not use it."""
    shown = str(location)
    with translate_errors(shown, "opened"):
        connection = connect(location)
    with closing(connection), translate_errors(shown, "read"):
        version = version_of(connection, shown)
        db = PostgresDatabase(connection)
        (read_only,) = db.execute("SHOW transaction_read_only").fetchone() or ("on",)
        if read_only == "on":
            raise StateError(
                f"opened the state in {shown}: the server is read-only; name the primary in state.url"
            )
        if version:
            return f"{shown}, version {version}"
        sql = "SELECT has_schema_privilege(current_schema(), 'CREATE')"
        if db.execute(sql).fetchone() != (True,):
            raise StateError(
                f"opened the state in {shown}: this user may not create tables;"
                " grant it CREATE on the schema, as docs/storage.md shows"
            )
    return f"{shown} will get its tables"


def is_empty(location: DatabaseLocation) -> bool:
    """Whether there is no state yet. Raises StateError."""
    shown = str(location)
    with translate_errors(shown, "opened"):
        connection = connect(location)
    with closing(connection), translate_errors(shown, "read"):
        return not version_of(connection, shown)


def warnings(location: DatabaseLocation) -> list[str]:
    """What is allowed but not safe, in sentences. Raises StateError."""
    found = [sentence for _, sentence in safety_warnings(location.url)]
    shown = str(location)
    with translate_errors(shown, "opened"):
        connection = connect(location)
    with closing(connection), translate_errors(shown, "read"):
        (mode,) = connection.execute("SHOW synchronous_commit").fetchone() or ("on",)
    if mode == "off":
        found.append(
            "synchronous_commit is off on the server: events that were answered 204 are lost if it"
            " crashes; turn it on for this user (ALTER ROLE … SET synchronous_commit = on)"
        )
    return found


def _time(seconds: int) -> str:
    return utc(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")
