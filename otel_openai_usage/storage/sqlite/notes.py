"""Small facts by key, in the table `meta`. Each function runs inside its caller's transaction."""

import sqlite3

INSTANCE_ID = "instance_id"
STATE_PATH = "path"


def read(db: sqlite3.Connection, key: str) -> str | None:
    """The value of a note, None if there is none."""
    found = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return str(found[0]) if found else None


def write(db: sqlite3.Connection, key: str, value: str) -> None:
    """Set a note."""
    db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def purged_before_key(source: int) -> str:
    """The key of the first day that was not purged because of its age, in Unix seconds."""
    return f"purged_before.{source:d}"


def owner_key(organization: str) -> str:
    """The key of what is known of the OpenAI organization behind a configured name."""
    return f"owner:{organization}"
