"""What the official client returns becomes one event each, whatever the network does."""

import errno
import json
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from aiohttp import web
from cloudevents.conversion import from_json
from cloudevents.http import CloudEvent

from clients.python.tests.conftest import Endpoint, in_thread
from otel_openai_metering import Counts, Meter
from otel_openai_metering.estimate import Estimator
from otel_openai_metering.sender import Sender
from otel_openai_metering.spool import Spool
from otel_openai_metering.usage import Context, NoUsage, event
from otel_openai_metering.worker import Flush, Job, Worker, Written
from otel_openai_usage.ingest.parser import Parser
from otel_openai_usage.simulator.server import running

CONTEXT = Context("alice", "app", "openai", 1_795_305_600.0)
MESSAGES: Any = [{"role": "user", "content": "How many tokens does this cost?"}]


def test_a_chat_completion_is_told_as_the_seeds_tell_it(
    client: openai.OpenAI, meter: Meter, endpoint: Endpoint
) -> None:
    """Id, time and model are the response's own; the counts have the names that OpenMeter's example
    gives them.
    """
    completion = client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    meter.record(completion, "alice", team="search")
    assert meter.flush()
    assert completion.usage
    assert endpoint.events == [
        {
            "specversion": "1.0",
            "id": completion.id,
            "source": "app",
            "type": "openai",
            "subject": "alice",
            "time": f"{datetime.fromtimestamp(completion.created, UTC):%Y-%m-%dT%H:%M:%SZ}",
            "datacontenttype": "application/json",
            "data": {
                "team": "search",
                "prompt_tokens": 8,
                "completion_tokens": completion.usage.completion_tokens,
                "total_tokens": completion.usage.total_tokens,
                "cached_tokens": 0,
                "reasoning_tokens": 0,
                "model": "gpt-4o-2024-08-06",
            },
        }
    ]
    assert endpoint.requests[0][1]["Authorization"] == "Bearer secret"


def test_responses_and_embeddings_are_told(
    client: openai.OpenAI, meter: Meter, endpoint: Endpoint
) -> None:
    """A response with its reasoning; embeddings, which have no id of their own, with one that is
    made.
    """
    response = client.responses.create(model="o3", input="Think.")
    embedding = client.embeddings.create(model="text-embedding-3-small", input="four")
    meter.record(response, "alice")
    meter.record(embedding, "alice")
    assert meter.flush()
    assert endpoint.events[0]["id"] == response.id
    assert endpoint.data[0]["reasoning_tokens"] == 64
    assert endpoint.data[1] == {
        "model": "text-embedding-3-small",
        "prompt_tokens": 1,
        "total_tokens": 1,
    }
    assert len(endpoint.events[1]["id"]) > 20


def test_every_event_is_a_cloudevent_that_we_take(
    client: openai.OpenAI, meter: Meter, endpoint: Endpoint
) -> None:
    """The CloudEvents SDK reads it, and our own listener counts what the response said."""
    completion = client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    meter.record(completion, "alice")
    meter.flush()
    raw = json.dumps(endpoint.events[0])
    assert from_json(CloudEvent, raw)["subject"] == "alice"
    assert completion.usage
    assert Parser().one(raw.encode())[0].amounts == (8, completion.usage.completion_tokens, 0, 0, 1)


@pytest.mark.parametrize(
    ("response", "data"),
    [
        ({"created": 1, "usage": {"input_tokens": 5, "output_tokens": 9, "total_tokens": 14, "input_tokens_details": {"text_tokens": 5}}},
         {"input_tokens": 5, "output_tokens": 9, "total_tokens": 14}),  # images
        # transcriptions
        ({"text": "hi", "usage": {"type": "duration", "seconds": 3.5}}, {"seconds": 3.5}),
        ({"text": "hi", "usage": {"type": "tokens", "input_tokens": 5, "output_tokens": 1, "total_tokens": 6,
          "input_token_details": {"audio_tokens": 5}}}, {"input_tokens": 5, "output_tokens": 1, "total_tokens": 6}),
        ({"type": "response.done", "event_id": "e", "response": {"id": "resp_1", "usage": {"input_tokens": 5, "output_tokens": 1,
          "total_tokens": 6, "input_token_details": {"cached_tokens": 2}}}},
         # realtime
         {"input_tokens": 5, "output_tokens": 1, "total_tokens": 6, "cached_tokens": 2}),
        ({"id": "batch_1", "created_at": 1, "usage": {"input_tokens": 5, "output_tokens": 1, "total_tokens": 6,
          "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 1}}},
         # batches
         {"input_tokens": 5, "output_tokens": 1, "total_tokens": 6, "cached_tokens": 0, "reasoning_tokens": 1}),
    ],
)  # fmt: skip
def test_other_responses_are_told(response: dict[str, Any], data: dict[str, Any]) -> None:
    """Images, transcriptions by length and by tokens, realtime, batches: as mappings and as
    objects.
    """

    def objects(thing: Any) -> Any:
        return (
            SimpleNamespace(**{key: objects(value) for key, value in thing.items()})
            if isinstance(thing, dict)
            else thing
        )

    assert event(response, CONTEXT)["data"] == event(objects(response), CONTEXT)["data"] == data


def test_a_response_without_usage_is_not_made_up() -> None:
    """It is no event."""
    with pytest.raises(NoUsage):
        event({"id": "x", "usage": None}, CONTEXT)


def test_events_go_in_batches(meter: Meter, endpoint: Endpoint) -> None:
    """A hundred at a time, all of them, in order."""
    for number in range(250):
        meter.record({"id": f"r{number}", "usage": {"input_tokens": 1}}, "alice")
    assert meter.flush()
    assert [event["id"] for event in endpoint.events] == [f"r{number}" for number in range(250)]
    assert len(endpoint.requests) == 3
    assert meter.counts == Counts(sent=250)


def test_an_event_goes_by_itself_after_a_moment(meter: Meter, endpoint: Endpoint) -> None:
    """Nobody needs to flush."""
    meter.record({"id": "r", "usage": {"input_tokens": 1}}, "alice")
    ends = time.monotonic() + 5
    while not endpoint.events and time.monotonic() < ends:
        time.sleep(0.05)
    assert len(endpoint.events) == 1


def test_trouble_is_tried_again(meter: Meter, endpoint: Endpoint) -> None:
    """429, 500, 503: the same events come again until they are taken; none is lost, none is counted by
    an error.
    """
    endpoint.answers = [429, 500, 503]
    meter.record({"id": "r", "usage": {"input_tokens": 1}}, "alice")
    ends = time.monotonic() + 10
    while not endpoint.events and time.monotonic() < ends:
        time.sleep(0.05)
    assert [event["id"] for event in endpoint.events] == ["r"]
    assert [status for status, _ in endpoint.requests] == [429, 500, 503, 204]


def test_one_bad_event_does_not_hold_up_the_others(meter: Meter, endpoint: Endpoint) -> None:
    """A refused batch is halved until the bad one stands alone; only that is dropped."""
    endpoint.bad = lambda event: event["subject"] == "bad"
    for number in range(20):
        meter.record(
            {"id": f"r{number}", "usage": {"input_tokens": 1}}, "bad" if number == 7 else "alice"
        )
    assert meter.flush()
    assert {event["id"] for event in endpoint.events} == {f"r{number}" for number in range(20)} - {
        "r7"
    }
    assert (meter.counts.sent, meter.counts.dropped) == (19, 1)


def test_what_cannot_be_sent_is_spooled_and_sent_by_the_next(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    """A server that is down at the exit of a program gets its events from the next program."""
    endpoint.down = True
    with Meter(endpoint.url, spool=tmp_path / "spool", env={}) as first:
        for number in range(150):
            first.record({"id": f"r{number}", "usage": {"input_tokens": 1}}, "alice")
    assert endpoint.events == []
    assert first.counts.spooled == 150
    assert all(file.stat().st_mode & 0o077 == 0 for file in (tmp_path / "spool").iterdir())
    endpoint.down = False
    with Meter(endpoint.url, spool=tmp_path / "spool", env={}) as second:
        second.record({"id": "last", "usage": {"input_tokens": 1}}, "alice")
        ends = time.monotonic() + 10
        while len(endpoint.events) < 151 and time.monotonic() < ends:
            time.sleep(0.05)
    assert {event["id"] for event in endpoint.events} == {f"r{number}" for number in range(150)} | {
        "last"
    }
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_batch_that_cannot_be_read_now_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a free descriptor no spooled batch is lost: it is read later."""
    spool = Spool(tmp_path, 50_000)
    for number in range(3):
        assert spool.put([{"id": str(number)}]) == 0

    def exhausted(_: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", exhausted)
        assert spool.take() is None
    found = spool.take()
    assert found is not None
    assert found[1] == [{"id": "0"}]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_full_disk_collects_no_unfinished_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that cannot be written whole leaves no part of it."""
    spool = Spool(tmp_path, 50_000)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert spool.put([{"id": "0"}, {"id": "1"}]) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_spool_is_bounded(tmp_path: Path) -> None:
    """The oldest go first; what is lost is counted."""
    with Meter("http://127.0.0.1:1", spool=tmp_path / "spool", spool_limit=50_000, env={}) as meter:
        for number in range(1000):
            meter.record({"id": f"r{number}", "usage": {"input_tokens": 1}}, "alice")
    files = list((tmp_path / "spool").iterdir())
    assert sum(file.stat().st_size for file in files) <= 50_000
    assert 0 < meter.counts.dropped < 1000
    assert '"r999"' in max(files).read_text()


def test_a_queue_that_is_full_drops_and_counts(tmp_path: Path) -> None:
    """Memory does not grow, and nobody waits."""
    meter = Meter("http://127.0.0.1:1", spool=False, queue=10, env={})
    meter._run = lambda: None  # type: ignore[method-assign]  # nobody takes anything out
    for number in range(100):
        meter.record({"id": f"r{number}", "usage": {"input_tokens": 1}}, "alice")
    assert (meter.counts.waiting, meter.counts.dropped) == (10, 90)
    meter._closed = True


@pytest.mark.parametrize(
    "nonsense", [None, 5, "text", {"usage": 7}, {"usage": {"input_tokens": object()}}, object()]
)
def test_nothing_that_is_handed_in_breaks_the_caller(
    nonsense: object, meter: Meter, endpoint: Endpoint
) -> None:
    """Whatever it is, later events are sent."""
    meter.record(nonsense, "alice")
    meter.record({"id": "r", "usage": {"input_tokens": 1}}, "alice")
    assert meter.flush()
    assert [event["id"] for event in endpoint.events][-1:] == ["r"]


PROGRAM = """
from otel_openai_metering import Meter
meter = Meter({url!r}, spool={spool!r})
meter.record({{"id": "r", "usage": {{"input_tokens": 1}}}}, "alice")
{more}
"""


FORK = """
import os
if os.fork():
    os.wait()
else:
    meter.record({"id": "child", "usage": {}}, "alice")
    raise SystemExit
"""


@pytest.mark.parametrize(
    ("more", "sent"), [("", {"r"}), ("raise SystemExit(3)", {"r"}), (FORK, {"r", "child"})]
)
def test_events_are_sent_at_the_exit(
    endpoint: Endpoint, tmp_path: Path, more: str, sent: set[str]
) -> None:
    """However the program ends by itself, and from a forked child too."""
    code = PROGRAM.format(url=endpoint.url, spool=str(tmp_path / "spool"), more=more)
    subprocess.run([sys.executable, "-c", code], timeout=30, check=False, capture_output=True)
    assert {event["id"] for event in endpoint.events} == sent
    assert len(endpoint.events) == len(sent)


class Unspeakable:
    """Cannot be written as text."""

    def __str__(self) -> str:
        raise RuntimeError("no")


CIRCLE: list[object] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "value", [CIRCLE, Unspeakable(), {(1, 2): 3}, float("nan"), [float("inf")]]
)
def test_an_attribute_that_json_cannot_have_costs_only_itself(
    value: object, meter: Meter, endpoint: Endpoint
) -> None:
    """It is left out; what was used is sent, the other attributes too, and all that comes later."""
    meter.record({"id": "1", "usage": {"input_tokens": 5}}, "alice", team=value, plan="free")
    meter.record({"id": "2", "usage": {"input_tokens": 6}}, "alice", team="search")
    assert meter.flush()
    assert endpoint.data == [
        {"input_tokens": 5, "plan": "free"},
        {"input_tokens": 6, "team": "search"},
    ]


def test_attributes_named_like_usage_change_no_counts(
    meter: Meter, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    """They are left out with a warning that names them, once; our listener counts what the response
    said.
    """
    names: dict[str, Any] = {
        "Usage": {"input_tokens": 5000}, "inputTokens": 5000, "promptTokenCount": 5000, "PROMPT_TOKENS": 5000,
        "usageMetadata": {"promptTokenCount": 5000}, "response": {"usage": {"input_tokens": 5000}},
        "tokens": 5000, "usage": {"input_tokens": 5000}, "estimated": True, "prompt_tokens": 5000,
        "output_tokens": 5000, "total_tokens": 5000, "cached_tokens": 50, "prompt_tokens_details": {"cached_tokens": 50},
        "cache_read_input_tokens": 50, "object": "batch", "x_groq": {"usage": {"input_tokens": 5000}},
    }  # fmt: skip
    others = {"status": "in_progress", "type": "input", "message": "hello"}
    for number in range(2):
        response = {"id": str(number), "usage": {"input_tokens": 13, "output_tokens": 7}}
        meter.record(response, "alice", **names, **others)
    assert meter.flush()
    assert endpoint.data == [{"input_tokens": 13, "output_tokens": 7, **others}] * 2
    warnings = [record.getMessage() for record in caplog.records if "is not sent" in record.msg]
    assert len(warnings) == len(names)
    parsed = Parser().one(json.dumps(endpoint.events[0]).encode())[0]
    assert (parsed.amounts, parsed.dims[3]) == ((13, 7, 0, 0, 1), None)


class Customer:
    """A row of a database."""

    def __str__(self) -> str:
        return "customer-7"


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        (42, "42"), (0, "0"), (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"), (Customer(), "customer-7"),
        (b"alice", "alice"), ("\ud800 caf\u00e9 \ud83d\ude00", "\ufffd caf\u00e9 \U0001f600"),
    ],
)  # fmt: skip
def test_a_subject_becomes_text(
    subject: object, text: str, meter: Meter, endpoint: Endpoint
) -> None:
    """A number, a UUID or what else a database has; half an emoji is replaced."""
    meter.record({"id": "1", "usage": {"input_tokens": 5}}, subject, note="\udfff")
    assert meter.flush()
    assert [event["subject"] for event in endpoint.events] == [text]
    assert endpoint.data == [{"input_tokens": 5, "note": "\ufffd"}]


@pytest.mark.parametrize("subject", [None, "", b"", Unspeakable()])
def test_a_subject_that_is_nobody_costs_only_its_own(
    subject: object, meter: Meter, endpoint: Endpoint
) -> None:
    """No server would take a batch with it; it is dropped before it is in one."""
    meter.record({"id": "1", "usage": {"input_tokens": 5}}, subject)
    meter.record({"id": "2", "usage": {"input_tokens": 6}}, "alice")
    assert meter.flush()
    assert [event["id"] for event in endpoint.events] == ["2"]
    assert [status for status, _ in endpoint.requests] == [204]
    assert meter.counts == Counts(sent=1, dropped=1)


ZEROS = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}


@pytest.mark.parametrize("usage", [None, ZEROS])
@pytest.mark.parametrize("status", ["validating", "in_progress", "finalizing", "queued"])
def test_what_still_runs_is_recorded_when_it_has_ended(
    status: str, usage: object, meter: Meter, endpoint: Endpoint
) -> None:
    """A Batch or a background response that is recorded while it is polled: only its end is an
    event, and nothing counts as dropped.
    """
    meter.record({"id": "batch_1", "status": status, "usage": usage}, "alice")
    done = {"input_tokens": 900, "output_tokens": 80, "total_tokens": 980}
    meter.record({"id": "batch_1", "status": "completed", "usage": done}, "alice")
    assert meter.flush()
    assert (endpoint.data, meter.counts) == ([done], Counts(sent=1))


BODY = {"id": "chatcmpl-1", "created": 1, "model": "m", "usage": {"prompt_tokens": 9, "completion_tokens": 8}}  # fmt: skip


@pytest.mark.parametrize("written", [True, False])
def test_a_line_of_a_batch_s_output_file_is_the_response_in_it(*, written: bool) -> None:
    """As text or as a mapping: id, time, model and usage of the response; a response without an id
    (embeddings) has the line's.
    """
    response = {"status_code": 200, "request_id": "r", "body": BODY}
    line: dict[str, Any] = {"id": "batch_req_1", "custom_id": "c", "response": response, "error": None}  # fmt: skip
    given = json.dumps(line).encode() if written else line
    assert event(given, CONTEXT) == event(BODY, CONTEXT)
    line["response"] = {"status_code": 200, "body": {"usage": {"prompt_tokens": 9}}}
    assert event(line, CONTEXT)["id"] == "batch_req_1"
    failed = {"id": "batch_req_2", "response": {"status_code": 400, "body": {"error": {}}}}
    for nothing in (failed, "no JSON", b"[" * 100_000, "[1]"):
        with pytest.raises(NoUsage):
            event(nothing, CONTEXT)


@pytest.mark.parametrize(
    ("usage", "data"),
    [
        # a zero beside the number, under another name or in another place
        ({"prompt_tokens": 0, "completion_tokens": 0, "input_tokens": 9, "output_tokens": 8}, {"input_tokens": 9, "output_tokens": 8}),
        ({"prompt_tokens": 9, "completion_tokens": 8, "input_tokens": 0, "output_tokens": 0}, {"prompt_tokens": 9, "completion_tokens": 8}),
        ({"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 9, "input_tokens": 9, "output_tokens": None},
         {"prompt_tokens": 9, "completion_tokens": 0, "input_tokens": 9, "total_tokens": 9}),
        ({"prompt_tokens": 9, "cached_tokens": 0, "prompt_tokens_details": {"cached_tokens": 4}}, {"prompt_tokens": 9, "cached_tokens": 4}),
        ({"prompt_tokens": 9, "input_tokens_details": {"cached_tokens": 0}, "prompt_tokens_details": {"cached_tokens": 4}},
         {"prompt_tokens": 9, "cached_tokens": 4}),
        # DeepSeek; Perplexity; PHP's empty objects; numbers as text; LiteLLM; Anthropic
        ({"prompt_tokens": 9, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 5}, {"prompt_tokens": 9, "cached_tokens": 4}),
        ({"completion_tokens": 8, "reasoning_tokens": 6, "completion_tokens_details": None},
         {"completion_tokens": 8, "reasoning_tokens": 6}),
        ({"prompt_tokens": 9, "prompt_tokens_details": [], "completion_tokens_details": "none"}, {"prompt_tokens": 9}),
        ({"prompt_tokens": "9", "completion_tokens": "8.0"}, {"prompt_tokens": 9, "completion_tokens": 8}),
        ({"prompt_tokens": -1, "completion_tokens": float("nan"), "input_tokens": True, "output_tokens": "few"}, {}),
        ({"prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17, "cache_read_input_tokens": 4},
         {"prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17, "cached_tokens": 4}),
        ({"input_tokens": 5, "output_tokens": 8, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 1},
         {"input_tokens": 10, "output_tokens": 8, "cached_tokens": 4}),
        # no counts: the exporter would refuse the event
        ({"prompt_tokens": 7.5, "completion_tokens": 8, "seconds": 1.5}, {"completion_tokens": 8, "seconds": 1.5}),
        # Gemini, Bedrock, Vercel's AI SDK
        ({"promptTokenCount": 9, "candidatesTokenCount": 6, "thoughtsTokenCount": 2, "cachedContentTokenCount": 4, "totalTokenCount": 17},
         {"input_tokens": 9, "output_tokens": 8, "total_tokens": 17, "cached_tokens": 4, "reasoning_tokens": 2}),
        ({"prompt_token_count": 9, "candidates_token_count": None}, {"input_tokens": 9}),
        ({"inputTokens": 9, "outputTokens": 8, "totalTokens": 17}, {"input_tokens": 9, "output_tokens": 8, "total_tokens": 17}),
        ({"inputTokens": 5, "outputTokens": 8, "cacheReadInputTokens": 4, "cacheWriteInputTokens": 1},
         {"input_tokens": 10, "output_tokens": 8, "cached_tokens": 4}),
        ({"inputTokens": -1, "outputTokens": "few"}, {}),
    ],
)  # fmt: skip
def test_every_spelling_of_usage_is_understood(usage: object, data: object) -> None:
    """Of OpenAI and of servers that are compatible with it; a number wins over a zero."""
    assert event({"id": "1", "usage": usage}, CONTEXT)["data"] == data


def test_usage_is_found_wherever_it_stands() -> None:
    """Groq's x_groq, Moonshot's choices, an event of a stream."""
    usage = {"prompt_tokens": 9, "completion_tokens": 8}
    for response in (
        {"id": "1", "model": "m", "x_groq": {"id": "req_1", "usage": usage}},
        {"id": "1", "model": "m", "usage": {**ZEROS}, "x_groq": {"usage": usage}},
        {"id": "1", "model": "m", "choices": [{"usage": usage}]},
        {"type": "response.completed", "response": {"id": "1", "model": "m", "usage": usage}},
        {"type": "message_stop", "message": {"id": "1", "model": "m", "usage": usage}},
    ):
        found = event(response, CONTEXT)
        assert found["id"] == "1"
        data = found["data"]
        assert isinstance(data, dict)
        assert {**data, "total_tokens": 17} == {**usage, "model": "m", "total_tokens": 17}


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (301, {"Location": "/elsewhere"}, ""), (302, {"Location": "/elsewhere"}, ""), (303, {"Location": "/elsewhere"}, ""),
        (307, {"Location": "/elsewhere"}, ""), (308, {"Location": "/elsewhere"}, ""), (304, {}, ""), (300, {}, ""),
        (200, {"Content-Type": "text/html"}, "<h1>Welcome</h1>"), (200, {"Content-Type": "application/json"}, "[]"), (200, {}, ""),
        (201, {}, ""), (202, {"Content-Type": "text/html"}, "<p>Please log in</p>"), (206, {}, ""),
    ],
)  # fmt: skip
def test_only_an_events_endpoint_s_answer_counts_as_sent(
    tmp_path: Path, status: int, headers: dict[str, str], body: str
) -> None:
    """A redirected POST would become a GET, and every web page answers 200: the event is kept in
    the spool, and nothing else is asked for.
    """
    asked: list[tuple[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.method, request.path))
        return web.Response(status=status, headers=headers, text=body or None)

    @asynccontextmanager
    async def serve() -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        async with running(app) as url:
            yield url

    with in_thread(serve) as url, Meter(url, spool=tmp_path, env={}) as meter:
        meter.record({"id": "1", "usage": {"input_tokens": 5}}, "alice")
        assert meter.flush()
        assert meter.counts == Counts(spooled=1)
    assert set(asked) == {("POST", "/api/v1/events")}
    (kept,) = tmp_path.glob("*.json")
    assert [event["id"] for event in json.loads(kept.read_text())] == ["1"]


@pytest.mark.parametrize("token", ["secret…", "sec\nret", "sec\x00ret"])
def test_a_token_that_no_header_can_have_is_said_at_the_start(token: str) -> None:
    """Later it would end the thread. The message does not show it."""
    with pytest.raises(ValueError, match="token: expected printable ASCII") as error:
        Meter("http://localhost", token=token, spool=False, env={})
    assert "sec" not in str(error.value)


def test_a_token_from_a_file_may_end_with_a_line(endpoint: Endpoint) -> None:
    """Whitespace around it is no part of it."""
    with Meter(endpoint.url, spool=False, env={"OPENMETER_TOKEN": " secret\n"}) as meter:
        meter.record({"id": "1", "usage": {"input_tokens": 5}}, "alice")
    assert endpoint.requests[0][1]["Authorization"] == "Bearer secret"


def test_openmeter_s_accepted_counts_as_sent(endpoint: Endpoint, meter: Meter) -> None:
    """Its third version answers 202 where the first says 204."""
    endpoint.answers = [202]
    meter.record({"id": "1", "usage": {"input_tokens": 5}}, "alice")
    assert meter.flush()
    assert meter.counts == Counts(sent=1)


@pytest.mark.parametrize("created", ["yesterday", 1e30, float("nan"), {}, -1e15, 1, 253402300799])
def test_a_time_that_is_none_is_now(created: object) -> None:
    """Other providers than OpenAI say all sorts of things; their tokens count."""
    assert (
        event({"id": "1", "created": created, "usage": {"prompt_tokens": 5}}, CONTEXT)["time"]
        == "2026-11-22T00:00:00Z"
    )


HUNG = """
import time
from otel_openai_metering import Meter
meter = Meter({url!r}, source="app", spool={spool!r}, env={{}})
for number in range(7):
    meter.record({{"id": str(number), "usage": {{"input_tokens": 1}}}}, "alice")
time.sleep(1.5)
stream = meter.stream(iter([{{"id": "s", "choices": [{{"delta": {{"content": "four"}}}}]}}]), "alice")
list(stream)
meter.record({{"id": "last", "usage": {{"input_tokens": 1}}}}, "alice")
meter.close(0.3)
print(meter.counts.spooled, meter.counts.dropped)
"""


@pytest.mark.parametrize("kept", [True, False])
def test_a_server_that_never_answers_loses_nothing_at_the_exit(
    tmp_path: Path, *, kept: bool
) -> None:
    """What is being sent, and what came since, is in the spool when the program ends; without one
    it is counted as dropped.
    """
    spool = tmp_path / "spool"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        program = HUNG.format(
            url=f"http://127.0.0.1:{silent.getsockname()[1]}", spool=str(spool) if kept else False
        )
        ran = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
        )
    assert ran.stdout.split() == (["9", "0"] if kept else ["0", "9"])
    found = [event["id"] for file in spool.glob("*.json") for event in json.loads(file.read_text())]
    assert sorted(found) == ([*map(str, range(7)), "last", "s"] if kept else [])


@pytest.mark.parametrize("kept", [True, False])
def test_a_vocabulary_that_does_not_come_loses_nothing(
    endpoint: Endpoint, tmp_path: Path, *, kept: bool
) -> None:
    """What waits for it is kept once when the meter is closed, also if the vocabulary comes after
    that; without a spool it is dropped.
    """
    asked = threading.Event()
    came = threading.Event()

    def vocabulary(_: str) -> Callable[[str], int]:
        asked.set()
        came.wait(10)
        return len

    meter = Meter(endpoint.url, spool=tmp_path if kept else False, env={})
    meter._worker._estimator = Estimator(vocabulary)
    list(meter.stream(iter([{"id": "s", "choices": [{"delta": {"content": "text"}}]}]), "alice"))
    assert asked.wait(5)
    meter.record({"id": "next", "usage": {"input_tokens": 1}}, "alice")
    assert meter.counts == Counts(waiting=2)
    meter.close(0.1)
    expected = Counts(spooled=2) if kept else Counts(dropped=2)
    assert meter.counts == expected
    came.set()
    ends = time.monotonic() + 5
    while not meter._worker.is_over and time.monotonic() < ends:
        time.sleep(0.01)
    assert meter._worker.is_over
    assert meter.counts == expected
    found = [
        event["id"] for file in tmp_path.glob("*.json") for event in json.loads(file.read_text())
    ]
    assert found == (["s", "next"] if kept else [])


@pytest.mark.parametrize("kept", [True, False])
def test_the_worker_ends_with_nothing_in_memory(tmp_path: Path, *, kept: bool) -> None:
    """What it could not send any more is in the spool, else counted as dropped."""
    queue: SimpleQueue[Job | Written | Flush | None] = SimpleQueue()
    worker = Worker(
        queue, Sender("http://127.0.0.1:1", None), Spool(tmp_path, 2**20) if kept else None
    )
    queue.put(Job({"id": "r", "usage": {"input_tokens": 1}}, CONTEXT))
    queue.put(None)
    worker.run()
    assert (worker.spooled, worker.dropped, worker.waiting) == ((1, 0, 0) if kept else (0, 1, 0))
    assert len(list(tmp_path.glob("*.json"))) == worker.spooled


def test_the_helper_is_light() -> None:
    """Importing it brings in no web framework, no SDK and no tokenizer."""
    heavy = ("aiohttp", "opentelemetry", "tiktoken", "pydantic")
    code = f"import sys, otel_openai_metering; print(*(name for name in {heavy} if name in sys.modules))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == ""
    )


async def test_an_event_loop_is_not_held_up(
    aclient: openai.AsyncOpenAI, endpoint: Endpoint
) -> None:
    """`record` returns at once with a server that does not answer, and `async with` flushes."""
    async with Meter(endpoint.url, spool=False, env={}) as meter:
        completion = await aclient.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        before = time.perf_counter()
        meter.record(completion, "alice")
        assert time.perf_counter() - before < 0.05
    assert [event["id"] for event in endpoint.events] == [completion.id]


def test_gemini_s_response_is_one_event() -> None:
    """Its id, model and usage have names of their own, also as the attributes of its SDK."""
    counts = {"promptTokenCount": 9, "candidatesTokenCount": 8}
    response = {"responseId": "g1", "modelVersion": "gemini-2.5-pro", "usageMetadata": counts}
    usage = SimpleNamespace(prompt_token_count=9, candidates_token_count=8)
    of_sdk = SimpleNamespace(response_id="g1", model_version="gemini-2.5-pro", usage_metadata=usage)
    for given in (response, of_sdk):
        found = event(given, CONTEXT)
        data = {"input_tokens": 9, "output_tokens": 8, "model": "gemini-2.5-pro"}
        assert (found["id"], found["data"]) == ("g1", data)


@pytest.mark.parametrize("name", ["response", "stream", "self", "job"])
def test_an_attribute_may_have_the_name_of_a_parameter(
    name: str, meter: Meter, endpoint: Endpoint
) -> None:
    """Whatever the caller's own are called, nothing is raised."""
    attributes: dict[str, Any] = {name: "x"}
    meter.record({"id": "1", "usage": {"input_tokens": 5}}, subject="alice", **attributes)
    chunk = {"id": "2", "choices": [], "usage": {"input_tokens": 5}}
    list(meter.stream(iter([chunk]), subject="alice", **attributes))
    assert meter.flush()
    assert [data[name] for data in endpoint.data] == ["x", "x"]


def test_a_long_attribute_is_cut_as_the_exporter_cuts_it(meter: Meter, endpoint: Endpoint) -> None:
    """What is sent is what the listener shows: 512 characters, the last of them a mark."""
    long = "x" * 5000
    response = {"id": "1", "model": long, "usage": {"input_tokens": 5}}
    meter.record(response, "alice", team=long, user={"plan": [long]})
    assert meter.flush()
    cut = "x" * 511 + "…"
    expected = {"input_tokens": 5, "model": cut, "team": cut, "user": {"plan": [cut]}}
    assert endpoint.data == [expected]
    assert Parser({"team": "team"}).one(json.dumps(endpoint.events[0]).encode())[0].dims[4] == cut


def test_a_response_may_be_given_by_name(
    client: openai.OpenAI, meter: Meter, endpoint: Endpoint
) -> None:
    """`record(response=…, subject=…)` works as in 0.1, and a forgotten response raises nothing."""
    completion = client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    meter.record(response=completion, subject="alice")
    meter.record(subject="alice")
    assert meter.flush(10)
    assert [received["subject"] for received in endpoint.events] == ["alice"]
