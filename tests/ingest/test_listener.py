"""The events listener, over real HTTP, wired to a real store."""

import asyncio
import gzip
import json
import os
import sqlite3
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from otel_openai_usage.errors import StateError
from otel_openai_usage.http.limits import Limits
from tests.ingest.conftest import MANY, NOW, ONE, PATH, Service, event

Open = Callable[..., Awaitable[Service]]
ALICE = {("gpt-4o", "alice", "input"): 13, ("gpt-4o", "alice", "output"): 7}
DETAILS = {"input_tokens": 5, "output_tokens": 4, "cached_tokens": 3, "reasoning_tokens": 2}


def rows(state: Path) -> list[tuple[object, ...]]:
    """Width, start and amounts of what is stored, by hour."""
    with sqlite3.connect(state) as db:
        return db.execute(
            "SELECT width, start, input, output, input_cached, reasoning, requests FROM readings ORDER BY start"
        ).fetchall()


async def test_an_event_is_counted_when_it_is_answered(service: Service, tmp_path: Path) -> None:
    """204 without a body; it stands in the store in the hour in which it happened, and in both
    counters.
    """
    answer = await service.post(event(), ONE)
    assert (answer.status, answer.body) == (204, b"")
    assert rows(tmp_path / "state.db") == [(3600, NOW // 3600 * 3600 - 3600, 13, 7, 0, 0, 1)]
    assert await service.shown() == ALICE
    assert await service.shown("openai.metered.requests") == {("gpt-4o", "alice"): 1}


@pytest.mark.parametrize(
    "kind", [ONE, "application/json", f"{ONE}; charset=utf-8", "APPLICATION/JSON;charset=UTF-8"]
)
async def test_media_types_are_parsed(service: Service, kind: str) -> None:
    """One event comes as CloudEvent or as JSON, with parameters or without."""
    assert (await service.post(event(), kind)).status == 204


@pytest.mark.parametrize("kind", [MANY, "application/json", f"{MANY}; charset=utf-8"])
async def test_a_batch_is_counted(service: Service, kind: str) -> None:
    """All events of an array, several of one subject added up."""
    assert (
        await service.post([event(1), event(2), event(3, subject="bob", data=DETAILS)], kind)
    ).status == 204
    assert await service.shown() == {
        ("gpt-4o", "alice", "input"): 26,
        ("gpt-4o", "alice", "output"): 14,
        ("bob", "input"): 5,
        ("bob", "output"): 4,
        ("bob", "input_cached"): 3,
        ("bob", "reasoning"): 2,
    }


async def test_the_same_event_is_counted_once(service: Service) -> None:
    """Duplicates are answered 204: in one batch, in two, at the same time; another source is
    another event.
    """
    assert (await service.post([event(), event()])).status == 204
    assert {
        answer.status
        for answer in await asyncio.gather(*(service.post(event()) for _ in range(20)))
    } == {204}
    assert await service.shown() == ALICE
    assert service.counted() == {"accepted": 1, "duplicate": 21}
    await service.post(event(source="another"))
    assert await service.shown() == {key: 2 * value for key, value in ALICE.items()}


async def test_a_conflicting_duplicate_is_counted_apart(service: Service) -> None:
    """What came first stays; the other is answered 204 too, and counted as conflicting."""
    await service.post(event())
    assert (await service.post(event(subject="mallory"))).status == 204
    assert (await service.post(event(data={"prompt_tokens": 1000}))).status == 204
    assert await service.shown() == ALICE
    assert service.counted() == {"accepted": 1, "conflicting": 2}


async def test_nothing_of_a_refused_batch_is_stored(service: Service, tmp_path: Path) -> None:
    """One wrong event: 400, which and why; the others can be sent again and then count."""
    answer = await service.post([event(1), event(2, time="noon"), event(3)], MANY)
    assert answer.status == 400
    assert answer.problem == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "index": 1,
        "detail": "event 1: time: expected a time as in RFC 3339",
    }
    assert (rows(tmp_path / "state.db"), await service.shown()) == ([], {})
    assert (await service.post([event(1), event(3)], MANY)).status == 204
    assert service.counted() == {"accepted": 2, "refused": 1}


async def test_a_restart_knows_and_continues(open_service: Open) -> None:
    """Totals go on where they were, identities are still known, the start of counting stays."""
    service = await open_service()
    await service.post(event(1))
    await service.shown()
    start = service.exporter.board.current().points["openai.metered.tokens"][0].series.start
    service = await open_service(lambda: NOW + 500)
    assert await service.shown() == ALICE
    assert (
        service.exporter.board.current().points["openai.metered.tokens"][0].series.start
        == start
        == NOW * 1_000_000_000
    )
    await service.post([event(1), event(2)])
    assert await service.shown() == {key: 2 * value for key, value in ALICE.items()}


async def test_a_new_series_says_0_first(open_service: Open) -> None:
    """For `zero_hold`, so that increase() misses nothing."""
    service = await open_service(attributes__zero_hold="60s")
    await service.post(event())
    await service.exporter.publish()
    assert {
        point.value for point in service.exporter.board.current().points["openai.metered.tokens"]
    } == {0}


async def test_identities_are_forgotten_after_dedupe(open_service: Open) -> None:
    """A day in which an event is known; after that the same identity is a new event."""
    now = [float(NOW)]
    service = await open_service(lambda: now[0], mono=lambda: now[0], events__dedupe="1d")
    for later in (0, 86400, 86401):
        now[0] = NOW + later
        await service.post(event())
    assert service.counted() == {"accepted": 2, "duplicate": 1}


async def test_attributes_come_and_go(open_service: Open) -> None:
    """A configured attribute is a label; without it later events lack it, and what was counted with
    it stays apart.
    """
    service = await open_service(events__attributes={"team": "$.team"})
    await service.post(
        [
            event(1, data={"input_tokens": 1, "team": "x"}),
            event(2, data={"input_tokens": 2, "team": "y"}),
        ]
    )
    assert await service.shown() == {("alice", "x", "input"): 1, ("alice", "y", "input"): 2}
    service = await open_service()
    await service.post(event(3, data={"input_tokens": 4, "team": "x"}))
    assert await service.shown() == {
        ("alice", "x", "input"): 1,
        ("alice", "y", "input"): 2,
        ("alice", "input"): 4,
    }


async def test_estimates_and_organizations_are_told_apart(open_service: Open) -> None:
    """`estimated` and `organization` of the data; an organization that is not configured is the
    first.
    """
    service = await open_service(organizations=[{"name": "one"}, {"name": "two"}])
    data = {"input_tokens": 1}
    await service.post(
        [
            event(1, data=data),
            event(2, data={**data, "organization": "two", "estimated": True}),
            event(3, data={**data, "organization": "three"}),
        ]
    )
    await service.shown()
    points = service.exporter.board.current().points["openai.metered.requests"]
    found = {
        (
            point.series.attributes["organization"],
            point.series.attributes.get("estimated"),
        ): point.value
        for point in points
    }
    assert found == {("one", None): 2, ("two", "true"): 1}


async def test_folding_conserves(open_service: Open) -> None:
    """Beyond max_series later subjects share the overflow series, and the sum is whole."""
    service = await open_service(attributes__max_series=20)
    await service.post([event(number, subject=f"s{number}") for number in range(50)])
    shown = await service.shown()
    assert len(shown) <= 24
    assert sum(shown.values()) == 50 * 20


async def test_who_may_send(open_service: Open, tmp_path: Path) -> None:
    """With tokens, 401 without one of them; the file is read again when it changes."""
    file = tmp_path / "tokens"
    file.write_text("first\nsecond\n")
    service = await open_service(events__tokens=["fixed"], events__tokens_file=str(file))

    async def status(token: str) -> int:
        return (await service.post(event(), Authorization=token)).status

    assert [
        await status(f"Bearer {token}") for token in ("fixed", "first", "second", "third", "")
    ] == [204, 204, 204, 401, 401]
    assert [await status(token) for token in ("bearer first", "Basic first", "first", "")] == [
        204,
        401,
        401,
        401,
    ]
    file.write_text("third\n")
    os.utime(file, ns=(1, 1))
    assert [await status(f"Bearer {token}") for token in ("fixed", "first", "third")] == [
        204,
        401,
        204,
    ]
    file.unlink()
    assert [await status(f"Bearer {token}") for token in ("fixed", "third")] == [204, 204]
    answer = await service.post(event())
    assert (answer.status, answer.headers["WWW-Authenticate"], answer.problem["title"]) == (
        401,
        "Bearer",
        "Unauthorized",
    )
    assert b"fixed" not in answer.body


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream"]
)
async def test_other_media_types_are_refused(service: Service, kind: str) -> None:
    """415: a page in a browser cannot send them without being asked."""
    assert (await service.post(event(), kind)).status == 415


async def test_what_is_too_large_is_refused_early(open_service: Open) -> None:
    """413 by its length, before it was read, and by what comes without a length."""
    service = await open_service(events__max_body="1KiB")

    async def drip() -> object:
        for _ in range(100):
            yield b" " * 100

    assert (await service.post(b" " * 1025)).status == 413
    async with service.session.post(
        service.url + PATH, data=drip(), headers={"Content-Type": ONE}
    ) as answer:
        assert answer.status == 413


async def test_other_paths_and_methods(service: Service) -> None:
    """404 and 405, as problems."""
    async with service.session.get(service.url + "/metrics") as answer:
        assert (answer.status, answer.content_type) == (404, "application/problem+json")
    async with service.session.get(service.url + PATH) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")


async def test_a_store_that_cannot_write_says_later(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with Retry-After; nothing was counted, and the same event is accepted when the disk has space
    again.
    """
    store = service.exporter.recorder.store

    def full(*_: object) -> None:
        raise StateError("no space")

    monkeypatch.setattr(type(store), "record_events", full)
    answer = await service.post(event())
    assert (answer.status, answer.headers["Retry-After"], answer.problem["status"]) == (
        503,
        "1",
        503,
    )
    monkeypatch.undo()
    assert await service.shown() == {}
    assert (await service.post(event())).status == 204
    assert await service.shown() == ALICE


async def test_more_than_the_disk_takes_is_sent_away(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the recorder's thread is busy only so many events wait; the others get 503, and nothing
    grows.
    """
    monkeypatch.setattr("otel_openai_usage.ingest.intake.MAX_WAITING", 10)
    held = asyncio.Event()
    loop = asyncio.get_running_loop()
    busy = asyncio.create_task(
        service.exporter.recorder.do(
            lambda: asyncio.run_coroutine_threadsafe(held.wait(), loop).result()
        )
    )
    posts = [
        asyncio.create_task(service.post([event(f"{number}-{place}") for place in range(5)]))
        for number in range(4)
    ]
    await asyncio.sleep(0.3)
    held.set()
    assert sorted([(await post).status for post in posts]) == [204, 204, 503, 503]
    await busy
    assert service.counted() == {"accepted": 10}


async def test_a_body_that_does_not_come_is_not_waited_for(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """408 after a while, and the connection is closed."""
    monkeypatch.setattr("otel_openai_usage.ingest.listener.BODY_TIMEOUT", 0.2)
    host, port = service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {ONE}\r\nContent-Length: 100\r\n\r\n{{".encode()
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert head.startswith(b"HTTP/1.1 408")
    assert b"close" in head
    await asyncio.wait_for(reader.read(), 5)
    writer.close()


BODY = json.dumps(event()).encode()


@pytest.mark.parametrize(("encoding", "body", "status"), [
    ("gzip", gzip.compress(BODY), 204),
    ("GZIP", gzip.compress(BODY), 204),
    ("deflate", zlib.compress(BODY), 204),
    ("identity", BODY, 204),
    ("gzip", gzip.compress(BODY + b" " * (2**20 - len(BODY))), 204),
    ("gzip", gzip.compress(BODY + b" " * (2**20 + 1 - len(BODY))), 413),
    ("gzip", gzip.compress(b" " * 50_000_000), 413),
    ("gzip", BODY, 400),
    ("gzip", gzip.compress(BODY)[:-8], 400),
    ("gzip", gzip.compress(BODY) + gzip.compress(b" "), 400),
    ("gzip", b"", 400),
    ("br", BODY, 415),
    ("gzip, gzip", gzip.compress(gzip.compress(BODY)), 415),
])  # fmt: skip
async def test_compressed_bodies(service: Service, encoding: str, body: bytes, status: int) -> None:
    """A body may be compressed; a bomb is too large, what is not what it says is refused, and each
    as a problem.
    """
    answer = await service.post(body, ONE, **{"Content-Encoding": encoding})
    assert answer.status == status
    assert status == 204 or answer.problem["status"] == status
    assert service.counted() == ({"accepted": 1} if status == 204 else {"refused": 1})


async def test_a_compressed_body_is_not_kept_while_the_disk_is_waited_for(service: Service) -> None:
    """Only the events are, else bodies of a kilobyte would hold a megabyte each."""
    bodies = [
        gzip.compress(json.dumps(event(number)).encode().ljust(2**20)) for number in range(20)
    ]
    held = asyncio.Event()
    loop = asyncio.get_running_loop()
    busy = asyncio.create_task(
        service.exporter.recorder.do(
            lambda: asyncio.run_coroutine_threadsafe(held.wait(), loop).result()
        )
    )
    tracemalloc.start()
    try:
        posts = [
            asyncio.create_task(service.post(body, ONE, **{"Content-Encoding": "gzip"}))
            for body in bodies
        ]
        await asyncio.sleep(0.5)
        size, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        held.set()
    assert [(await post).status for post in posts] == [204] * len(posts)
    await busy
    assert peak > 2**20  # they were unpacked
    assert size < 5 * 2**20


@pytest.mark.parametrize("nested", ["[", '{"a":'])
@pytest.mark.parametrize("place", ["data", "comexample"])
async def test_deep_bodies_are_refused(open_service: Open, place: str, nested: str) -> None:
    """400, however deep; one that is not that deep is taken."""
    service = await open_service(events__attributes={"team": "$.team"})
    for depth, status in ((50, 204), (2_000, 400), (150_000, 400)):
        inner = {"[": "[" * depth + "]" * depth, '{"a":': '{"a":' * depth + "1" + "}" * depth}[
            nested
        ]
        for kind, body in ((ONE, "%s"), (MANY, "[%s]")):
            one = json.dumps(event(f"{depth}{kind}", **{place: "@"})).replace(
                '"@"', f'{{"team": {inner}}}'
            )
            answer = await service.post((body % one).encode(), kind)
            assert answer.status == status
            assert status == 204 or "nested too deeply" in str(answer.problem["detail"])


async def test_a_silent_connection_is_ended(
    open_service: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that never sends a whole head is ended; one that did is not, and may be quiet for longer."""
    monkeypatch.setattr(Limits, "of_this_process", lambda: Limits(64, request=0.3, tick=0.1))
    service = await open_service()
    host, port = service.url.removeprefix("http://").split(":")
    silent, slow, good = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
    slow[1].write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nX-slow: ".encode())
    request = (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {ONE}\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
        + BODY
    )
    for _ in range(2):
        good[1].write(request)
        assert (await asyncio.wait_for(good[0].readuntil(b"\r\n\r\n"), 5)).startswith(
            b"HTTP/1.1 204"
        )
        assert (
            await asyncio.wait_for(silent[0].read(), 5)
            == await asyncio.wait_for(slow[0].read(), 5)
            == b""
        )
    for _, writer in (silent, slow, good):
        writer.close()


async def test_a_body_that_was_only_announced_takes_no_room(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that announce bodies and send none make nobody wait; where what did arrive is too
    much, the body that has been arriving for the longest time is refused with 503.
    """
    monkeypatch.setattr("otel_openai_usage.ingest.listener.MAX_IN_FLIGHT", 300_000)
    host, port = service.url.removeprefix("http://").split(":")
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {ONE}\r\nContent-Length: 1000000\r\n\r\n"
    )
    silent = [await asyncio.open_connection(host, int(port)) for _ in range(5)]
    for _, writer in silent:
        writer.write(head.encode())
    assert (await service.post(event(1))).status == 204
    monkeypatch.setattr("otel_openai_usage.ingest.listener.SLOW_AFTER", 0.0)
    slow = [await asyncio.open_connection(host, int(port)) for _ in range(8)]
    for _, writer in slow:
        writer.write(head.encode() + b" " * 90_000)
    for reader, _ in silent:
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 503")
    assert (await service.post(event(2))).status == 204
    for _, writer in silent + slow:
        writer.close()


async def test_an_event_from_the_future_stands_in_this_hour(
    service: Service, tmp_path: Path
) -> None:
    """A clock that is ahead, by a day at most, moves no tokens into hours that nobody has seen
    yet. A later time is refused.
    """
    ahead = [event(1, time="2026-11-22T02:00:00Z"), event(2, time="2026-11-23T00:01:00Z")]
    assert (await service.post(ahead)).status == 204
    late = await service.post([event(3), event(4, time="2126-01-01T00:00:00Z")])
    assert (late.status, late.problem["index"]) == (400, 1)
    assert [row[1] for row in rows(tmp_path / "state.db")] == [NOW // 3600 * 3600]


async def test_connections_that_end_early_harm_nobody(service: Service) -> None:
    """A client that goes away in the middle of its body leaves nothing behind."""
    host, port = service.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {ONE}\r\nContent-Length: 100\r\n\r\n{{".encode()
    )
    await writer.drain()
    writer.close()
    assert (await service.post(event())).status == 204
    with pytest.raises(aiohttp.ClientError):
        await service.session.post("http://127.0.0.1:1/", data=b"")


async def test_a_running_batch_is_answered_and_not_counted(service: Service) -> None:
    """204, so that a poller need not know; the ended one is counted, once."""
    usage = {"input_tokens": 900, "output_tokens": 80, "total_tokens": 980}
    for status, tokens in (("in_progress", None), ("completed", usage), ("completed", usage)):
        data = {"object": "batch", "status": status, "usage": tokens, "model": "gpt-5"}
        assert (await service.post(event("batch", data=data))).status == 204
    assert await service.shown() == {
        ("gpt-5", "alice", "input"): 900,
        ("gpt-5", "alice", "output"): 80,
    }
    assert await service.shown("openai.metered.requests") == {("gpt-5", "alice"): 1}
