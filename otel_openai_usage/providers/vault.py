"""Where it is stored whose data a state has: the organization's identity, and the keys that are its."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from otel_openai_usage.domain.identity import Identity, Owner, mark

Run = Callable[[Callable[[], None]], Awaitable[None]]
"""Runs work on the state in the thread that may do so."""


class Vault(Protocol):
    """Whose data a state has. Every method but `mark` may raise StateError."""

    def mark(self, secret: str) -> str:
        """A digest that stands for this key with the configured base URL."""
        ...

    async def owner(self) -> Owner:
        """What the state knows about the organization."""
        ...

    async def note(self, seen: Identity, marks: tuple[str, ...]) -> None:
        """Store what the organization says about itself, and the marks of its keys."""
        ...


class ReadableState(Protocol):
    """A state that can be read. Methods may raise StateError."""

    @property
    def instance_id(self) -> str: ...
    def owner(self, organization: str) -> Owner: ...


class WritableState(ReadableState, Protocol):
    """A state that can be written, too."""

    def set_owner(self, organization: str, seen: Identity, marks: tuple[str, ...]) -> None: ...


class ReadOnlyVault:
    """The vault of a command that only reads the state: it stores nothing."""

    def __init__(self, state: ReadableState, organization: str, base_url: str) -> None:
        self._state = state
        self._organization = organization
        self._base_url = base_url
        self._instance_id = state.instance_id

    def mark(self, secret: str) -> str:
        """A digest that stands for this key with the configured base URL."""
        return mark(self._instance_id, self._base_url, secret)

    async def owner(self) -> Owner:
        """What the state knows about the organization."""
        return self._state.owner(self._organization)

    async def note(self, seen: Identity, marks: tuple[str, ...]) -> None:
        """Do nothing."""


class StateVault:
    """The vault of the process that writes the state. `run` runs work in the thread that may."""

    def __init__(self, run: Run, state: WritableState, organization: str, base_url: str) -> None:
        self._run = run
        self._state = state
        self._organization = organization
        self._base_url = base_url

    def mark(self, secret: str) -> str:
        """A digest that stands for this key with the configured base URL."""
        return mark(self._state.instance_id, self._base_url, secret)

    async def owner(self) -> Owner:
        """What the state knows about the organization."""
        found: list[Owner] = []
        await self._run(lambda: found.append(self._state.owner(self._organization)))
        return found[0]

    async def note(self, seen: Identity, marks: tuple[str, ...]) -> None:
        """Store what the organization says about itself, and the marks of its keys."""
        await self._run(lambda: self._state.set_owner(self._organization, seen, marks))
