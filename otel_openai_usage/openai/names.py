"""Names of projects, API keys and users."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TypeVar
from urllib.parse import quote

import msgspec

from otel_openai_usage.core.model import Names
from otel_openai_usage.errors import BadRequest, MissingScope, NotOffered, Rejected, SourceError
from otel_openai_usage.openai import lists, wire
from otel_openai_usage.openai.answers import Body
from otel_openai_usage.openai.client import Client
from otel_openai_usage.openai.projects import Project, listed

log = logging.getLogger(__name__)

PRIORITY = 2
WORKERS = 4
T = TypeVar("T")


class _Person(msgspec.Struct):
    id: str
    name: str | None = None
    email: str | None = None


class _Owner(msgspec.Struct):
    user: _Person | None = None
    service_account: _Person | None = None


class _ApiKey(msgspec.Struct):
    id: str
    name: str | None = None
    owner: _Owner | None = None


_PROJECT = msgspec.json.Decoder(Project)
_API_KEY = msgspec.json.Decoder(_ApiKey)
_API_KEYS = msgspec.json.Decoder(lists.Listing[_ApiKey])
_USERS = msgspec.json.Decoder(lists.Listing[_Person])


class OpenAINames:
    """Names of one organization, as its administration API lists them.

    A full reading costs one call per 100 projects, one per 100 users and one per project that is
    not archived (there is no list of all keys, and children of archived projects are refused): with
    500 projects some 510 calls, which is 11 minutes at 60 requests per minute, of which names may
    use 45. Service accounts are named by the keys that they own, which saves another call per
    project.

    What the key may not list stays unnamed and is logged once; `missing_scopes` says what to grant.
    """

    def __init__(
        self,
        client: Client,
        *,
        now: Callable[[], float] = time.monotonic,
        forget_after: float = 600.0,
    ) -> None:
        self._client = client
        self._now = now
        self._forget_after = forget_after
        self._unknown: dict[str, float] = {}
        self._told: set[str] = set()
        self.missing_scopes: tuple[str, ...] = ()
        """Scopes that the last reading lacked for a part of the names."""

    async def read(self) -> Names:
        """All names that can be listed. Raises MissingScope if nothing may be listed, else
        SourceError.
        """
        refused: list[MissingScope] = []
        projects = await self._part(listed(self._client, priority=PRIORITY, archived=True), refused)
        people = await self._part(self._users(), refused)
        if len(refused) == 2:
            raise refused[0]
        keys = await self._all_keys((project.id for project in projects if project.lives), refused)
        self.missing_scopes = tuple(sorted({scope for error in refused for scope in error.scopes}))
        owners = [owner for key in keys for owner in _owners(key)]
        return Names(
            {project.id: project.name or None for project in projects},
            {key.id: key.name or None for key in keys},
            {person.id: _called(person) for person in (*owners, *people)},
        )

    async def lookup(self, projects: Sequence[str], api_keys: Sequence[tuple[str, str]]) -> Names:
        """Names of single ids; None for what OpenAI does not know, which is remembered for ten
        minutes.

        What cannot be told now (an answer of 500) is left out. Users are those that own the keys.
        """
        found = await self._found(
            {id_: _project_path(id_) for id_ in projects},
            "organization/projects/{id}",
            _PROJECT.decode,
        )
        paths = {
            key: f"{_project_path(project)}/api_keys/{_quoted(key)}" for project, key in api_keys
        }
        keys = await self._found(paths, "organization/projects/{id}/api_keys/{id}", _API_KEY.decode)
        return Names(
            {id_: (item and item.name) or None for id_, item in found.items()},
            {id_: (item and item.name) or None for id_, item in keys.items()},
            {owner.id: _called(owner) for item in keys.values() for owner in _owners(item)},
        )

    async def _users(self) -> list[_Person]:
        return await lists.whole(
            self._client,
            "organization/users",
            _USERS.decode,
            endpoint="organization/users",
            priority=PRIORITY,
        )

    async def _keys(self, project: str) -> list[_ApiKey]:
        # Without `any`, keys whose owner left the project are hidden, and they may still be used.
        every = [("owner_project_access", "any")]
        path = f"{_project_path(project)}/api_keys"
        endpoint = "organization/projects/{id}/api_keys"
        return await lists.whole(
            self._client, path, _API_KEYS.decode, endpoint=endpoint, priority=PRIORITY, params=every
        )

    async def _part(self, reading: Awaitable[list[T]], refused: list[MissingScope]) -> list[T]:
        try:
            return await reading
        except (Rejected, NotOffered) as error:
            self._bear(error, refused)
        return []

    def _bear(self, error: Rejected | NotOffered, refused: list[MissingScope]) -> None:
        if isinstance(error, MissingScope):
            refused.append(error)
        elif isinstance(error, Rejected):
            raise error
        self._tell_once(str(error))

    async def _all_keys(
        self, projects: Iterator[str], refused: list[MissingScope]
    ) -> list[_ApiKey]:
        found: list[_ApiKey] = []
        stop: list[Rejected] = []  # what is refused for one project is for all

        async def work() -> None:
            for project in projects:
                if stop:
                    return
                try:
                    found.extend(await self._keys(project))
                except Rejected as error:
                    stop.append(error)
                except SourceError as error:  # one project may answer 400 or 500 for good
                    self._tell_once(str(error))

        await asyncio.gather(*(work() for _ in range(WORKERS)))
        if stop:
            self._bear(stop[0], refused)
        return found

    async def _found(
        self, paths: Mapping[str, str], endpoint: str, decode: Callable[[Body], T]
    ) -> dict[str, T | None]:
        found: dict[str, T | None] = {}
        for id_, path in paths.items():
            try:
                body = await self._existing(path, endpoint)
            except Rejected:
                raise
            except SourceError as error:
                log.debug(
                    "name not read", extra={"endpoint": endpoint, "id": id_, "error": str(error)}
                )
                continue
            found[id_] = wire.decode(decode, body, endpoint) if body is not None else None
        return found

    async def _existing(self, path: str, endpoint: str) -> bytes | None:
        now = self._now()
        self._unknown = {known: until for known, until in self._unknown.items() if until > now}
        if path in self._unknown:
            return None
        try:
            return await self._client.get(path, endpoint=endpoint, priority=PRIORITY)
        except (NotOffered, BadRequest):
            self._unknown[path] = now + self._forget_after
            return None

    def _tell_once(self, error: str) -> None:
        if error not in self._told:
            self._told.add(error)
            log.warning(
                "names are incomplete", extra={"organization": self._client.name, "error": error}
            )


def _owners(key: _ApiKey | None) -> list[_Person]:
    owner = (key and key.owner) or _Owner()
    return [person for person in (owner.user, owner.service_account) if person is not None]


def _called(person: _Person) -> str | None:
    return person.name or person.email or None


def _quoted(id_: str) -> str:
    return quote(id_, safe="")


def _project_path(id_: str) -> str:
    return f"organization/projects/{_quoted(id_)}"
