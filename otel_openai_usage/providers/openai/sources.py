"""Usage endpoints and costs as sources of readings."""

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

from otel_openai_usage.domain.endpoints import COST_LIMIT, COSTS, LIMITS, Endpoint
from otel_openai_usage.domain.model import Width, Window, floor, utc
from otel_openai_usage.domain.readings import Bucket, Reading
from otel_openai_usage.errors import (
    BadCursor,
    BadRequest,
    BadResponse,
    BadShape,
    GroupingRefused,
    LookbackExceeded,
    SourceError,
)
from otel_openai_usage.providers.openai import money, wire
from otel_openai_usage.providers.openai.answers import Body
from otel_openai_usage.providers.openai.client import Client
from otel_openai_usage.providers.openai.groupings import refusal
from otel_openai_usage.providers.openai.text import Odd

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Query:
    """What one reading asks for. `known_fingerprints` are by bucket start."""

    window: Window
    width: Width
    grouping: tuple[str, ...]
    known_fingerprints: Mapping[int, bytes]


@dataclass(slots=True)
class _DecodedPage:
    """What a page says of the window. `next_start` is where its newest bucket ends.

    `buckets` has every bucket of the page in the window by its start, None for an unchanged one.
    """

    has_more: bool
    next_page: str | None
    next_start: int | None
    buckets: dict[int, Bucket | None] = field(default_factory=dict)
    organization_ids: dict[int, str] = field(default_factory=dict)
    units: dict[str, set[str]] = field(default_factory=dict)
    memory: object = None


class UsageSource:
    """One endpoint of one organization: complete windows, or an error.

    Parameters are always explicit and aligned, so that a second page is hardly ever needed. Lists
    are sent as `group_by=a&group_by=b`: that is how OpenAI's own document serializes them (form,
    exploded), and nothing in it needs escaping; brackets and commas are reported to work, too. A
    refused grouping raises GroupingRefused. The source does not read with fewer dimensions by
    itself: a bucket must always be read with the grouping that it was first read with, so the
    caller has to know.
    """

    def __init__(self, client: Client, endpoint: Endpoint, *, priority: int = 0) -> None:
        self._priority = priority
        self._client = client
        self._endpoint = endpoint
        self._refusals: dict[tuple[Window, tuple[str, ...]], GroupingRefused] = {}

    @property
    def endpoint(self) -> Endpoint:
        """The table row of this endpoint."""
        return self._endpoint

    async def read(
        self,
        window: Window,
        width: Width,
        group_by: Sequence[str],
        known_fingerprints: Mapping[int, bytes] = MappingProxyType({}),
    ) -> Reading:
        """Read the whole window, or raise SourceError.

        The window starts on a multiple of `width` and is at most what one call may ask for; its end
        is rounded up. Buckets whose fingerprint is the one in `known_fingerprints` (by bucket start)
        are not decoded, and not in the reading.
        """
        if window.start % width:
            raise ValueError(f"{window}: does not start on a multiple of {width.text}")
        whole = Window(window.start, window.end + -window.end % width)
        grouping = self._endpoint.grouping(tuple(group_by))
        query = _Query(whole, width, grouping, known_fingerprints)
        try:
            pages = [page async for page in self._pages(query)]
        except (LookbackExceeded, BadCursor):
            raise
        except BadRequest as error:
            if error.status != 400:
                raise
            raise await self._explained(error, query) from error
        organization_id = await self._organization_id(pages)
        return _reading(pages, organization_id)

    async def _organization_id(self, pages: Sequence[_DecodedPage]) -> str | None:
        """The organization that costs results name, after the client has checked it."""
        if self._endpoint is not COSTS:
            return None
        by_start: dict[int, str] = {}
        for page in pages:
            by_start |= page.organization_ids
        ids = [by_start[start] for start in sorted(by_start)]
        await self._client.check_organization(ids)
        return ids[-1] if ids else None

    def _decoded(self, query: _Query, body: Body) -> _DecodedPage:
        """Decode a page: only its buckets in the window, and of these only the changed ones."""
        page = wire.page(body, self._endpoint)
        ends = [bucket.start + query.width for bucket in page.buckets]
        decoded = _DecodedPage(page.has_more, page.next_page, max(ends, default=None))
        odd = Odd()
        for start, bucket in self._buckets_within(query, page).items():
            if self._endpoint is COSTS:
                organization_id = wire.organization_id(bucket.results)
                if organization_id is not None:
                    decoded.organization_ids[start] = organization_id
            if query.known_fingerprints.get(start) == bucket.fingerprint:
                decoded.buckets[start] = None
                continue
            decoded.buckets[start] = self._decode(bucket, odd, decoded.units)
            decoded.memory = getattr(body, "share", None)
        self._client.note_odd(self._endpoint.path, odd)
        return decoded

    def _decode(self, bucket: wire.RawBucket, odd: Odd, units: dict[str, set[str]]) -> Bucket:
        """The bucket with its rows. Units of costs are added to `units`."""
        results = bucket.results
        if self._endpoint is COSTS:
            results = wire.readable_costs(self._endpoint, results, odd)
            for item, found in money.quantity_units(self._endpoint, results).items():
                units.setdefault(item, set()).update(found)
        rows = wire.rows(self._endpoint, results, odd)
        return Bucket(bucket.start, bucket.fingerprint, rows)

    def _buckets_within(self, query: _Query, page: wire.Page) -> dict[int, wire.RawBucket]:
        """The page's buckets in the window by their start. Rows that repeat in a page add up."""
        found: dict[int, wire.RawBucket] = {}
        for bucket in page.buckets:
            if bucket.start % query.width:
                raise BadShape(
                    f"{self._endpoint.path}: asked for {query.width.text} buckets, "
                    f"got one that starts at {bucket.start}"
                )
            if bucket.start not in query.window:
                log.debug(
                    "bucket outside the window",
                    extra={
                        "event": "bucket_outside_window",
                        "source": self._endpoint.path,
                        "start": bucket.start,
                        "window": str(query.window),
                    },
                )
                continue
            first = found.get(bucket.start)
            if first is None:
                found[bucket.start] = bucket
            else:
                results = wire.joined(first.results, bucket.results)
                found[bucket.start] = wire.bucket(bucket.start, results)
        return found

    async def _pages(self, query: _Query) -> AsyncIterator[_DecodedPage]:
        """The pages of a window, each parameter resent unchanged with the cursor.

        An empty page is the end, whatever it says (costs are known for has_more past it). Where
        OpenAI refuses its own cursor, we go on with a window that starts where the last bucket
        ended.
        """
        path = self._endpoint.path
        window = query.window
        start = window.start
        reached = window.start
        cursor = ""
        seen: set[str] = set()
        for _ in range((window.end - window.start) // query.width + 10):
            try:
                page = await self._page(replace(query, window=Window(start, window.end)), cursor)
            except BadCursor:
                if not cursor or reached <= start:
                    raise
                start = reached
                cursor = ""
                if start >= window.end:
                    return
                continue
            yield page
            if page.next_start is None or not page.has_more:
                return
            if page.next_page is None or page.next_page in seen:
                cursor_text = "no next_page" if page.next_page is None else "a repeated next_page"
                raise BadResponse(
                    f"{path}: has_more is true with {cursor_text}; the window cannot be read whole"
                )
            reached = max(reached, page.next_start)
            cursor = page.next_page
            seen.add(cursor)
        raise BadResponse(
            f"{path}: more pages than the window has buckets; the window cannot be read whole"
        )

    async def _page(self, query: _Query, cursor: str) -> _DecodedPage:
        params = self._params(query)
        if cursor:
            params.append(("page", cursor))
        return await self._client.read(
            f"organization/{self._endpoint.path}",
            partial(self._decoded, query),
            params,
            endpoint=self._endpoint.path,
            priority=self._priority,
        )

    def _params(self, query: _Query) -> list[tuple[str, str]]:
        window = query.window
        buckets = (window.end - window.start) // query.width
        max_buckets = COST_LIMIT if self._endpoint is COSTS else LIMITS[query.width]
        params = [
            ("start_time", str(window.start)),
            ("end_time", str(window.end)),
            ("bucket_width", query.width.text),
            ("limit", str(min(buckets, max_buckets))),
        ]
        params += [("group_by", dimension) for dimension in query.grouping]
        return params

    async def _explained(self, error: BadRequest, query: _Query) -> BadRequest:
        """GroupingRefused if the grouping is what OpenAI refuses, else the error itself."""
        window = query.window
        grouping = query.grouping
        days = Window(floor(window.start, Width.DAY), -(-window.end // Width.DAY) * Width.DAY)
        known = self._refusals.get((days, grouping))
        if known is not None:
            return known

        async def ask(bucket: Window, wanted: tuple[str, ...]) -> bool:
            try:
                await self._page(replace(query, window=bucket, grouping=wanted), "")
            except BadRequest as refused:
                if refused.status != 400 or isinstance(refused, LookbackExceeded | BadCursor):
                    raise
                return False
            return True

        try:
            found = await refusal(ask, window, query.width, grouping)
        except SourceError as failure:
            log.debug(
                "OpenAI does not say now which grouping it refuses",
                extra={
                    "event": "grouping_unclear",
                    "source": self._endpoint.path,
                    "error": str(failure),
                },
            )
            return error
        if found is None:
            return error
        where = "costs.group_by" if self._endpoint is COSTS else "usage.group_by"
        names = ", ".join(found.dimensions)
        until = f" before {utc(found.accepted_from):%Y-%m-%d}" if found.accepted_from else ""
        explained = GroupingRefused(
            f"{error}; OpenAI does not group by {names}{until}: that is from {where}",
            status=error.status,
            dimensions=found.dimensions,
            accepted_from=found.accepted_from,
        )
        self._refusals = {**dict(list(self._refusals.items())[-9:]), (days, grouping): explained}
        return explained


def _reading(pages: Sequence[_DecodedPage], organization_id: str | None) -> Reading:
    """The pages of a window as one reading.

    Pages are cut between buckets, never inside one. A bucket that an earlier page had is the same
    one again, and the later answer is the newer.
    """
    by_start: dict[int, Bucket | None] = {}
    units: dict[str, set[str]] = {}
    for page in pages:
        by_start |= page.buckets
        for item, found in page.units.items():
            units.setdefault(item, set()).update(found)
    changed = []
    for start in sorted(by_start):
        bucket = by_start[start]
        if bucket is not None:
            changed.append(bucket)
    memory = [page.memory for page in pages]
    return Reading(changed, organization_id, units, memory)
