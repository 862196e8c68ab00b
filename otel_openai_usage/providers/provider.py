"""What a provider of usage offers, and how one is opened."""

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from otel_openai_usage.config import Organization, Settings
from otel_openai_usage.engine.ports import LimitSource, NameSource, Source
from otel_openai_usage.providers.budget import Budget
from otel_openai_usage.providers.vault import Vault

Observe = Callable[[str, int | None, float], None]
"""Called after each request: endpoint, HTTP status (None if there was no answer), seconds."""

NoteOdd = Callable[[str, str, int], None]
"""Called with values that could not be read: endpoint, outcome (`replaced`, `left_out`), how many."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One organization at a provider. Use it inside `async with`.

    `sources` has a source for each endpoint of the provider, by the endpoint's name; those of
    `past_sources` let all other requests go first. `probe` raises
    SourceError unless the key may be used: OtherOrganization if the state has the data of another
    organization.
    """

    sources: Mapping[str, Source]
    past_sources: Mapping[str, Source]
    names: NameSource
    limits: LimitSource
    probe: Callable[[], Awaitable[None]]
    connection: AbstractAsyncContextManager[object]

    async def __aenter__(self) -> Self:
        await self.connection.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.connection.__aexit__(kind, error, trace)


class OpenProvider(Protocol):
    """Makes the Provider of one configured organization. Raises ConfigError.

    `vault` knows whose data the state has. `observe` and `odd` receive telemetry, `budget` bounds
    the memory of answers of all organizations together, `now` and `mono` are clocks in seconds.
    """

    def __call__(
        self,
        settings: Settings,
        organization: Organization,
        vault: Vault,
        *,
        observe: Observe | None = None,
        odd: NoteOdd | None = None,
        budget: Budget | None = None,
        now: Callable[[], float] = time.time,
        mono: Callable[[], float] = time.monotonic,
    ) -> Provider: ...
