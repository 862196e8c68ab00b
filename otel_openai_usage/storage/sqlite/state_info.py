"""Describes a state without changing it, also while an exporter is writing it."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.results import StoredLoss
from otel_openai_usage.storage.sqlite.connection import StateConnection
from otel_openai_usage.storage.sqlite.errors import no_state, translate_errors
from otel_openai_usage.storage.sqlite.file import MEMORY, canonical, identify, refuse_other_name
from otel_openai_usage.storage.sqlite.lock import in_use
from otel_openai_usage.storage.sqlite.losses import Loss, unaccepted
from otel_openai_usage.storage.sqlite.marker import Marker, MarkerDamaged, marker_path, read_marker
from otel_openai_usage.storage.sqlite.start_check import Position, at, older, position


@dataclass(frozen=True, slots=True)
class StateInfo:
    """A state as it was found.

    `organizations` are (name, OpenAI's id) pairs. `missing` is what the state lacks according to
    its marker, and no start has reported it yet. `losses` were reported, and nobody accepted them.
    """

    path: str
    version: int
    size: int
    position: Position
    organizations: tuple[tuple[str, str | None], ...]
    running: bool
    marker: Marker | None
    marker_error: str | None
    missing: Loss | None
    losses: tuple[StoredLoss, ...]

    @property
    def counting_since(self) -> int | None:
        """When counting began, None if it did not."""
        return self.position.began

    @property
    def doubts(self) -> list[str]:
        """What is wrong, in sentences."""
        found = [loss.details for loss in self.losses]
        if self.missing:
            found.append(self.missing.details)
        return found

    @property
    def lines(self) -> list[tuple[str, str]]:
        """What `state info` prints: pairs of heading and text."""
        here = self.position
        names = [name if id_ is None else f"{name} ({id_})" for name, id_ in self.organizations]
        written = at(here.time) if here.time else "unknown"
        found = [
            ("location", self.path),
            ("size", f"{self.size} bytes, version {self.version}"),
            ("counting since", at(here.began) if here.began else "not yet"),
            ("organizations", ", ".join(names) or "none yet"),
            ("last write", f"{written}, commit {here.number}"),
            ("instance", here.instance or "none yet"),
            ("marker", self._marker_text()),
            ("in use", "by a running exporter" if self.running else "no"),
        ]
        if not self.doubts:
            found.append(("losses", "none"))
        found.extend(
            ("loss", f"reported {at(loss.found)}, not accepted: {loss.details}")
            for loss in self.losses
        )
        if self.missing:
            found.append(("loss", f"the next start will report: {self.missing.details}"))
        return found

    def _marker_text(self) -> str:
        if self.marker:
            return f"commit {self.marker.number} at {at(self.marker.time)}"
        return f"none: {self.marker_error or 'there is no file'}"


def describe(path: Path | str) -> StateInfo:
    """Describe the state at `path`. Raises StateError, also if there is none."""
    file = canonical(path)
    if file == MEMORY:
        raise StateError(f"looked for a state file: state.path is {MEMORY}, which keeps nothing")
    with translate_errors(file, "opened"):
        if not Path(file).exists():
            raise no_state(file)
    # The marker first: a running exporter commits before it writes the marker. So the state that
    # is read afterwards never looks older than it is.
    marker, marker_error = try_read_marker(file)
    with open_unlocked(file) as db:
        version = identify(db, file)
        with translate_errors(file, "read"):
            here = position(db)
            losses = unaccepted(db, version)
            organizations = _organizations(db) if version else []
    with translate_errors(file, "read"):
        size = size_on_disk(file)
    return StateInfo(
        path=file,
        version=version,
        size=size,
        position=here,
        organizations=tuple(organizations),
        running=in_use(file),
        marker=marker,
        marker_error=marker_error,
        missing=older(here, marker) if marker else None,
        losses=tuple(losses),
    )


def _organizations(db: sqlite3.Connection) -> list[tuple[str, str | None]]:
    sql = (
        "SELECT organization, max(organization_id) FROM sources GROUP BY organization"
        " ORDER BY min(id)"
    )
    return [(str(name), id_) for name, id_ in db.execute(sql)]


def size_on_disk(path: str) -> int:
    """Bytes of a state, with the log that is not written back yet. Raises OSError."""
    files = [Path(path), Path(f"{path}-wal")]
    return sum(file.stat().st_size for file in files if file.exists())


def try_read_marker(path: str) -> tuple[Marker | None, str | None]:
    """The marker of a state, and why it cannot be read. Both are None if there is none."""
    try:
        return read_marker(marker_path(path)), None
    except MarkerDamaged:
        return None, "it is damaged"
    except OSError as error:
        return None, error.strerror or str(error)


@contextmanager
def open_unlocked(path: str) -> Iterator[StateConnection]:
    """Open a state of any version for reading, even in a folder that cannot be written."""
    uri = Path(path).absolute().as_uri()
    with translate_errors(path, "opened"):
        db = sqlite3.connect(f"{uri}?mode=ro", uri=True, factory=StateConnection)
        try:
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            db.close()
            # In a writable folder the error has another cause.
            if os.access(Path(path).parent, os.W_OK):
                raise
            # SQLite must create files beside a database that has no log, and cannot do so here.
            # `immutable` tells it that nobody else changes the database.
            db = sqlite3.connect(f"{uri}?immutable=1", uri=True, factory=StateConnection)
    with closing(db):
        refuse_other_name(db, canonical(path))
        yield db
