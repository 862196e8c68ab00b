"""Usage and costs: complete windows, or nothing."""

import asyncio
import gc
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar, cast

import pytest
from aiohttp import web

from otel_openai_usage.domain.endpoints import COSTS, ENDPOINTS, USAGE_ENDPOINTS, Endpoint
from otel_openai_usage.domain.model import Width, Window
from otel_openai_usage.errors import (
    BadCursor,
    BadRequest,
    BadResponse,
    BadShape,
    GroupingRefused,
    LookbackExceeded,
    NotOffered,
    Unavailable,
)
from otel_openai_usage.providers.budget import Budget
from otel_openai_usage.providers.openai.client import Client
from otel_openai_usage.providers.openai.sources import UsageSource
from otel_openai_usage.providers.openai.text import Odd
from tests.providers.openai.conftest import Connect
from tests.providers.openai.upstream import Upstream, payload, refusal

T = TypeVar("T")
T0 = 1730419200
EMBEDDINGS = USAGE_ENDPOINTS["embeddings"]
HOUR = Window(T0, T0 + 3600)
CURSOR = "The page token is invalid, have you modified the query parameters?"


def bucket(minute: int, *tokens: int) -> dict[str, Any]:
    """A minute after T0 with a result for each count."""
    start = T0 + 60 * minute
    results = [{"input_tokens": count, "num_model_requests": 1, "model": "m"} for count in tokens]
    return {"object": "bucket", "start_time": start, "end_time": start + 60, "results": results}


def page(*buckets: dict[str, Any], more: bool = False, cursor: str | None = None) -> dict[str, Any]:
    """An envelope."""
    return {"object": "page", "data": list(buckets), "has_more": more, "next_page": cursor}


async def read(client: Client, window: Window = HOUR) -> dict[int, int]:
    """Minute to tokens, as read."""
    source = UsageSource(client, EMBEDDINGS)
    reading = await source.read(window, Width.MINUTE, ["model"])
    starts = [bucket.start for bucket in reading.buckets]
    assert starts == sorted(set(starts))
    return {
        (bucket.start - T0) // 60: sum(int(tokens) for tokens, _ in bucket.rows.values())
        for bucket in reading.buckets
    }


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=str)
async def test_what_is_asked(endpoint: Endpoint, upstream: Upstream, client: Client) -> None:
    """Explicit aligned times, the limit, and only the groupings that the endpoint has, each as a
    parameter of its own.
    """
    upstream.script = [payload(endpoint.name) | {"has_more": False}]
    await UsageSource(client, endpoint).read(
        Window(T0, T0 + 2 * 86400 - 5), Width.DAY, ["model", "project_id", "line_item", "batch"]
    )
    (asked,) = upstream.asked
    assert asked.path == f"organization/{endpoint.path}"
    assert [asked.one(name) for name in ("start_time", "end_time", "bucket_width", "limit")] == [
        str(T0),
        str(T0 + 2 * 86400),
        "1d",
        "2",
    ]
    assert asked.all("group_by") == [
        name for name in endpoint.group_by if name in {"model", "project_id", "line_item", "batch"}
    ]
    assert not asked.all("page")


async def test_pages_are_followed(upstream: Upstream, client: Client) -> None:
    """Every page counts, each parameter is sent again, and order is by time."""
    upstream.script = [
        page(bucket(0, 1), bucket(1, 2), more=True, cursor="p=2"),
        page(bucket(3, 4), bucket(2, 3, 5)),
    ]
    assert await read(client) == {0: 1, 1: 2, 2: 8, 3: 4}
    first, second = (asked.query for asked in upstream.asked)
    assert second == [*first, ("page", "p=2")]


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        ([[bucket(0, 1), bucket(1, 2, 3)], [bucket(1, 2, 3), bucket(2, 4)]], {0: 1, 1: 5, 2: 4}),
        ([[bucket(0, 7)], [bucket(0, 7)], [bucket(0, 7)]], {0: 7}),
        ([[bucket(1, 2), bucket(0, 1)], [bucket(0, 1), bucket(1, 2)]], {0: 1, 1: 2}),
        ([[bucket(0, 7)], [bucket(0, 9)]], {0: 9}),
        ([[bucket(0, 7), bucket(0, 7)]], {0: 14}),
        ([[bucket(0, 7), bucket(0, 7)], [bucket(0, 7), bucket(0, 7)]], {0: 14}),
    ],
    ids=["overlap", "three copies", "out of order", "grown meanwhile", "one page", "both"],
)
async def test_a_bucket_on_several_pages_counts_once(
    pages: list[list[dict[str, Any]]],
    expected: dict[int, int],
    upstream: Upstream,
    client: Client,
) -> None:
    """A bucket that comes again on a later page is the same bucket; rows of one page add up."""
    last = len(pages) - 1
    upstream.script = [
        page(*buckets, more=number < last, cursor=f"p{number}")
        for number, buckets in enumerate(pages)
    ]
    assert await read(client) == expected


async def test_a_refused_cursor_after_buckets_out_of_order(
    upstream: Upstream, client: Client
) -> None:
    """What follows a refused cursor begins after the newest bucket, wherever that stood."""
    upstream.script = [
        page(bucket(1, 2), bucket(0, 1), more=True, cursor="a"),
        refusal(400, CURSOR),
        page(bucket(2, 4)),
    ]
    assert await read(client) == {0: 1, 1: 2, 2: 4}
    assert upstream.asked[-1].one("start_time") == str(T0 + 120)


async def test_days_of_costs_on_two_pages_count_once(upstream: Upstream, client: Client) -> None:
    """Costs of a day that two pages have are that day's costs."""
    answer = payload("costs")
    upstream.script = [answer | {"has_more": True, "next_page": "a"}, answer]
    source = UsageSource(client, COSTS)
    reading = await source.read(Window(T0, T0 + 86400), Width.DAY, ["project_id"])
    (day,) = reading.buckets
    assert day.rows == {(None,) * 5 + ("usd",): (Decimal("0.06"), 0)}


async def test_empty_buckets_are_buckets(upstream: Upstream, client: Client) -> None:
    """An interval without activity is a bucket without rows."""
    upstream.script = [page(bucket(0), bucket(1))]
    assert await read(client) == {0: 0, 1: 0}


async def test_an_empty_page_is_the_end(upstream: Upstream, client: Client) -> None:
    """has_more on a page without buckets is not believed."""
    upstream.script = [page(bucket(0, 1), more=True, cursor="a"), page(more=True, cursor="b")]
    assert await read(client) == {0: 1}


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ([page(bucket(0, 1), more=True)], "no next_page"),
        (
            [page(bucket(0, 1), more=True, cursor="a"), page(bucket(1, 1), more=True, cursor="a")],
            "repeated",
        ),
        ([page(bucket(0, 1), more=True, cursor=str(n)) for n in range(80)], "more pages"),
        ([page({**bucket(0, 1), "start_time": T0 + 7})], str(T0 + 7)),
        ([page(bucket(0, 1), more=True, cursor="a"), {"data": []}], "has_more"),
    ],
)
async def test_what_cannot_be_read_whole(
    script: list[Any], problem: str, upstream: Upstream, client: Client
) -> None:
    """A window that cannot be read whole is an error that names the problem."""
    upstream.script = script
    with pytest.raises(BadResponse, match=f"^usage/embeddings: .*{problem}"):
        await read(client)


async def test_all_or_nothing(upstream: Upstream, client: Client) -> None:
    """When page two fails, page one is not returned."""
    upstream.script = [
        page(bucket(0, 1), more=True, cursor="a"),
        *(web.Response(status=500) for _ in range(4)),
    ]
    with pytest.raises(Unavailable):
        await read(client)


async def test_a_refused_cursor(upstream: Upstream, client: Client) -> None:
    """Where OpenAI refuses its own cursor we go on where the last bucket ended, and nothing is read
    twice.
    """
    upstream.script = [
        page(bucket(0, 1), bucket(1, 2), more=True, cursor="a"),
        refusal(400, CURSOR),
        page(bucket(2, 4), more=True, cursor="b"),
        refusal(400, CURSOR),
        page(bucket(3, 8)),
    ]
    assert await read(client) == {0: 1, 1: 2, 2: 4, 3: 8}
    assert [asked.one("start_time") for asked in upstream.asked] == [
        str(T0 + 60 * n) for n in (0, 0, 2, 2, 3)
    ]
    assert [asked.one("limit") for asked in upstream.asked] == ["60", "60", "58", "58", "57"]
    assert {asked.one("end_time") for asked in upstream.asked} == {str(HOUR.end)}


async def test_a_refused_cursor_at_the_end(upstream: Upstream, client: Client) -> None:
    """A cursor past the window's end that is refused hurts nobody."""
    upstream.script = [page(bucket(59, 1), more=True, cursor="a"), refusal(400, CURSOR)]
    assert await read(client) == {59: 1}


async def test_a_refused_cursor_without_progress(upstream: Upstream, client: Client) -> None:
    """Without a new bucket there is nowhere to go on from."""
    upstream.script = [refusal(400, CURSOR)]
    with pytest.raises(BadCursor):
        await read(client)


async def test_buckets_outside_are_ignored(upstream: Upstream, client: Client) -> None:
    """Buckets outside the requested window are not in the reading."""
    upstream.script = [page(bucket(-1, 9), bucket(0, 1), bucket(60, 9))]
    assert await read(client) == {0: 1}


async def test_an_unaligned_window_is_a_bug(client: Client) -> None:
    """OpenAI would cut the first bucket; so we never ask."""
    with pytest.raises(ValueError, match="multiple of 1m"):
        await read(client, Window(T0 + 1, T0 + 60))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refusal(404, "Invalid URL"), NotOffered),
        (refusal(400, "too far", code="reporting_lookback_exceeded"), LookbackExceeded),
    ],
)
async def test_errors_come_through(
    answer: web.Response, error: type[Exception], upstream: Upstream, client: Client
) -> None:
    """What OpenAI refuses is raised as what it is."""
    upstream.script = [answer]
    with pytest.raises(error):
        await read(client)


@dataclass
class Refusing:
    """Answers like OpenAI where some dimensions are refused, always or before a time."""

    refused: dict[str, float]
    asked: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    stray: int = 0

    async def read(
        self,
        path: str,
        reading: Callable[[bytes], T],
        params: Any,
        *,
        endpoint: str,
        priority: int = 0,
    ) -> T:
        """As `Client.read`."""
        start = int(dict(params)["start_time"])
        wanted = tuple(value for name, value in params if name == "group_by")
        self.asked.append((start, wanted))
        bad = any(start < self.refused.get(name, 0) for name in wanted)
        if bad or len(self.asked) <= self.stray:
            raise BadRequest("GET organization/costs: 400; unsupported combination", status=400)
        return reading(json.dumps(page()).encode())

    def note_odd(self, endpoint: str, odd: Odd) -> None:
        """As `Client.note_odd`; every value of these answers can be read."""


DAY = 86400
ALWAYS = float("inf")
DAYS = Window(T0, T0 + 180 * DAY)


@pytest.mark.parametrize(
    ("refused", "dimensions", "accepted_from"),
    [
        ({"api_key_id": ALWAYS}, ("api_key_id",), None),
        ({"api_key_id": T0 + 100 * DAY}, ("api_key_id",), T0 + 100 * DAY),
        ({"api_key_id": T0 + DAY}, ("api_key_id",), T0 + DAY),
        ({"api_key_id": T0 + 179 * DAY}, ("api_key_id",), T0 + 179 * DAY),
        ({"api_key_id": T0 + 100 * DAY + 7200}, ("api_key_id",), T0 + 101 * DAY),
        ({"project_id": ALWAYS}, ("project_id",), None),
        ({"line_item": ALWAYS, "api_key_id": ALWAYS}, ("line_item", "api_key_id"), None),
        ({"line_item": ALWAYS, "api_key_id": T0 + DAY}, ("line_item",), None),
        ({"line_item": T0 + 9 * DAY, "api_key_id": T0 + DAY}, ("line_item",), T0 + 9 * DAY),
    ],
)
async def test_a_refused_grouping(
    refused: dict[str, float], dimensions: tuple[str, ...], accepted_from: int | None
) -> None:
    """The error says which dimensions OpenAI refuses in the newest part of the window in which it
    refuses any, and where that ends; that takes few questions.
    """
    client = Refusing(refused)
    source = UsageSource(cast(Client, client), COSTS)
    with pytest.raises(GroupingRefused, match="unsupported combination") as caught:
        await source.read(DAYS, Width.DAY, ["project_id", "line_item", "api_key_id"], {})
    assert caught.value.dimensions == dimensions
    assert caught.value.accepted_from == accepted_from
    assert len(client.asked) <= 18


@pytest.mark.parametrize("stray", [1, 2])
async def test_a_stray_400_is_not_about_the_grouping(stray: int) -> None:
    """A 400 that does not come again, or comes without a grouping, too, is raised as it is."""
    client = Refusing({}, stray=stray if stray == 1 else 10**6)
    source = UsageSource(cast(Client, client), COSTS)
    with pytest.raises(BadRequest, match="unsupported combination") as caught:
        await source.read(DAYS, Width.DAY, ["project_id", "line_item", "api_key_id"], {})
    assert not isinstance(caught.value, GroupingRefused)


async def test_trouble_while_asking_what_is_refused(upstream: Upstream, client: Client) -> None:
    """When OpenAI does not answer the questions, the refusal is raised as it came."""
    upstream.script = [refusal(400, "unsupported combination")]  # after that: 404
    with pytest.raises(BadRequest, match="unsupported combination") as caught:
        await UsageSource(client, COSTS).read(
            Window(T0, T0 + 86400), Width.DAY, ["project_id", "line_item"]
        )
    assert not isinstance(caught.value, GroupingRefused)


async def test_costs(upstream: Upstream, client: Client) -> None:
    """Costs are read in days, to the digit, and the reading names the organization if the answer does."""
    answer = payload("costs")
    (result,) = answer["data"][0]["results"]
    result |= {
        "organization_id": "org-1",
        "amount": {"value": "0.0036275000000000000000000000000000001", "currency": "usd"},
    }
    upstream.script = [answer, payload("costs")]
    source = UsageSource(client, COSTS)
    window = Window(T0, T0 + 86400)
    first = await source.read(window, Width.DAY, ["project_id"])
    second = await source.read(window, Width.DAY, ["project_id"])
    assert (first.organization_id, second.organization_id) == ("org-1", None)
    (day,) = second.buckets
    assert day.start == T0
    assert day.rows == {(None,) * 5 + ("usd",): (Decimal("0.06"), 0)}


async def test_a_known_bucket_is_not_decoded(upstream: Upstream, client: Client) -> None:
    """A bucket that still has its known fingerprint is not in the reading; the changed one is."""
    source = UsageSource(client, EMBEDDINGS)
    upstream.script = [page(bucket(0, 1), bucket(1, 2)), page(bucket(0, 1), bucket(1, 3))]
    first = await source.read(HOUR, Width.MINUTE, ["model"])
    known = {bucket.start: bucket.fingerprint for bucket in first.buckets}
    second = await source.read(HOUR, Width.MINUTE, ["model"], known)
    assert [bucket.start for bucket in second.buckets] == [T0 + 60]
    assert list(second.buckets[0].rows.values()) == [(3, 1)]


async def test_a_bucket_that_returns_to_known_content_is_unchanged(
    upstream: Upstream, client: Client
) -> None:
    """The later page decides: a bucket whose newest copy is the known one is not in the reading."""
    source = UsageSource(client, EMBEDDINGS)
    changed = page(bucket(0, 2), more=True, cursor="a")
    upstream.script = [page(bucket(0, 1)), changed, page(bucket(0, 1))]
    first = await source.read(HOUR, Width.MINUTE, ["model"])
    known = {bucket.start: bucket.fingerprint for bucket in first.buckets}
    second = await source.read(HOUR, Width.MINUTE, ["model"], known)
    assert list(second.buckets) == []


async def test_an_unreadable_bucket_fails_the_window_without_a_retry(
    upstream: Upstream, client: Client
) -> None:
    """A count that is no number is a BadShape. The same answer would come again, so it is asked once."""
    broken = bucket(1, 2)
    broken["results"][0]["input_tokens"] = "many"
    upstream.script = [page(bucket(0, 1), broken)]
    with pytest.raises(BadShape, match="input_tokens"):
        await read(client)
    assert len(upstream.asked) == 1


async def test_a_reading_holds_its_share_of_the_memory_budget(
    upstream: Upstream, connect: Connect
) -> None:
    """The share of an answer is given back when its reading is freed, not before."""
    budget = Budget()
    source = UsageSource(await connect(budget=budget), EMBEDDINGS)
    upstream.script = [page(bucket(0, 1))]
    reading = await source.read(HOUR, Width.MINUTE, ["model"])
    assert budget.used > 0
    del reading
    gc.collect()
    assert budget.used == 0


async def test_a_large_page_lets_others_go_on(upstream: Upstream, client: Client) -> None:
    """1,440 buckets of 100 rows are read, and the loop turns meanwhile."""
    upstream.script = [page(*(bucket(minute, *range(100)) for minute in range(1440)))]
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    turning = asyncio.create_task(turn())
    source = UsageSource(client, EMBEDDINGS)
    reading = await source.read(Window(T0, T0 + 86400), Width.MINUTE, ["model"])
    turning.cancel()
    assert len(reading.buckets) == 1440
    assert reading.buckets[-1].rows == {(None, None, None, "m"): (4950, 100)}
    assert turns > 10
