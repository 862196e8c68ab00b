"""The entry points of the SQLite store."""

from pathlib import Path

from otel_openai_usage.storage.ports import Backend
from otel_openai_usage.storage.sqlite.file import inspect
from otel_openai_usage.storage.sqlite.queries import open_queries
from otel_openai_usage.storage.sqlite.state_info import describe
from otel_openai_usage.storage.sqlite.store import Store


def _is_empty(path: Path) -> bool:
    return not path.exists() or not path.stat().st_size


SQLITE = Backend(
    open_writer=Store,
    open_shared=Store,
    open_queries=open_queries,
    inspect=inspect,
    describe=describe,
    warnings=lambda _: [],
    is_empty=_is_empty,
)
