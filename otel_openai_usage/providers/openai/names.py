"""Names of projects, API keys and users."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TypeVar
from urllib.parse import quote

import msgspec

from otel_openai_usage.domain.model import KeyTimes, Names
from otel_openai_usage.errors import BadRequest, MissingScope, NotOffered, Rejected, SourceError
from otel_openai_usage.providers.openai import lists
from otel_openai_usage.providers.openai.client import Client
from otel_openai_usage.providers.openai.projects import Project, listed
from otel_openai_usage.providers.openai.text import LONGEST, Odd, cut

log = logging.getLogger(__name__)

IN_USE = 1
"""Priority of names that usage mentions, and of the list of projects, which has most of them."""
PRIORITY = 3
WORKERS = 4
_LATEST = 100_000_000_000
"""Unix seconds beyond which a number is no time."""
T = TypeVar("T")
S = TypeVar("S", bound=lists.Identified)
Found = Callable[[Names], Awaitable[None]]


class _Person(lists.Identified):
    name: str | None = None
    email: str | None = None


class _Owner(msgspec.Struct):
    user: _Person | None = None
    service_account: _Person | None = None


class _ApiKey(lists.Identified):
    name: str | None = None
    owner: _Owner | None = None
    created_at: int | float | None = None
    last_used_at: int | float | None = None
    expires_at: int | float | None = None


async def _ignore(_: Names) -> None:
    """Ignore a part of the names."""


class OpenAINames:
    """Names of one organization, as its administration API lists them.

    A full reading costs one call per 100 projects, one per 100 users and one per project that is
    not archived (there is no list of all keys, and children of archived projects are refused): with
    500 projects some 510 calls, which is 13 minutes at 60 requests per minute, of which lists may
    use 40. Names that usage mentions are looked up before, with priority. Service accounts are
    named by the keys that they own, which saves another call per project.

    Ids that the key may not list have no name; that is logged once. `missing_scopes` has the scopes to
    grant.
    """

    def __init__(
        self,
        client: Client,
        *,
        now: Callable[[], float] = time.monotonic,
        forget_after: float = 600.0,
        emails: bool = False,
    ) -> None:
        self._emails = emails
        self._key_times: dict[str, list[KeyTimes]] = {}
        """By project, the times of its keys."""
        self._client = client
        self._now = now
        self._forget_after = forget_after
        self._unknown: dict[str, float] = {}
        self._logged: set[tuple[str, str]] = set()
        self._listed: set[str] = set()
        """Projects whose keys were listed since the last full reading began."""
        self.missing_scopes: tuple[str, ...] = ()
        """Scopes that the last reading lacked for a part of the names."""

    async def read(self, found: Found = _ignore) -> Names:
        """All names that can be listed. `found` receives each part of them as it arrives.

        Raises MissingScope if nothing may be listed, else SourceError.

        A list that cannot be read fails the reading when all others were read.
        """
        refused: list[MissingScope] = []
        failed: list[SourceError] = []
        self._listed.clear()
        projects = await self._part(
            listed(self._client, priority=IN_USE, archived=True), refused, failed
        )
        await found(_names(projects, [], [], emails=self._emails))
        people = await self._part(self._users(), refused, failed)
        await found(_names([], [], people, emails=self._emails))
        if len(refused) == 2:
            raise refused[0]
        active = [project.id for project in projects if not project.is_archived]
        keys = await self._all_keys(iter(active), refused, found)
        # A project that is gone, or archived, has no keys that anybody could use.
        self._key_times = {
            project: times for project, times in self._key_times.items() if project in active
        }
        self.missing_scopes = tuple(sorted({scope for error in refused for scope in error.scopes}))
        if failed:
            raise failed[0]
        return _names(projects, keys, people, emails=self._emails)

    async def lookup(
        self,
        projects: Sequence[str],
        api_keys: Sequence[tuple[str, str]],
        found: Found = _ignore,
    ) -> Names:
        """Names of single ids. `found` receives each as it arrives.

        The name of an id that OpenAI does not know is None; that is remembered for ten minutes. An
        id whose answer failed (a 500) is left out. Users are the owners of the keys. If two or more
        keys of a project are wanted, its keys are listed: that is one call.
        """
        paths = {id_: _project_path(id_) for id_ in projects}
        known = await self._found(paths, "organization/projects/{id}", Project, found)
        wanted: dict[str, list[str]] = {}
        for project, key in api_keys:
            wanted.setdefault(project, []).append(key)
        keys: dict[str, _ApiKey | None] = {}
        for project, ids in wanted.items():
            if len(ids) > 1:
                keys |= {key.id: key for key in await self._try_keys(project)}
                await found(
                    _names([], [keys[id_] for id_ in ids if id_ in keys], [], emails=self._emails)
                )
            rest = {
                id_: f"{_project_path(project)}/api_keys/{_quoted(id_)}"
                for id_ in ids
                if id_ not in keys
            }
            keys |= await self._found(
                rest, "organization/projects/{id}/api_keys/{id}", _ApiKey, found
            )
        return Names(
            {id_: _called(item) for id_, item in known.items()},
            {id_: _called(item) for id_, item in keys.items()},
            {
                owner.id: _person_called(owner, emails=self._emails)
                for key in keys.values()
                for owner in _owners(key)
            },
        )

    async def _users(self) -> list[_Person]:
        return await lists.whole(
            self._client,
            "organization/users",
            _Person,
            endpoint="organization/users",
            priority=PRIORITY,
        )

    async def _keys(self, project: str, priority: int = PRIORITY) -> list[_ApiKey]:
        # Without `any`, keys whose owner left the project are hidden, and they may still be used.
        every = [("owner_project_access", "any")]
        path = f"{_project_path(project)}/api_keys"
        endpoint = "organization/projects/{id}/api_keys"
        self._listed.add(project)
        keys = await lists.whole(
            self._client, path, _ApiKey, endpoint=endpoint, priority=priority, params=every
        )
        self._key_times[project] = [_times(project, key) for key in keys]
        return keys

    def key_times(self) -> list[KeyTimes]:
        """The times of the keys that were listed last. A project that could not be listed keeps
        those that it had.
        """
        return [times for of_project in self._key_times.values() for times in of_project]

    async def _try_keys(self, project: str) -> list[_ApiKey]:
        if len(project) >= LONGEST:  # it was cut
            return []
        try:
            return await self._keys(project, IN_USE)
        except Rejected:
            raise
        except SourceError as error:
            # The project is archived, or OpenAI fails: the keys are looked up one by one.
            log.debug(
                "keys not listed",
                extra={"event": "keys_unlisted", "project": project, "error": str(error)},
            )
            return []

    async def _part(
        self,
        reading: Awaitable[list[T]],
        refused: list[MissingScope],
        failed: list[SourceError],
    ) -> list[T]:
        try:
            return await reading
        except (Rejected, NotOffered) as error:
            self._tolerate(error, refused)
        except SourceError as error:
            failed.append(error)
        return []

    def _tolerate(self, error: Rejected | NotOffered, refused: list[MissingScope]) -> None:
        if isinstance(error, MissingScope):
            refused.append(error)
        elif isinstance(error, Rejected):
            raise error
        self._log_once(error)

    async def _all_keys(
        self, projects: Iterator[str], refused: list[MissingScope], found: Found
    ) -> list[_ApiKey]:
        every: list[_ApiKey] = []
        # A key that is refused for one project is refused for all.
        stop: list[Rejected] = []

        async def work() -> None:
            for project in projects:
                if stop:
                    return
                if project in self._listed:
                    # `lookup` listed its keys in the meantime.
                    continue
                try:
                    keys = await self._keys(project)
                    every.extend(keys)
                    await found(_names([], keys, [], emails=self._emails))
                except Rejected as error:
                    stop.append(error)
                except SourceError as error:
                    # One project may always answer 400 or 500; the others are read.
                    self._log_once(error)

        await asyncio.gather(*(work() for _ in range(WORKERS)))
        if stop:
            self._tolerate(stop[0], refused)
        return every

    async def _found(
        self, paths: Mapping[str, str], endpoint: str, item_type: type[S], found: Found
    ) -> dict[str, S | None]:
        items: dict[str, S | None] = {}
        for id_, path in paths.items():
            try:
                body = await self._existing(path, endpoint)
                item = self._read_one(body, item_type, endpoint) if body is not None else None
            except Rejected:
                raise
            except SourceError as error:
                log.debug(
                    "name not read",
                    extra={
                        "event": "name_unread",
                        "endpoint": endpoint,
                        "id": id_,
                        "error": str(error),
                    },
                )
                continue
            items[id_] = item
            if item_type is Project:
                await found(Names({id_: _called(item)}, {}, {}))
            else:
                await found(Names({}, {id_: _called(item)}, {}))
        return items

    def _read_one(self, body: bytes, item_type: type[S], endpoint: str) -> S:
        odd = Odd()
        item: S = lists.one(body, item_type, endpoint, odd)
        self._client.note_odd(endpoint, odd)
        return item

    async def _existing(self, path: str, endpoint: str) -> bytes | None:
        if len(path) > LONGEST:  # it has an id that was cut, which OpenAI does not know
            return None
        now = self._now()
        self._unknown = {known: until for known, until in self._unknown.items() if until > now}
        if path in self._unknown:
            return None
        try:
            return await self._client.get(path, endpoint=endpoint, priority=IN_USE)
        except (NotOffered, BadRequest):
            self._unknown[path] = now + self._forget_after
            return None

    def _log_once(self, error: SourceError) -> None:
        """Log it once for each kind: the text may have a request id in it."""
        kind = (type(error).__name__, error.status_class)
        if kind not in self._logged:
            self._logged.add(kind)
            log.warning(
                "names are incomplete",
                extra={
                    "event": "names_incomplete",
                    "organization": self._client.name,
                    "error": str(error),
                },
            )


def _times(project: str, key: _ApiKey) -> KeyTimes:
    return KeyTimes(
        project, key.id, _time(key.created_at), _time(key.last_used_at), _time(key.expires_at)
    )


def _time(unix: float | None) -> int | None:
    """Unix seconds; None for what is no time: OpenAI has sent 0 for never."""
    if unix is None or not 0 < unix < _LATEST:
        return None
    return int(unix)


def _names(
    projects: Sequence[Project],
    keys: Sequence[_ApiKey | None],
    people: Sequence[_Person],
    *,
    emails: bool,
) -> Names:
    owners = [owner for key in keys for owner in _owners(key)]
    return Names(
        {project.id: _called(project) for project in projects},
        {key.id: _called(key) for key in keys if key is not None},
        {person.id: _person_called(person, emails=emails) for person in (*owners, *people)},
    )


def _owners(key: lists.Identified | None) -> list[_Person]:
    owner = (isinstance(key, _ApiKey) and key.owner) or _Owner()
    return [person for person in (owner.user, owner.service_account) if person is not None]


def _called(item: lists.Identified | None) -> str | None:
    """The name of a project or key."""
    name = item.name if isinstance(item, Project | _ApiKey) else None
    return cut(name) if name else None


def _person_called(person: _Person, *, emails: bool) -> str | None:
    name = (person.email or person.name) if emails else person.name
    return cut(name) if name else None


def _quoted(id_: str) -> str:
    return quote(id_, safe="")


def _project_path(id_: str) -> str:
    return f"organization/projects/{_quoted(id_)}"
