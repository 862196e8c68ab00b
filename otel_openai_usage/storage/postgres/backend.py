"""The entry points of the PostgreSQL store."""

from otel_openai_usage.storage.ports import Backend
from otel_openai_usage.storage.postgres.queries import open_queries
from otel_openai_usage.storage.postgres.shared_store import SharedStore
from otel_openai_usage.storage.postgres.state_info import describe, inspect, is_empty, warnings
from otel_openai_usage.storage.postgres.store import Store

POSTGRES = Backend(
    open_writer=Store,
    open_shared=SharedStore,
    open_queries=open_queries,
    inspect=inspect,
    describe=describe,
    warnings=warnings,
    is_empty=is_empty,
)
