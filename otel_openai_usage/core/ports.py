"""The protocols where rooms meet."""

from collections.abc import Sequence
from typing import Protocol

from otel_openai_usage.core.kinds import Kind
from otel_openai_usage.core.model import Bucket, Limit, Names, Rows, Width, Window


class Source(Protocol):
    """A usage endpoint (or costs) of one organization."""

    @property
    def kind(self) -> Kind: ...

    async def read(self, window: Window, width: Width, group_by: Sequence[str]) -> list[Bucket]:
        """Every bucket of the window, complete or not at all.

        A window is at most as many buckets as OpenAI answers in one call. Raises SourceError.
        """
        ...

    def parse(self, results: bytes) -> Rows:
        """The rows of one bucket's `results`. Raises BadResponse. Safe in any thread."""
        ...


class NameSource(Protocol):
    """Names of projects, API keys and users of one organization."""

    async def read(self) -> Names:
        """All names that can be listed. Raises SourceError (MissingScope when the key may not)."""
        ...

    async def lookup(self, projects: Sequence[str], api_keys: Sequence[tuple[str, str]]) -> Names:
        """Names of single ids: projects, and (project_id, api_key_id) pairs; None for what does not exist."""
        ...


class LimitSource(Protocol):
    """Spend limits of one organization."""

    async def read(self, projects: Sequence[str]) -> list[Limit]:
        """The organization's limit and those of `projects`, where there are any. Raises SourceError."""
        ...
