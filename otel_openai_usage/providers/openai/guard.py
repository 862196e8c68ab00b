"""Keeps the data of another organization out of the state.

Before a key (or a base URL) is used for the first time with a state that has data, the guard finds
out to which organization the key belongs. Until then no answer for the key is used.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from functools import partial
from typing import NoReturn

from otel_openai_usage.domain.endpoints import COST_LIMIT, COSTS, USAGE_ENDPOINTS
from otel_openai_usage.domain.identity import Identity, Owner, Verdict, compare, from_header
from otel_openai_usage.domain.model import Width, Window, floor
from otel_openai_usage.errors import (
    BadRequest,
    MissingScope,
    NotOffered,
    OtherOrganization,
    SourceError,
)
from otel_openai_usage.providers.openai.client import Client
from otel_openai_usage.providers.openai.projects import listed
from otel_openai_usage.providers.openai.sources import UsageSource
from otel_openai_usage.providers.vault import Vault

log = logging.getLogger(__name__)

PROBE_AGAIN_AFTER = 300.0
"""Seconds after which a key of another organization is probed again."""
MAX_SOURCES = 3
"""Usage endpoints that are asked at most."""
DAYS = 30
"""Days before the newest stored bucket that are asked for."""


class Guard:
    """Admits the keys of one organization. `mono` and `now` are clocks, in seconds."""

    def __init__(
        self,
        client: Client,
        vault: Vault,
        *,
        now: Callable[[], float],
        mono: Callable[[], float],
    ) -> None:
        self._client = client
        self._vault = vault
        self._now = now
        self._mono = mono
        self._lock = asyncio.Lock()
        self._identity = Identity()
        self._marks: tuple[str, ...] = ()
        self._admitted: set[str] = set()
        self._refused: dict[str, tuple[str, float]] = {}

    async def admit(self, secret: str) -> None:
        """Admit a key of the state's organization. Raises OtherOrganization for any other key.

        Raises another SourceError, or StateError, if that cannot be found out now.
        """
        mark = self._vault.mark(secret)
        if mark in self._admitted:
            return
        async with self._lock:
            if mark not in self._admitted:
                await self._check(mark)

    async def answered(self, secret: str, header: str | None) -> None:
        """Compare the header `openai-organization` of an answer. Raises as `admit`."""
        said = from_header(header)
        mark = self._vault.mark(secret)
        if said == Identity():
            return
        if mark not in self._admitted:
            # Another answer revoked the admission in the meantime.
            await self.admit(secret)
        known = self._identity
        if known.ids and said.ids and not known.ids & said.ids:
            await self._refuse((mark,), said)
        if known.alias and said.alias and known.alias != said.alias:
            # The organization was renamed, or another one answers at the same base URL.
            async with self._lock:
                self._admitted.discard(mark)
                await self._check(mark, again=True)
        elif not (said.ids <= known.ids and said.alias in (None, known.alias)):
            await self._remember(said)

    async def named(self, ids: Collection[str]) -> None:
        """Compare the organization ids that costs named. Raises OtherOrganization."""
        said = Identity(ids=frozenset(ids))
        known = self._identity
        if said.ids and known.ids and not known.ids & said.ids:
            # The answer does not say for which of the keys it is.
            await self._refuse(tuple(self._admitted), said)
        self._identity = known | said

    async def _check(self, mark: str, *, again: bool = False) -> None:
        text, since = self._refused.get(mark, ("", 0.0))
        if text and self._mono() - since < PROBE_AGAIN_AFTER:
            raise OtherOrganization(text)
        owner = await self._vault.owner()
        self._identity = owner.identity
        self._marks = owner.marks
        known = mark in owner.marks and not again
        if not known:
            if not owner.is_open:
                await self._compare(owner, mark)
            self._marks = (*(each for each in self._marks if each != mark), mark)
            await self._vault.note(self._identity, self._marks)
        self._refused.pop(mark, None)
        self._admitted.add(mark)

    async def _compare(self, owner: Owner, mark: str) -> None:
        verdict, seen = await identify(self._client, owner, int(self._now()))
        facts = {"organization": self._client.name}
        if verdict is Verdict.OTHER:
            await self._refuse((mark,), seen)
        if verdict is Verdict.UNKNOWN:
            log.warning(
                "no answer shows whether the key is of the organization whose data the state has;"
                " it is assumed to be",
                extra={"event": "organization_unknown", **facts},
            )
        elif owner.marks:
            log.info(
                "the key or base_url changed; it is of the same organization",
                extra={"event": "organization_same", **facts},
            )
        # The newest alias is stored: an organization may be renamed.
        self._identity = Identity(
            owner.identity.ids | seen.ids,
            seen.alias or owner.identity.alias,
            owner.identity.members,
        )

    async def _remember(self, said: Identity) -> None:
        self._identity = self._identity | said
        await self._vault.note(self._identity, self._marks)

    async def _refuse(self, marks: Collection[str], seen: Identity) -> NoReturn:
        """Admit these keys no more. Raises OtherOrganization, also without a key."""
        text = _sentence(self._client.name, self._identity, seen)
        for mark in marks:
            self._refused[mark] = (text, self._mono())
            self._admitted.discard(mark)
        others = tuple(each for each in self._marks if each not in marks)
        if others != self._marks:
            self._marks = others
            await self._vault.note(self._identity, self._marks)
        raise OtherOrganization(text)


def _sentence(name: str, known: Identity, seen: Identity) -> str:
    if known.ids and seen.ids:
        whose = f"of {seen.name}, and the state has the data of {known.name}"
    else:
        whose = (
            "of another organization than the one whose data the state has"
            " (they have no project or API key in common)"
        )
    return (
        f"organization {name!r}: the key, with this base_url, is {whose}. None of its usage is counted:"
        " set state.path to a new file, or give this organization another name;"
        " or put the former key and base_url back"
    )


async def identify(client: Client, owner: Owner, now: int) -> tuple[Verdict, Identity]:
    """Find out in few requests to which organization the client's key belongs, and compare.

    Returns the verdict and the identity that was seen. Raises SourceError if OpenAI does not answer.
    """
    seen = Identity()
    failed: SourceError | None = None
    with client.probing() as headers:
        async for found in _evidence(client, owner, now):
            if isinstance(found, SourceError):
                failed = failed or found
                continue
            for header in headers:
                seen |= from_header(header)
            seen |= found
            verdict = compare(owner.identity, seen)
            if verdict is Verdict.SAME or (owner.identity.ids and seen.ids):
                return verdict, seen
    verdict = compare(owner.identity, seen)
    is_known = bool(owner.identity.members or owner.identity.ids or owner.identity.alias)
    if failed is not None and is_known:
        raise failed
    if owner.identity.members and owner.counted:
        return Verdict.OTHER, seen
    return verdict, seen


async def _evidence(
    client: Client, owner: Owner, now: int
) -> AsyncIterator[Identity | SourceError]:
    """Yield the identity that each answer shows, or the error.

    Nothing is yielded for an endpoint that the key may not read or that does not exist.
    """
    asking: list[Callable[[], Awaitable[Identity]]] = [partial(_costs, client, owner, now)]
    newest = [pair for pair in owner.newest if pair[0] in USAGE_ENDPOINTS][:MAX_SOURCES]
    asking += [partial(_usage, client, name, end) for name, end in newest]
    asking.append(partial(_projects, client))
    for ask in asking:
        try:
            yield await ask()
        except (MissingScope, NotOffered, BadRequest) as error:
            log.debug(
                "an endpoint does not identify the key",
                extra={"event": "key_not_identified", "error": str(error)},
            )
        except SourceError as error:
            yield error


async def _costs(client: Client, owner: Owner, now: int) -> Identity:
    """The identity that costs show: the only answers that may name the organization's id."""
    today = floor(now, Width.DAY)
    newest = dict(owner.newest).get(COSTS.name)
    first = min(today, floor(newest - 1, Width.DAY)) if newest else today
    end = today + Width.DAY
    start = max(first - DAYS * Width.DAY, end - COST_LIMIT * Width.DAY)
    source = UsageSource(client, COSTS)
    reading = await source.read(Window(start, end), Width.DAY, ("project_id",))
    ids = {reading.organization_id} if reading.organization_id else set()
    place = COSTS.dimensions.index("project_id")
    members = {dims[place] for bucket in reading.buckets for dims in bucket.rows}
    return Identity(frozenset(ids), None, frozenset(filter(None, members)))


async def _usage(client: Client, name: str, newest: int) -> Identity:
    """The identity that usage shows on days of which the state has rows.

    The same organization has the same ids of projects and API keys there.
    """
    endpoint = USAGE_ENDPOINTS[name]
    end = floor(newest - 1, Width.DAY) + Width.DAY
    source = UsageSource(client, endpoint)
    wanted = endpoint.grouping(("project_id", "api_key_id"))
    reading = await source.read(Window(end - DAYS * Width.DAY, end), Width.DAY, wanted)
    places = [endpoint.dimensions.index(each) for each in wanted]
    members = {
        dims[place] for bucket in reading.buckets for dims in bucket.rows for place in places
    }
    return Identity(members=frozenset(filter(None, members)))


async def _projects(client: Client) -> Identity:
    """The projects, archived ones included."""
    found = await listed(client, priority=0, archived=True)
    return Identity(members=frozenset(project.id for project in found))
