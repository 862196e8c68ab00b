"""What the engine needs of a provider: sources of usage, names and spend limits."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.model import KeyTimes, Limit, Names, RateLimit, Width, Window
from otel_openai_usage.domain.readings import Reading


class Source(Protocol):
    """A usage endpoint (or costs) of one organization."""

    @property
    def endpoint(self) -> Endpoint: ...

    async def read(
        self,
        window: Window,
        width: Width,
        group_by: Sequence[str],
        known_fingerprints: Mapping[int, bytes],
    ) -> Reading:
        """Read the whole window, or raise SourceError.

        `known_fingerprints` has fingerprints by bucket start: such a bucket is left out of the
        reading if it still has that fingerprint. A window has at most as many buckets as OpenAI
        returns in one call.
        """
        ...


class NameSource(Protocol):
    """Names of projects, API keys and users of one organization."""

    async def read(self, found: Callable[[Names], Awaitable[None]]) -> Names:
        """List all names. Calls `found` with each part that arrives.

        Raises SourceError, MissingScope if the key must not list them.
        """
        ...

    async def lookup(
        self,
        projects: Sequence[str],
        api_keys: Sequence[tuple[str, str]],
        found: Callable[[Names], Awaitable[None]],
    ) -> Names:
        """Look up the names of projects and of (project_id, api_key_id) pairs.

        The name of an id that does not exist is None. Calls `found` with each name that arrives.
        """
        ...

    def key_times(self) -> list[KeyTimes]:
        """Return the times of the keys that were listed last."""
        ...


class LimitSource(Protocol):
    """Spend limits of one organization, and rate limits of its projects."""

    async def read(self) -> list[Limit]:
        """Read the limits of the organization and of its projects. Raises SourceError."""
        ...

    async def read_rates(self) -> list[RateLimit]:
        """Read the rate limits of the projects. Raises SourceError."""
        ...
