"""The simulated API over real HTTP: questions, cursors, refusals, trouble, and what tests may ask
of it.
"""

import asyncio
import base64
import json
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import aiohttp
import pytest

from otel_openai_usage.domain.endpoints import ENDPOINTS
from otel_openai_usage.domain.model import Window
from otel_openai_usage.errors import ListenError
from otel_openai_usage.simulator.faults import ANSWERS, CHANGES, Fault, Faults
from otel_openai_usage.simulator.lateness import HARSH
from otel_openai_usage.simulator.server import application, running, serve
from otel_openai_usage.simulator.world import World
from tests.simulator.conftest import DAY, HOUR, THURSDAY, Api, Reply

COMPLETIONS = "usage/completions"
MORNING: dict[str, Any] = {
    "start_time": THURSDAY + 9 * HOUR,
    "end_time": THURSDAY + 10 * HOUR,
    "bucket_width": "1m",
}


def data(reply: Reply) -> list[dict[str, Any]]:
    """The buckets of an answer."""
    assert reply.status == 200, reply.text
    found: Any = reply.json["data"]
    return list(found)


def edges(reply: Reply) -> list[tuple[int, int]]:
    """When each bucket starts and ends, from the start of Thursday."""
    return [
        (bucket["start_time"] - THURSDAY, bucket["end_time"] - THURSDAY) for bucket in data(reply)
    ]


def rows(reply: Reply) -> list[dict[str, Any]]:
    """All rows of an answer."""
    return [row for bucket in data(reply) for row in bucket["results"]]


def message(reply: Reply) -> str:
    """The message of an error."""
    error: Any = reply.json["error"]
    return str(error["message"])


# --- time


async def test_buckets_are_clipped_to_the_question(api: Api) -> None:
    """The first bucket starts at the question's minute, the others at edges of the width, the last
    ends with the question.
    """
    reply = await api.get(
        COMPLETIONS,
        start_time=THURSDAY + 1805,
        end_time=THURSDAY + 2 * HOUR + 90,
        bucket_width="1h",
    )
    assert edges(reply) == [(1800, HOUR), (HOUR, 2 * HOUR), (2 * HOUR, 2 * HOUR + 90)]


async def test_the_running_bucket_ends_now(api: Api) -> None:
    """Without an end, and with one in the future, the last bucket ends at the time of the request."""
    now = int(api.now.timestamp()) - THURSDAY
    ends: list[dict[str, Any]] = [{}, {"end_time": THURSDAY + DAY}]
    for end in ends:
        reply = await api.get(
            COMPLETIONS, start_time=THURSDAY + 15 * HOUR - 60, bucket_width="1h", **end
        )
        assert edges(reply) == [(15 * HOUR - 60, 15 * HOUR), (15 * HOUR, now)]


async def test_quiet_buckets_are_there_and_empty(api: Api) -> None:
    """A minute without images is a bucket with no results."""
    reply = await api.get(
        "usage/images", start_time=THURSDAY, end_time=THURSDAY + HOUR, bucket_width="1m"
    )
    assert len(data(reply)) == 60
    assert rows(reply) == []


async def test_widths_limit_and_default(api: Api) -> None:
    """7 days, 24 hours and 60 minutes come if nobody says how many, and has_more tells that there
    are more.
    """
    for width, count in (("1d", 7), ("1h", 24), ("1m", 60)):
        reply = await api.get(COMPLETIONS, start_time=THURSDAY - 30 * DAY, bucket_width=width)
        assert (len(data(reply)), reply.json["has_more"]) == (count, True)
    assert len(data(await api.get(COMPLETIONS, start_time=THURSDAY - 30 * DAY))) == 7


async def test_costs_come_in_whole_utc_days(api: Api) -> None:
    """Unaligned times are floored to their dates, and the running day ends at the next midnight."""
    reply = await api.get("costs", start_time=THURSDAY - DAY + 50_000, end_time=THURSDAY + 4000)
    assert edges(reply) == [(-DAY, 0)]
    reply = await api.get("costs", start_time=THURSDAY - DAY + 50_000)
    assert edges(reply) == [(-DAY, 0), (0, DAY)]
    same = await api.get("costs", start_time=THURSDAY + 100, end_time=THURSDAY + 4000)
    assert (same.status, "same date" in message(same)) == (400, True)


async def test_what_comes_over_http_is_the_truth(api: Api) -> None:
    """The rows of an hour by minutes, grouped by all, add up to the world's totals."""
    endpoint = ENDPOINTS["completions"]
    reply = await api.get(COMPLETIONS, **MORNING, group_by=list(endpoint.group_by))
    sums: dict[tuple[object, ...], list[int]] = {}
    for row in rows(reply):
        dims = tuple(
            str(row[name]).lower() if name == "batch" else row[name] for name in endpoint.dimensions
        )
        sums[dims] = [
            before + row[measure.field]
            for before, measure in zip(
                sums.get(dims, endpoint.zero), endpoint.measures, strict=True
            )
        ]
    truth = api.simulation.world.totals(
        "completions", Window(THURSDAY + 9 * HOUR, THURSDAY + 10 * HOUR), endpoint.group_by
    )
    assert sums == {dims: list(amounts) for dims, amounts in truth.items()}


async def test_a_settled_bucket_is_the_same_from_the_cache(api: Api) -> None:
    """Asked again, cut differently, or under other lateness, a settled bucket says the same; one
    that settled meanwhile is told anew.
    """
    api.simulation.world.lateness = HARSH
    early = await api.get(COMPLETIONS, **MORNING, group_by="model")
    api.now += api.simulation.world.settles_after
    late = await api.get(COMPLETIONS, **MORNING, group_by="model")
    assert (
        data(early) != data(late) == data(await api.get(COMPLETIONS, **MORNING, group_by="model"))
    )
    part = await api.get(
        COMPLETIONS,
        start_time=THURSDAY + 9 * HOUR + 600,
        end_time=THURSDAY + 9 * HOUR + 690,
        bucket_width="1m",
        group_by="model",
    )
    assert data(part)[0] == data(late)[10]
    assert edges(part)[1] == (9 * HOUR + 660, 9 * HOUR + 690)


async def test_a_clipped_bucket_is_a_part_of_the_whole(api: Api) -> None:
    """An hour that the question cuts in half says less than the whole hour, though the whole one
    was asked for before.
    """
    hour: dict[str, Any] = {"start_time": THURSDAY + 9 * HOUR, "bucket_width": "1h"}
    (whole,) = rows(await api.get(COMPLETIONS, **hour, end_time=THURSDAY + 10 * HOUR))
    (half,) = rows(await api.get(COMPLETIONS, **hour, end_time=THURSDAY + 9 * HOUR + 1800))
    (rest,) = rows(
        await api.get(
            COMPLETIONS,
            **hour | {"start_time": THURSDAY + 9 * HOUR + 1800},
            end_time=THURSDAY + 10 * HOUR,
        )
    )
    assert half["input_tokens"] + rest["input_tokens"] == whole["input_tokens"]
    assert half["input_tokens"] > 0 < rest["input_tokens"]


async def test_token_fields_add_up_as_openai_says(api: Api) -> None:
    """Input is uncached, cached and written; uncached is text, audio and image; output is text,
    audio and image.
    """
    found = rows(
        await api.get(COMPLETIONS, start_time=THURSDAY - DAY, end_time=THURSDAY, group_by="model")
    )
    assert len(found) >= 10
    for row in found:
        assert (
            row["input_tokens"]
            == row["input_uncached_tokens"]
            + row["input_cached_tokens"]
            + row["input_cache_write_tokens"]
        )
        assert (
            row["input_uncached_tokens"]
            == row["input_text_tokens"] + row["input_audio_tokens"] + row["input_image_tokens"]
        )
        assert row["input_cached_tokens"] == sum(
            row[f"input_cached_{what}_tokens"] for what in ("text", "audio", "image")
        )
        assert (
            row["output_tokens"]
            == row["output_text_tokens"] + row["output_audio_tokens"] + row["output_image_tokens"]
        )
        assert (
            row["input_cache_write_tokens"]
            == row["input_cache_write_30m_tokens"] + row["input_cache_write_12h_tokens"]
        )
    assert any(row["output_image_tokens"] for row in found)
    assert any(row["input_audio_tokens"] for row in found)
    assert any(row["input_cache_write_tokens"] for row in found)


# --- cursors


async def test_a_cursor_is_what_it_is_at_openai(api: Api) -> None:
    """A page token is page_ and 20 bytes: when it was first asked, a hash, where the next bucket
    starts.
    """
    reply = await api.get("costs", start_time=THURSDAY - 9 * DAY, end_time=THURSDAY)
    token = str(reply.json["next_page"])
    packed = base64.urlsafe_b64decode(token.removeprefix("page_"))
    assert (token[:5], len(packed)) == ("page_", 20)
    assert int.from_bytes(packed[:8], "big") == int(api.now.timestamp())
    assert int.from_bytes(packed[12:], "big") == THURSDAY - 2 * DAY


async def test_a_cursor_freezes_now(api: Api) -> None:
    """Pages that are asked for later end where the first page would have ended."""
    params: dict[str, Any] = {"start_time": THURSDAY, "bucket_width": "1h", "limit": 10}
    first = await api.get(COMPLETIONS, **params)
    then = int(api.now.timestamp())
    api.now += timedelta(hours=3)
    second = await api.get(COMPLETIONS, **params, page=first.json["next_page"])
    assert (edges(second)[-1][1], second.json["has_more"]) == (then - THURSDAY, False)


@pytest.mark.parametrize(
    "page", ["page_nonsense", "", "page_AAAAAGk9P4XXKcmpAAAAAGWDgAA=", "page_ü"]
)
async def test_a_foreign_cursor_is_refused(api: Api, page: str) -> None:
    """A token of another question, or none at all, is OpenAI's 400."""
    reply = await api.get(COMPLETIONS, start_time=THURSDAY, page=page)
    assert (reply.status, message(reply)) == (
        400,
        "The page token is invalid, have you modified the query parameters?",
    )


async def test_a_cursor_belongs_to_its_question(api: Api) -> None:
    """The right token with other parameters is refused."""
    first = await api.get(COMPLETIONS, start_time=THURSDAY, bucket_width="1h", limit=2)
    other = await api.get(
        COMPLETIONS, start_time=THURSDAY, bucket_width="1h", limit=3, page=first.json["next_page"]
    )
    assert other.status == 400


# --- parameters


@pytest.mark.parametrize(
    "pairs",
    [
        [("group_by", "model,batch")],
        [("group_by", "model"), ("group_by", "batch")],
        [("group_by[]", "model"), ("group_by[]", "batch")],
    ],
    ids=["comma", "repeated", "brackets"],
)
async def test_lists_can_be_spelt_three_ways(api: Api, pairs: list[tuple[str, str]]) -> None:
    """`a,b`, repetition and brackets all group by both."""
    base = [
        ("start_time", str(THURSDAY)),
        ("end_time", str(THURSDAY + HOUR)),
        ("bucket_width", "1h"),
    ]
    reply = await api.raw(f"/v1/organization/{COMPLETIONS}", base + pairs)
    found = {(row["model"], row["batch"]) for row in rows(reply)}
    assert len(found) > 3
    assert all(model is not None and isinstance(batch, bool) for model, batch in found)


async def test_filters_choose(api: Api) -> None:
    """Projects, models, keys and batch narrow the rows down; a line item is matched in full."""
    company = api.simulation.world.company
    reply = await api.get(
        COMPLETIONS,
        **MORNING,
        group_by="project_id,model,batch",
        project_ids=[company.projects[0].id],
        batch="false",
    )
    assert {row["project_id"] for row in rows(reply)} == {company.projects[0].id}
    assert {row["batch"] for row in rows(reply)} == {False}
    reply = await api.get(
        COMPLETIONS,
        **MORNING,
        group_by="model,api_key_id",
        models="o3-2025-04-16",
        api_key_ids=company.keys[3].id,
    )
    assert {(row["model"], row["api_key_id"]) for row in rows(reply)} == {
        ("o3-2025-04-16", company.keys[3].id)
    }
    item = "gpt-4o-2024-08-06, output"
    reply = await api.get("costs", start_time=THURSDAY, group_by="line_item", line_items=[item])
    assert {row["line_item"] for row in rows(reply)} == {item}


@pytest.mark.parametrize(
    ("path", "params"),
    [
        (COMPLETIONS, {}),
        (COMPLETIONS, {"start_time": "yesterday"}),
        (COMPLETIONS, {"start_time": THURSDAY, "end_time": THURSDAY}),
        (COMPLETIONS, {"start_time": THURSDAY, "bucket_width": "5m"}),
        (COMPLETIONS, {"start_time": THURSDAY, "limit": 32}),
        (COMPLETIONS, {"start_time": THURSDAY, "limit": 0}),
        (COMPLETIONS, {"start_time": THURSDAY, "limit": 1441, "bucket_width": "1m"}),
        (COMPLETIONS, {"start_time": THURSDAY, "limit": 169, "bucket_width": "1h"}),
        (COMPLETIONS, {"start_time": THURSDAY, "group_by": "line_item"}),
        (COMPLETIONS, {"start_time": THURSDAY, "batch": "maybe"}),
        (COMPLETIONS, {"start_time": THURSDAY, "colour": "red"}),
        ("usage/embeddings", {"start_time": THURSDAY, "batch": "true"}),
        ("usage/vector_stores", {"start_time": THURSDAY, "group_by": "model"}),
        ("usage/vector_stores", {"start_time": THURSDAY, "models": "gpt-5"}),
        ("costs", {"start_time": THURSDAY, "bucket_width": "1h"}),
        ("costs", {"start_time": THURSDAY, "limit": 181}),
        ("projects", {"limit": 101}),
        ("projects", {"after": "proj_nobody"}),
        ("users", {"limit": "many"}),
    ],
)
async def test_nonsense_is_refused(api: Api, path: str, params: dict[str, Any]) -> None:
    """What the endpoint does not take is a 400 in the error envelope."""
    reply = await api.get(path, **params)
    error: Any = reply.json["error"]
    assert (reply.status, error["type"]) == (400, "invalid_request_error")


# --- trouble


async def test_a_hard_rate_limit(api: Api) -> None:
    """Beyond the limit there are 429s that say how long to wait, and after that it goes on."""
    api.simulation.faults.requests_per_minute = 3
    replies = [await api.get("users") for _ in range(5)]
    assert [reply.status for reply in replies] == [200, 200, 200, 429, 429]
    api.now += timedelta(seconds=int(replies[-1].headers["Retry-After"]))
    assert (await api.get("users")).status == 200
    api.simulation.faults.add(Fault("rate_limit", retry_after="Thu, 19 Nov 2026 15:05:00 GMT"))
    assert (await api.get("users")).headers["Retry-After"] == "Thu, 19 Nov 2026 15:05:00 GMT"


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        (Fault("rate_limit"), 429, "rate_limit_exceeded"),
        (Fault("error"), 500, "server_error"),
        (Fault("error", status=503), 503, "server_error"),
        (Fault("html"), 502, "<html>"),
        (Fault("wrong_key"), 401, "invalid_api_key"),
        (Fault("missing_scope"), 403, "Missing scopes: api.usage.read."),
        (Fault("missing_scope", status=401), 401, "Missing scopes: api.usage.read."),
        (Fault("not_found"), 404, "Invalid URL (GET /v1/organization/usage/completions)"),
        (Fault("lookback"), 400, "reporting_lookback_exceeded"),
        (Fault("refused_group", group="model"), 400, "Grouping by model"),
    ],
    ids=lambda part: part.kind if isinstance(part, Fault) else None,
)
async def test_trouble_instead_of_an_answer(api: Api, fault: Fault, status: int, text: str) -> None:
    """Each such fault answers with its status and body, once if it is to happen once, and only
    below its path.
    """
    fault.times = 1
    fault.path = "usage/"
    api.simulation.faults.add(fault)
    assert (await api.get("users")).status == 200
    first = await api.get(COMPLETIONS, **MORNING, group_by="model")
    assert (first.status, text in first.text) == (status, True)
    assert (await api.get(COMPLETIONS, **MORNING, group_by="model")).status == 200


async def test_a_grouping_that_is_refused_before_a_date(api: Api) -> None:
    """A grouping can be refused for questions that begin before a date; Unix seconds do, too."""
    day = f"{datetime.fromtimestamp(THURSDAY, UTC):%Y-%m-%d}"
    for before in (day, THURSDAY):
        api.simulation.faults.faults = [Fault("refused_group", group="model", before=before)]
        statuses = []
        for start in (THURSDAY - 60, THURSDAY):
            asked: dict[str, Any] = {
                "start_time": start,
                "end_time": THURSDAY + HOUR,
                "bucket_width": "1m",
            }
            statuses.append((await api.get(COMPLETIONS, **asked, group_by="model")).status)
            assert (await api.get(COMPLETIONS, **asked)).status == 200
        assert statuses == [400, 200]


async def test_pages_that_overlap(api: Api) -> None:
    """Each page begins with the last bucket of the page before, whole, and the pages end."""
    whole = data(await api.get(COMPLETIONS, **MORNING, limit=60))
    api.simulation.faults.faults = [Fault("overlapping_pages")]
    pages: list[list[dict[str, Any]]] = []
    more: dict[str, Any] = {}
    while True:
        reply = await api.get(COMPLETIONS, **MORNING, limit=14, **more)
        pages.append(data(reply))
        if not reply.json["has_more"]:
            break
        more = {"page": reply.json["next_page"]}
    assert len(pages) > 5
    assert [page[0] for page in pages[1:]] == [page[-1] for page in pages[:-1]]
    assert pages[0] + [bucket for page in pages[1:] for bucket in page[1:]] == whole


async def test_hours_that_lag_behind_days(api: Api) -> None:
    """Hours show what was shown a while ago; minutes and days show everything."""
    question: dict[str, Any] = {"start_time": THURSDAY, "end_time": THURSDAY + 15 * HOUR}

    async def tokens(width: str) -> int:
        limit = {"1m": 1440, "1h": 24, "1d": 1}[width]
        reply = await api.get(COMPLETIONS, **question, bucket_width=width, limit=limit)
        return sum(row["input_tokens"] for row in rows(reply))

    before = [await tokens(width) for width in ("1m", "1h", "1d")]
    assert len(set(before)) == 1
    api.simulation.faults.faults = [Fault("lagging_hours", seconds=4 * HOUR)]
    minutes, hours, days = [await tokens(width) for width in ("1m", "1h", "1d")]
    assert minutes == days == before[0]
    assert 0 < hours < days


async def test_trouble_with_the_connection(api: Api) -> None:
    """Connections that break, answers that are cut or never come, each once; then all is well."""
    usual = await api.get(COMPLETIONS, **MORNING)
    faults = api.simulation.faults
    faults.faults = [
        Fault("disconnect")
    ]  # more than once, because aiohttp itself asks again on a connection that it kept
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await api.get(COMPLETIONS, **MORNING)
    faults.faults = [Fault("cut")]
    with pytest.raises(aiohttp.ClientPayloadError):
        await api.get(COMPLETIONS, **MORNING)
    faults.faults = [Fault("timeout", times=1, seconds=5)]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(api.get(COMPLETIONS, **MORNING), 0.1)
    faults.faults = [Fault("truncated", times=1)]
    half = await api.get(COMPLETIONS, **MORNING)
    assert half.text == usual.text[: len(usual.text) // 2]
    faults.faults = [Fault("slow", times=1, seconds=0.2)]
    before = asyncio.get_running_loop().time()
    assert (await api.get(COMPLETIONS, **MORNING)).text == usual.text
    assert asyncio.get_running_loop().time() - before >= 0.2
    faults.faults = [Fault("bare_error"), Fault("error", times=1)]
    assert isinstance((await api.get(COMPLETIONS, **MORNING)).json["error"], str)
    assert (await api.get(COMPLETIONS, **MORNING)).text == usual.text


async def test_trouble_with_cursors(api: Api) -> None:
    """Cursors can be missing, repeated, refused though right, or lead to an empty page."""
    params = MORNING | {"limit": 40}
    token = (await api.get(COMPLETIONS, **params)).json["next_page"]
    faults = api.simulation.faults
    faults.faults = [Fault("null_cursor")]
    reply = await api.get(COMPLETIONS, **params)
    assert (reply.json["has_more"], reply.json["next_page"]) == (True, None)
    faults.faults = [Fault("repeated_cursor")]
    reply = await api.get(COMPLETIONS, **params, page=token)
    assert (reply.json["has_more"], reply.json["next_page"]) == (True, token)
    faults.faults = [Fault("bad_cursor")]
    assert [
        (await api.get(COMPLETIONS, **params)).status,
        (await api.get(COMPLETIONS, **params, page=token)).status,
    ] == [200, 400]
    faults.faults = [Fault("empty_more")]
    last = await api.get(COMPLETIONS, **params, page=token)
    assert (len(data(last)), last.json["has_more"]) == (20, True)
    beyond = await api.get(COMPLETIONS, **params, page=last.json["next_page"])
    assert (data(beyond), beyond.json["has_more"], beyond.json["next_page"]) == ([], False, None)


async def test_odd_rows(api: Api) -> None:
    """Numbers as floats, doubled rows, lost keys, missing and unknown fields: the totals are the
    same.
    """
    asked = MORNING | {"group_by": "user_id,api_key_id,model"}
    usual = rows(await api.get(COMPLETIONS, **asked))
    whole = sum(row["input_tokens"] for row in usual)
    faults = api.simulation.faults
    faults.faults = [Fault("integral_floats")]
    odd = rows(await api.get(COMPLETIONS, **asked))
    assert {type(row["input_tokens"]) for row in odd} == {float}
    assert sum(row["input_tokens"] for row in odd) == whole
    faults.faults = [Fault("duplicate_rows")]
    odd = rows(await api.get(COMPLETIONS, **asked))
    assert (len(odd), sum(row["input_tokens"] for row in odd)) == (2 * len(usual), whole)
    faults.faults = [Fault("null_dims")]
    odd = rows(await api.get(COMPLETIONS, **asked))
    assert {(row["user_id"], row["api_key_id"]) for row in odd} == {(None, None)}
    assert sum(row["input_tokens"] for row in odd) == whole
    faults.faults = [Fault("missing_optional")]
    odd = rows(await api.get(COMPLETIONS, **asked))
    assert all({"input_cached_tokens", "project_id"}.isdisjoint(row) for row in odd)
    faults.faults = [Fault("unknown_fields"), Fault("no_iso")]
    reply = await api.get(COMPLETIONS, **asked)
    assert {"region", "labels"} <= set(rows(reply)[0])
    assert (
        "data_as_of" in reply.json,
        "settled" in data(reply)[0],
        "start_time_iso" in data(reply)[0],
    ) == (True, True, False)


@pytest.mark.parametrize(
    ("fault", "written"),
    [
        ("money_string", str),
        ("money_long", Decimal),
        ("money_long_string", str),
        ("duplicate_rows", Decimal),
    ],
)
async def test_money_is_exact_however_it_is_written(api: Api, fault: str, written: type) -> None:
    """As number, string or 34 digits, the amounts read as decimals are the true costs; zero may be
    0E-6176.
    """
    api.simulation.faults.add(Fault(fault))
    reply = await api.get(
        "costs", start_time=THURSDAY - DAY, end_time=THURSDAY, group_by="line_item"
    )
    read = json.loads(reply.text, parse_float=Decimal, parse_int=Decimal)
    sums: dict[str, Decimal] = {}
    for row in read["data"][0]["results"]:
        value: Any = row["amount"]["value"]
        assert type(value) is written
        sums[row["line_item"]] = sums.get(row["line_item"], Decimal(0)) + Decimal(str(value))
    truth = api.simulation.world.cost_totals(Window(THURSDAY - DAY, THURSDAY), ("line_item",))
    assert sums == {dims[1]: amounts[0] for dims, amounts in truth.items()}
    assert ("0E-6176" in reply.text) == fault.startswith("money_long")
    if fault == "money_long_string":
        values = [row["amount"]["value"] for row in read["data"][0]["results"]]
        assert max(len(value.replace(".", "").lstrip("0")) for value in values) == 34


def test_faults_are_deterministic() -> None:
    """Two sets of one seed strike the same requests; `after` and `times` count."""

    def struck(seed: int) -> list[int]:
        faults = Faults(
            [Fault("error", probability=0.3), Fault("html", after=2, times=3)],
            rng=random.Random(seed),
        )
        return [len(faults.strike("costs")) for _ in range(50)]

    assert struck(1) == struck(1) != struck(2)
    counted = Faults([Fault("html", after=2, times=3)])
    assert [len(counted.strike("costs")) for _ in range(8)] == [0, 0, 1, 1, 1, 0, 0, 0]


def test_an_unknown_fault_is_refused() -> None:
    """A fault that nobody knows, and a probability beyond 1, raise ValueError."""
    with pytest.raises(ValueError, match="rate_limit"):
        Fault("gremlins")
    with pytest.raises(ValueError, match="from 0 to 1"):
        Fault("error", probability=7)


# --- for tests and demos


async def test_the_truth_over_http(api: Api) -> None:
    """/simulator/totals tells what the world's own totals tell."""
    start = THURSDAY + 9 * HOUR
    pairs = [
        ("kind", "completions"),
        ("start", str(start)),
        ("end", str(start + HOUR)),
        ("group_by", "project_id,model"),
    ]
    reply = await api.raw("/simulator/totals", pairs, key=None)
    endpoint = ENDPOINTS["completions"]
    told: Any = reply.json["rows"]
    found = {
        tuple(row["dims"][name] for name in endpoint.dimensions): tuple(
            map(int, row["amounts"].values())
        )
        for row in told
    }
    assert found == api.simulation.world.totals(
        "completions", Window(start, start + HOUR), ("project_id", "model")
    )
    assert (
        await api.raw(
            "/simulator/totals", [("kind", "telepathy"), ("start", "0"), ("end", "60")], key=None
        )
    ).status == 400


async def test_trouble_can_be_switched_over_http(api: Api) -> None:
    """A POST replaces the faults; a malformed one is a 400 that changes nothing."""
    reply = await api.post(
        "faults", {"faults": [{"kind": "error", "status": 502}], "requests_per_minute": 100}
    )
    assert reply.status == 200
    assert (await api.get("users")).status == 502
    malformed: list[Any] = [
        {"faults": [{"kind": "gremlins"}]},
        {"faults": [{"kind": "html", "colour": 1}]},
        {"faults": {}},
        {"faults": [{}]},
        [],
    ]
    for wrong in malformed:
        assert (await api.post("faults", wrong)).status == 400
    assert (await api.get("users")).status == 502
    assert (await api.post("faults", {})).status == 200
    assert (await api.get("users")).status == 200


async def test_keys_and_lateness_can_be_switched_over_http(api: Api) -> None:
    """A rotated key is refused and the new one accepted; lateness takes a preset's name."""
    assert (
        await api.post("keys", {"sk-admin-rotated": ["api.usage.read", "api.management.read"]})
    ).status == 200
    assert [
        (await api.get("users")).status,
        (await api.get("users", key="sk-admin-rotated")).status,
    ] == [401, 200]
    assert (await api.post("lateness", {"preset": "harsh"})).status == 200
    assert api.simulation.world.lateness == HARSH
    assert (await api.post("lateness", {"preset": "never"})).status == 400
    assert (await api.post("keys", {"sk": "all"})).status == 400


async def test_requests_are_remembered_without_keys(api: Api) -> None:
    """The log has time, path, parameters and status of each request, and no key."""
    await api.get("costs", start_time=THURSDAY, group_by=["project_id", "line_item"])
    await api.get("users", key="sk-admin-wrong")
    reply = await api.raw("/simulator/requests", [], key=None)
    log = json.loads(reply.text)
    assert [(entry["path"], entry["status"]) for entry in log] == [
        ("/v1/organization/costs", 200),
        ("/v1/organization/users", 401),
    ]
    assert log[0]["params"] == [
        ["start_time", str(THURSDAY)],
        ["group_by", "project_id"],
        ["group_by", "line_item"],
    ]
    assert "sk-admin" not in reply.text


async def test_the_page_says_what_it_is(api: Api) -> None:
    """GET / says that this is a simulation, and of which seed."""
    reply = await api.raw("/", [], key=None)
    assert "This is not OpenAI" in reply.text
    assert "seed 7" in reply.text


async def test_serve_tells_where_and_refuses_a_taken_port() -> None:
    """`serve` calls back with its URL once it answers there; on a port that is taken it raises
    ListenError and says which.
    """
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(port=0, world=World.tiny(), ready=told.set_result))
    url = await told
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200
    with pytest.raises(
        ListenError, match=rf"cannot listen on 127\.0\.0\.1:{url.rsplit(':', 1)[1]}"
    ):
        async with running(application(World.tiny()), port=int(url.rsplit(":", 1)[1])):
            pass
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_every_fault_is_documented_once() -> None:
    """No fault is both an answer of its own and a change of the answer."""
    assert set(ANSWERS).isdisjoint(CHANGES)
    assert datetime.fromisoformat("2026-11-19T00:00:00+00:00").timestamp() == THURSDAY
