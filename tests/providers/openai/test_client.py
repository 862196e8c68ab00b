"""HTTP: retries, keys, limits, and secrets that never leave."""

import asyncio
import gzip
import logging
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from otel_openai_usage.errors import (
    BadResponse,
    MissingScope,
    NotOffered,
    RateLimited,
    Rejected,
    TooLarge,
    Unavailable,
)
from otel_openai_usage.providers.budget import Budget
from otel_openai_usage.providers.openai.client import Client
from otel_openai_usage.providers.openai.key import Key
from tests.providers.openai.conftest import SECRET, Connect
from tests.providers.openai.upstream import Answer, Upstream, refusal

SCOPES = "Missing scopes: api.usage.read. Check that you have the correct role"


async def ask(client: Client) -> bytes:
    """Some request."""
    return await client.get(
        "organization/costs",
        [("start_time", "0"), ("group_by", "a"), ("group_by", "b")],
        endpoint="costs",
    )


async def until(is_so: Callable[[], bool]) -> None:
    """Let others run until it is so."""
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0.001)


async def test_what_is_sent(upstream: Upstream, client: Client) -> None:
    """The key, our name and the parameters go along, no organization header does."""
    upstream.script = [b'{"a":1}']
    assert await ask(client) == b'{"a":1}'
    (asked,) = upstream.asked
    assert asked.path == "organization/costs"
    assert asked.query == [("start_time", "0"), ("group_by", "a"), ("group_by", "b")]
    assert asked.headers["Authorization"] == f"Bearer {SECRET}"
    assert asked.headers["User-Agent"].startswith("otel-openai-usage/")
    assert "gzip" in asked.headers["Accept-Encoding"]
    assert not {"OpenAI-Organization", "OpenAI-Project"} & asked.headers.keys()


async def test_gzip_is_unpacked(upstream: Upstream, client: Client) -> None:
    """A packed body arrives unpacked."""
    upstream.script = [
        web.Response(body=gzip.compress(b"[1]"), headers={"Content-Encoding": "gzip"})
    ]
    assert await ask(client) == b"[1]"


def cut(request: web.Request) -> web.StreamResponse:
    """Promises more than it sends."""
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[1, 2")
    request.transport.close()
    return web.Response()


@pytest.mark.parametrize(
    "passing",
    [
        web.Response(status=500),
        refusal(503, "overloaded"),
        web.Response(status=408),
        refusal(429, "slow down"),
        web.Response(text="<html>hello</html>", content_type="text/html"),
        b"",
        b'{"data":[',
        cut,
    ],
)
async def test_what_passes_is_asked_again(
    passing: Answer, upstream: Upstream, client: Client, slept: list[float]
) -> None:
    """Trouble that may pass is waited out."""
    upstream.script = [passing, b"[]"]
    assert await ask(client) == b"[]"
    assert len(upstream.asked) == 2
    assert len(slept) == 1
    assert upstream.asked[0].query == upstream.asked[1].query


@pytest.mark.parametrize(("status", "error"), [(401, Rejected), (403, Rejected), (404, NotOffered)])
async def test_what_does_not_pass_is_asked_once(
    status: int, error: type[Exception], upstream: Upstream, client: Client
) -> None:
    """A refusal is raised at once."""
    upstream.script = [refusal(status, "no")]
    with pytest.raises(error):
        await ask(client)
    assert len(upstream.asked) == 1


async def test_retry_after_is_obeyed(
    upstream: Upstream, client: Client, slept: list[float]
) -> None:
    """OpenAI says how long to wait, and we wait so long."""
    upstream.script = [refusal(429, "slow down", headers={"Retry-After": "42"}), b"[]"]
    await ask(client)
    assert slept == [42.0]


async def test_giving_up(upstream: Upstream, client: Client, slept: list[float]) -> None:
    """After the last retry the last error is raised."""
    upstream.script = [*(web.Response(status=500) for _ in range(3)), b"<html>"]
    with pytest.raises(BadResponse, match="GET organization/costs: 200, but no JSON"):
        await ask(client)
    assert (len(upstream.asked), len(slept)) == (4, 3)


async def test_an_api_that_is_away_is_asked_once_at_a_time(
    upstream: Upstream, client: Client
) -> None:
    """After retries without any answer requests are not repeated; from the next answer on they are."""
    upstream.script = [web.Response(status=503) for _ in range(6)]
    for asked in (4, 5, 6):
        with pytest.raises(Unavailable):
            await ask(client)
        assert len(upstream.asked) == asked
    upstream.script = [b"[]", web.Response(status=503), b"[1]"]
    assert await ask(client) == b"[]"
    assert await ask(client) == b"[1]"
    assert len(upstream.asked) == 9


async def test_one_failing_endpoint_is_no_outage(upstream: Upstream, connect: Connect) -> None:
    """If another request is answered meanwhile, the next request is repeated as before."""

    async def another_asks(_: float) -> None:
        await ask(client)

    client = await connect(sleep=another_asks)
    for _ in range(3):
        upstream.script += [web.Response(status=503), b"[]"]
    upstream.script.append(web.Response(status=503))
    with pytest.raises(Unavailable):
        await ask(client)
    upstream.script = [web.Response(status=503), b"[]", b"[1]"]
    assert await ask(client) == b"[1]"


async def test_a_retry_after_beyond_patience(
    upstream: Upstream, client: Client, slept: list[float]
) -> None:
    """We do not sit and wait for an hour; the next poll asks again."""
    upstream.script = [refusal(429, "slow down", headers={"Retry-After": "3600"})]
    with pytest.raises(RateLimited, match="asks to wait 3600 s"):
        await ask(client)
    assert slept == []


async def test_nobody_there(connect: Connect, slept: list[float], unused_tcp_port: int) -> None:
    """A refused connection says so, and what to look at."""
    client = await connect(base_url=f"http://127.0.0.1:{unused_tcp_port}/v1")
    with pytest.raises(
        Unavailable, match=r"GET organization/costs: .*127\.0\.0\.1.*check base_url"
    ):
        await ask(client)
    assert len(slept) == 3


async def test_no_answer_in_time(upstream: Upstream, connect: Connect) -> None:
    """A slow answer ends with the timeout, is observed without a status, and the message names the setting."""
    seen: list[tuple[str, int | None]] = []

    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(0.5)
        return web.Response()

    upstream.script = [slow, slow]
    client = await connect(
        timeout=0.1, retries=1, observe=lambda endpoint, status, _: seen.append((endpoint, status))
    )
    with pytest.raises(Unavailable, match=r"no answer within 0\.1 s; raise api\.timeout"):
        await ask(client)
    assert seen == [("costs", None)] * 2


async def test_observed(upstream: Upstream, connect: Connect) -> None:
    """Every request is observed by endpoint and status, a broken connection without a status."""
    seen: list[tuple[str, int | None]] = []
    client = await connect(
        observe=lambda endpoint, status, seconds: (
            seen.append((endpoint, status)) if seconds > 0 else None
        )
    )
    upstream.script = [web.Response(status=500), cut, b"[]"]
    await ask(client)
    assert seen == [("costs", 500), ("costs", None), ("costs", 200)]


async def test_a_body_that_cannot_be_unpacked(upstream: Upstream, connect: Connect) -> None:
    """Broken gzip is reported as such, not as the status 400 that aiohttp makes of it."""
    client = await connect(retries=0)
    upstream.script = [web.Response(body=b"\x1f\x8bno", headers={"Content-Encoding": "gzip"})]
    with pytest.raises(
        Unavailable, match=r"^GET organization/costs: the answer broke off or could not be unpacked"
    ):
        await ask(client)


async def test_too_large(upstream: Upstream, connect: Connect) -> None:
    """A small answer that unpacks to more than may be in memory is given up at once, is not asked
    again, and holds nothing afterwards.
    """
    budget = Budget(2**20)
    client = await connect(budget=budget)
    packed = gzip.compress(b" " * 100_000_000)
    upstream.script = [web.Response(body=packed, headers={"Content-Encoding": "gzip"}), b"[]"]
    with pytest.raises(TooLarge, match=r"more than api.max_bytes \(1 MiB\)"):
        await ask(client)
    assert len(upstream.asked) == 1
    assert await ask(client) == b"[]"
    assert budget.used == 0


async def test_what_objects_become_counts_too(upstream: Upstream, connect: Connect) -> None:
    """A million empty objects are three megabytes of JSON and would be hundreds in memory."""
    upstream.script = [b"[" + b"{}," * 1_000_000 + b"{}]"]
    with pytest.raises(TooLarge):
        await ask(await connect(budget=Budget(2**24)))


async def test_of_a_refusal_only_the_beginning_is_read(
    upstream: Upstream, connect: Connect
) -> None:
    """A refusal with a body without end is a refusal."""

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=403)
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(b"no " * 10_000)
        return response

    upstream.script = [endless]
    with pytest.raises(Rejected):
        await ask(await connect(budget=Budget(2**20)))


@pytest.mark.parametrize(
    ("name", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)],
)
async def test_packed_bodies_of_any_size(
    name: str, pack: Callable[[bytes], bytes], upstream: Upstream, client: Client
) -> None:
    """What is packed arrives whole, whether it is small or unpacks to many pieces."""
    for size in (0, 1, 100_000, 5_000_000):
        body = b"[" + b"1," * size + b"1]"
        upstream.script = [web.Response(body=pack(body), headers={"Content-Encoding": name})]
        assert await ask(client) == body


async def test_an_encoding_that_was_not_asked_for(upstream: Upstream, connect: Connect) -> None:
    """An answer in another encoding is said to be one."""
    client = await connect(retries=0)
    upstream.script = [web.Response(body=b"xx", headers={"Content-Encoding": "br"})]
    with pytest.raises(Unavailable, match=r"Content-Encoding 'br', which was not asked for"):
        await ask(client)


async def test_long_headers_are_read(upstream: Upstream, client: Client) -> None:
    """A gateway's header of 60 KB does not matter."""
    upstream.script = [web.Response(body=b"[]", headers={"X-Policy": "x" * 60_000})]
    assert await ask(client) == b"[]"


async def test_headers_beyond_reason_are_said(upstream: Upstream, connect: Connect) -> None:
    """A header that is too long is the problem that is named."""
    client = await connect(retries=0)
    upstream.script = [web.Response(body=b"[]", headers={"X-Policy": "x" * 100_000})]
    with pytest.raises(Unavailable, match=r"no HTTP that can be read: Got more than 65536 bytes"):
        await ask(client)


@pytest.mark.parametrize("url", ["http://api..example/v1", f"http://{'a' * 70}.example/v1"])
async def test_a_host_that_no_name_can_be(connect: Connect, url: str) -> None:
    """It is a failed request that names base_url, not an error of the libraries below."""
    client = await connect(base_url=url, retries=0)
    with pytest.raises(Unavailable, match="check base_url"):
        await ask(client)


async def test_a_slow_trickle_ends_with_the_timeout(upstream: Upstream, connect: Connect) -> None:
    """One byte after the other does not hold a request for longer than `timeout`."""

    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.01)
        return response

    upstream.script = [trickle]
    with pytest.raises(Unavailable, match=r"no answer within 0\.3 s"):
        await ask(await connect(retries=0, timeout=0.3))


async def test_a_huge_answer_makes_room_for_the_others(
    upstream: Upstream, connect: Connect
) -> None:
    """Of two answers that do not fit together the one that took most is given up and asked again."""
    budget = Budget(2**20)
    begun = asyncio.Event()
    given_up = asyncio.Event()

    async def hog(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b" " * 900_000)
        begun.set()
        await given_up.wait()
        await response.write(b"[]")
        return response

    one = await connect(budget=budget)
    other = await connect(budget=budget)
    upstream.script = [hog]
    slow = asyncio.create_task(ask(one))
    await begun.wait()
    await until(lambda: budget.used >= 900_000)
    upstream.script = [b"[" + b" " * 500_000 + b"]", b"[1]"]
    assert len(await ask(other)) == 500_002
    given_up.set()
    assert await slow == b"[1]"


async def test_a_rotated_key(upstream: Upstream, connect: Connect, tmp_path: Path) -> None:
    """A refused key that changed in its file meanwhile is replaced, and the request asked again
    with the new one.
    """
    path = tmp_path / "key"
    path.write_text("sk-admin-old\n")

    def rotated(request: web.Request) -> web.Response:
        path.write_text("sk-admin-new\n")
        return refusal(401, "Incorrect API key provided: sk-admin-old")

    upstream.script = [b"[1]", rotated, b"[2]", b"[3]"]
    client = await connect(key=Key(path=path))
    assert [await ask(client) for _ in range(3)] == [b"[1]", b"[2]", b"[3]"]
    keys = [
        asked.headers["Authorization"].removeprefix("Bearer sk-admin-") for asked in upstream.asked
    ]
    assert keys == ["old", "old", "new", "new"]


async def test_a_key_that_stays_wrong(upstream: Upstream, connect: Connect, tmp_path: Path) -> None:
    """A refused key that did not change is not sent again."""
    path = tmp_path / "key"
    path.write_text("sk-admin-old")
    upstream.script = [refusal(401, "no")]
    client = await connect(key=Key(path=path))
    with pytest.raises(Rejected):
        await ask(client)
    assert len(upstream.asked) == 1


async def test_requests_at_once_are_bounded(upstream: Upstream, connect: Connect) -> None:
    """No more than max_concurrency requests are under way, whoever asks."""
    inside = most = 0

    async def handle(request: web.Request) -> web.Response:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0.02)
        inside -= 1
        return web.json_response([])

    upstream.script = [handle] * 12
    client = await connect(max_concurrency=2)
    await asyncio.gather(*(ask(client) for _ in range(12)))
    assert most == 2


async def test_no_secret_anywhere(
    upstream: Upstream, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """No error, log line or repr holds the key, even where OpenAI's answers do."""
    caplog.set_level(logging.DEBUG)
    key = Key(SECRET)
    client = await connect(key=key)
    texts = [repr(key), repr(client)]
    for status in (400, 401, 403, 404, 418):
        upstream.script = [
            refusal(status, f"Incorrect API key provided: {SECRET}, or {SECRET[:20]}***")
        ]
        with pytest.raises(Exception, match=str(status)) as caught:
            await ask(client)
        texts += [str(caught.value), repr(caught.value)]
    upstream.script = [
        refusal(403, f"{SCOPES} {SECRET}"),
        *(web.Response(text=f"<html>{SECRET}") for _ in range(4)),
    ]
    for error in (MissingScope, BadResponse):
        with pytest.raises(error) as caught:
            await ask(client)
        texts.append(str(caught.value))
    texts += [f"{record.getMessage()} {vars(record)}" for record in caplog.records]
    assert len(texts) > 14
    assert not [line for line in texts if "secret" in line or "0123456789" in line]


async def test_a_client_that_was_not_entered(upstream: Upstream) -> None:
    """Using it outside `async with` is a bug, and loud."""
    with pytest.raises(RuntimeError):
        await ask(Client(name="acme", base_url=upstream.url, key=Key(SECRET)))


async def test_the_session_comes_from_outside(upstream: Upstream, connect: Connect) -> None:
    """Who needs another connector brings the session's maker."""
    made: list[aiohttp.ClientSession] = []

    def make(**settings: object) -> aiohttp.ClientSession:
        made.append(aiohttp.ClientSession(**settings))  # type: ignore[arg-type]
        return made[-1]

    upstream.script = [b"[]"]
    assert await ask(await connect(session=make)) == b"[]"
    assert len(made) == 1
