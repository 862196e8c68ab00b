"""What can be said of a state without changing it, also while an exporter is writing it."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from otel_openai_usage.errors import StateError
from otel_openai_usage.storage.sqlite.examine import Loss, Position, older, position
from otel_openai_usage.storage.sqlite.file import (
    MEMORY,
    canonical,
    identify,
    refuse_other_name,
    translate_errors,
)
from otel_openai_usage.storage.sqlite.losses import StoredLoss, unaccepted
from otel_openai_usage.storage.sqlite.marker import Marker, MarkerDamaged, marker_path, read_marker


@dataclass(frozen=True, slots=True)
class Description:
    """A state as it was found. `missing` is what it lacks by its marker and what no start has
    reported yet; `losses` were reported, and nobody accepted them.
    """

    path: str
    version: int
    size: int
    position: Position
    organizations: tuple[tuple[str, str | None], ...]
    running: bool
    marker: Marker | None
    marker_trouble: str | None
    missing: Loss | None
    losses: tuple[StoredLoss, ...]

    @property
    def doubts(self) -> list[str]:
        """What is wrong, in sentences."""
        found = [loss.details for loss in self.losses]
        return [*found, self.missing.details] if self.missing else found


def describe(path: Path | str) -> Description:
    """The description of the state at `path`. Raises StateError, also when there is none."""
    file = canonical(path)
    if file == MEMORY:
        raise StateError(f"looked for a state file: state.path is {MEMORY}, which keeps nothing")
    if not Path(file).exists():
        raise StateError(
            f"looked for the state file {file}: there is none; `otel-openai-usage run` makes it"
        )
    # The marker first: a running exporter commits before it writes the marker, so the state that
    # is read afterwards is never older by mistake.
    marker, failure_log = look_at_marker(file)
    with read_only(file) as db:
        version = identify(db, file)
        with translate_errors(file, "read"):
            here = position(db)
            losses = unaccepted(db, version)
            organizations = (
                db.execute(
                    "SELECT organization, max(organization_id) FROM sources GROUP BY organization"
                    " ORDER BY min(id)"
                ).fetchall()
                if version
                else []
            )
    with translate_errors(file, "read"):
        size = sum(
            Path(part).stat().st_size for part in (file, f"{file}-wal") if Path(part).exists()
        )
    return Description(
        file,
        version,
        size,
        here,
        tuple((str(name), id_) for name, id_ in organizations),
        in_use(file),
        marker,
        failure_log,
        older(here, marker) if marker else None,
        tuple(losses),
    )


def look_at_marker(path: str) -> tuple[Marker | None, str | None]:
    """The marker of a state, or why it cannot be read; neither if there is none."""
    try:
        return read_marker(marker_path(path)), None
    except MarkerDamaged:
        return None, "it is damaged"
    except OSError as error:
        return None, error.strerror or str(error)


@contextmanager
def read_only(path: str) -> Iterator[sqlite3.Connection]:
    """A connection that only reads. A file in a folder that cannot be written is read as it is."""
    name = Path(path).absolute().as_uri()
    with translate_errors(path, "opened"):
        db = sqlite3.connect(f"{name}?mode=ro", uri=True)
        try:
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            db.close()
            if os.access(Path(path).parent, os.W_OK):
                raise
            # Without its log beside it a database cannot be opened where nothing can be written,
            # unless SQLite is told that nobody else changes it.
            db = sqlite3.connect(f"{name}?immutable=1", uri=True)
    with closing(db):
        refuse_other_name(db, canonical(path))
        yield db


def in_use(path: str) -> bool:
    """Whether an exporter has the state. Looks at its lock file only."""
    try:
        lock = os.open(f"{path}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False
