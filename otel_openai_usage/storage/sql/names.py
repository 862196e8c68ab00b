"""Names and spend limits of an organization. Each function runs inside its caller's transaction."""

from collections.abc import Iterable, Mapping
from decimal import Decimal

from otel_openai_usage.domain.model import Limit, Names
from otel_openai_usage.storage.sql.database import Database


def read(db: Database, organization: str) -> Names:
    """The stored names of projects, API keys and users."""
    found: dict[str, dict[str, str | None]] = {"project": {}, "api_key": {}, "user": {}}
    sql = "SELECT what, id, name FROM names WHERE organization = ?"
    for what, id_, name in db.execute(sql, (organization,)):
        found[what][id_] = name
    return Names(found["project"], found["api_key"], found["user"])


def write(db: Database, organization: str, names: Names) -> None:
    """Replace the stored names. An id without a name is not stored: it is looked up again."""
    by_what: dict[str, Mapping[str, str | None]] = {
        "project": names.projects,
        "api_key": names.api_keys,
        "user": names.users,
    }
    values = []
    for what, known in by_what.items():
        for id_, name in known.items():
            if name is not None:
                values.append((organization, what, id_, name))
    # Replaced as a whole, so that a deleted project loses its name.
    db.execute("DELETE FROM names WHERE organization = ?", (organization,))
    db.executemany("INSERT INTO names VALUES (?, ?, ?, ?)", values)


def read_limits(db: Database, organization: str) -> list[Limit]:
    """The stored spend limits."""
    sql = "SELECT project_id, amount, currency, enforcing FROM limits WHERE organization = ?"
    found = []
    for project, amount, currency, enforcing in db.execute(sql, (organization,)):
        found.append(Limit(project or None, Decimal(amount), currency, bool(enforcing)))
    return found


def write_limits(db: Database, organization: str, limits: Iterable[Limit]) -> None:
    """Replace the stored spend limits."""
    values = []
    for limit in limits:
        # The table's key allows no NULL: "" is the limit of the organization itself.
        project = limit.project_id or ""
        amount = str(limit.amount)
        enforcing = int(limit.enforcing)
        values.append((organization, project, amount, limit.currency, enforcing))
    db.execute("DELETE FROM limits WHERE organization = ?", (organization,))
    sql = (
        "INSERT INTO limits VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (organization, project_id) DO UPDATE SET amount = excluded.amount,"
        " currency = excluded.currency, enforcing = excluded.enforcing"
    )
    db.executemany(sql, values)
