"""Usage endpoints and costs as sources of buckets."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from otel_openai_usage.domain.endpoints import COST_LIMIT, COSTS, LIMITS, Endpoint
from otel_openai_usage.domain.model import Bucket, Rows, Width, Window, floor, utc
from otel_openai_usage.errors import (
    BadCursor,
    BadRequest,
    BadResponse,
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


class UsageSource:
    """One endpoint of one organization: complete windows of undecoded buckets, or an error.

    Parameters are always explicit and aligned, so that a second page is hardly ever needed. Lists
    are sent as `group_by=a&group_by=b`: that is how OpenAI's own document serializes them (form,
    exploded), and nothing in it needs escaping; brackets and commas are reported to work, too. A
    refused grouping is not read with less here: a bucket must always be read with the grouping that
    it was first read with, so the caller has to know. It gets a GroupingRefused.
    """

    def __init__(
        self,
        client: Client,
        endpoint: Endpoint,
        learn_units: Callable[[Mapping[str, set[str]]], None] = lambda units: None,
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._learn_units = learn_units
        self.organization_id: str | None = None
        """As costs results last named it; they may, undeclared. Usage never does."""
        self._refusals: dict[tuple[Window, tuple[str, ...]], GroupingRefused] = {}

    @property
    def endpoint(self) -> Endpoint:
        """The table row of this endpoint."""
        return self._endpoint

    async def read(self, window: Window, width: Width, group_by: Sequence[str]) -> list[Bucket]:
        """Every bucket that OpenAI has in the window, oldest first, or nothing and a SourceError.

        The window starts on a multiple of `width` and is at most what one call may ask for; its end
        is rounded up.
        """
        if window.start % width:
            raise ValueError(f"{window}: does not start on a multiple of {width.text}")
        whole = Window(window.start, window.end + -window.end % width)
        grouping = self._endpoint.grouping(tuple(group_by))
        found: dict[int, Bucket] = {}
        try:
            async for page in self._pages(whole, width, grouping):
                # Pages are cut between buckets, never inside one. A bucket that an earlier page had
                # is the same one again, and the later answer is the newer.
                found |= self._buckets(page, whole, width)
        except (LookbackExceeded, BadCursor):
            raise
        except BadRequest as error:
            if error.status != 400:
                raise
            raise await self._explained(error, whole, width, grouping) from error
        if self._endpoint is COSTS:
            named = [wire.organization_id(found[start].results) for start in sorted(found)]
            ids = [id_ for id_ in named if id_ is not None]
            await self._client.check_organization(ids)
            self.organization_id = ids[-1] if ids else self.organization_id
        return [found[start] for start in sorted(found)]

    def parse(self, results: bytes) -> Rows:
        """The rows of one bucket's results. Of costs, `learn_units` is told the units of quantities."""
        odd = Odd()
        if self._endpoint is COSTS:
            results = wire.readable_costs(self._endpoint, results, odd)
        rows = wire.rows(self._endpoint, results, odd)
        self._client.note_odd(self._endpoint.path, odd)
        if self._endpoint is COSTS:
            self._learn_units(money.quantity_units(self._endpoint, results))
        return rows

    def _buckets(self, page: wire.Page, window: Window, width: Width) -> dict[int, Bucket]:
        """The page's buckets in the window by their start. Rows that repeat in a page add up."""
        found: dict[int, Bucket] = {}
        for bucket in page.buckets:
            if bucket.start % width:
                raise BadResponse(
                    f"{self._endpoint.path}: asked for {width.text} buckets, "
                    f"got one that starts at {bucket.start}"
                )
            if bucket.start not in window:
                log.debug(
                    "bucket outside the window",
                    extra={
                        "source": self._endpoint.path,
                        "start": bucket.start,
                        "window": str(window),
                    },
                )
                continue
            first = found.get(bucket.start)
            found[bucket.start] = (
                bucket
                if first is None
                else wire.bucket(bucket.start, wire.joined(first.results, bucket.results))
            )
        return found

    async def _pages(
        self, window: Window, width: Width, grouping: tuple[str, ...]
    ) -> AsyncIterator[wire.Page]:
        """The pages of a window, each parameter resent unchanged with the cursor.

        An empty page is the end, whatever it says (costs are known for has_more past it). Where
        OpenAI refuses its own cursor, we go on with a window that starts where the last bucket
        ended.
        """
        path = self._endpoint.path
        start = window.start
        reached = window.start
        cursor = ""
        seen: set[str] = set()
        for _ in range((window.end - window.start) // width + 10):
            try:
                page = await self._page(Window(start, window.end), width, grouping, cursor)
            except BadCursor:
                if not cursor or reached <= start:
                    raise
                start = reached
                cursor = ""
                if start >= window.end:
                    return
                continue
            yield page
            if not page.buckets or not page.has_more:
                return
            if page.next_page is None or page.next_page in seen:
                what = (
                    "no next_page" if page.next_page is None else "a next_page that we had before"
                )
                raise BadResponse(
                    f"{path}: has_more is true with {what}; the window cannot be read whole"
                )
            reached = max(reached, *(bucket.start + width for bucket in page.buckets))
            cursor = page.next_page
            seen.add(cursor)
        raise BadResponse(
            f"{path}: more pages than the window has buckets; the window cannot be read whole"
        )

    async def _page(
        self, window: Window, width: Width, grouping: tuple[str, ...], cursor: str
    ) -> wire.Page:
        params = self._params(window, width, grouping)
        if cursor:
            params.append(("page", cursor))
        return await self._client.read(
            f"organization/{self._endpoint.path}", self._read, params, endpoint=self._endpoint.path
        )

    def _read(self, body: Body) -> wire.Page:
        return wire.page(body, self._endpoint)

    def _params(
        self, window: Window, width: Width, grouping: tuple[str, ...]
    ) -> list[tuple[str, str]]:
        most = COST_LIMIT if self._endpoint is COSTS else LIMITS[width]
        return [
            ("start_time", str(window.start)),
            ("end_time", str(window.end)),
            ("bucket_width", width.text),
            ("limit", str(min((window.end - window.start) // width, most))),
            *(("group_by", dimension) for dimension in grouping),
        ]

    async def _explained(
        self, error: BadRequest, window: Window, width: Width, grouping: tuple[str, ...]
    ) -> BadRequest:
        """GroupingRefused if the grouping is what OpenAI refuses, else the error itself."""
        days = Window(floor(window.start, Width.DAY), -(-window.end // Width.DAY) * Width.DAY)
        known = self._refusals.get((days, grouping))
        if known is not None:
            return known

        async def ask(bucket: Window, wanted: tuple[str, ...]) -> bool:
            try:
                await self._page(bucket, width, wanted, "")
            except BadRequest as refused:
                if refused.status != 400 or isinstance(refused, LookbackExceeded | BadCursor):
                    raise
                return False
            return True

        try:
            found = await refusal(ask, window, width, grouping)
        except SourceError as failure_log:
            log.debug(
                "which grouping is refused cannot be found out now",
                extra={"source": self._endpoint.path, "error": str(failure_log)},
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
