"""Small facts by key, in the table `meta`. Each function runs inside its caller's transaction."""

from otel_openai_usage.storage.sql.database import Database

INSTANCE_ID = "instance_id"
STATE_PATH = "path"
HASH_KEY = "hash_key"


def read(db: Database, key: str) -> str | None:
    """The value of a note, None if there is none."""
    found = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return str(found[0]) if found else None


def write(db: Database, key: str, value: str) -> None:
    """Set a note."""
    sql = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
    db.execute(sql, (key, value))


def initial(db: Database, key: str, default: str) -> str:
    """The value of a note, which is set to `default` if there is none."""
    db.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO NOTHING", (key, default))
    return read(db, key) or default


def purged_before_key(source: int) -> str:
    """The key of the first day that was not purged because of its age, in Unix seconds."""
    return f"purged_before.{source:d}"


def measures_key(source: int) -> str:
    """The key of the measures that a source stores."""
    return f"measures.{source:d}"


def owner_key(organization: str) -> str:
    """The key of what is known of the OpenAI organization behind a configured name."""
    return f"owner:{organization}"
