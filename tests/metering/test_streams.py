"""Streams pass through untouched, and are told once."""

from typing import Any

import openai
import pytest

from otel_openai_usage.metering import Meter
from otel_openai_usage.metering.estimate import Estimator
from tests.metering.conftest import Endpoint

MESSAGES: Any = [{"role": "user", "content": "How many tokens does this cost?"}]
WITH_USAGE: Any = {"include_usage": True}


def test_a_stream_with_usage_is_told_exactly(
    client: openai.OpenAI, meter: Meter, endpoint: Endpoint
) -> None:
    """Every chunk arrives as without us, and the event has the usage of the last."""
    whole = client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    stream = client.chat.completions.create(
        model="gpt-4o", messages=MESSAGES, stream=True, stream_options=WITH_USAGE
    )
    chunks = list(meter.stream(stream, "alice", prompt=MESSAGES, team="x"))
    assert meter.flush()
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        == whole.choices[0].message.content
    )
    assert whole.usage
    (event,) = endpoint.events
    assert (event["id"], event["data"]["total_tokens"], event["data"]["team"]) == (
        chunks[0].id,
        whole.usage.total_tokens,
        "x",
    )
    assert "estimated" not in event["data"]


def test_a_stream_without_usage_is_estimated(
    client: openai.OpenAI, meter: Meter, endpoint: Endpoint
) -> None:
    """Counted from what was seen and from the prompt, and marked."""
    stream = client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
    text = "".join(
        chunk.choices[0].delta.content or ""
        for chunk in meter.stream(stream, "alice", prompt=MESSAGES)
    )
    assert meter.flush(20)
    estimator = Estimator()
    data = endpoint.data[0]
    assert (data["estimated"], data["model"]) == (True, "gpt-4o-2024-08-06")
    assert data["output_tokens"] == estimator.count(text, "gpt-4o-2024-08-06") > 0
    assert data["input_tokens"] == estimator.prompt(MESSAGES, "gpt-4o-2024-08-06") > 8


def test_a_stream_that_is_cut_off_is_estimated(
    client: openai.OpenAI, meter: Meter, endpoint: Endpoint
) -> None:
    """Closed, left, or forgotten half-way: told once each, with what was seen until then."""
    for leave in ("close", "with", "forget"):
        raw = client.chat.completions.create(
            model="gpt-4o", messages=MESSAGES, stream=True, stream_options=WITH_USAGE
        )
        stream = meter.stream(raw, leave)
        if leave == "with":
            with stream as inner:
                for _ in range(4):
                    next(inner)
        else:
            for _ in range(4):
                next(stream)
            if leave == "close":
                stream.close()
        del stream
    assert meter.flush(20)
    assert [event["subject"] for event in endpoint.events] == ["close", "with", "forget"]
    assert all(data["estimated"] and data["output_tokens"] > 0 for data in endpoint.data)
    assert len({data["output_tokens"] for data in endpoint.data}) == 1


async def test_async_streams_of_responses_are_told(
    aclient: openai.AsyncOpenAI, meter: Meter, endpoint: Endpoint
) -> None:
    """Whole with the usage of the terminal event, cut off with an estimate; the response's own id
    in both.
    """
    stream = await aclient.responses.create(model="o3", input="Think.", stream=True)
    events = [event async for event in meter.stream(stream, "alice")]
    cut = meter.stream(
        await aclient.responses.create(model="o3", input="Think.", stream=True),
        "bob",
        prompt="Think.",
    )
    async with cut:
        seen = [await anext(cut) for _ in range(8)]
    assert await meter.aflush(20)
    assert events[-1].type == "response.completed"
    one, two = endpoint.events
    assert (one["id"], one["data"]["reasoning_tokens"]) == (events[-1].response.id, 64)
    assert (two["id"], two["data"]["estimated"]) == (seen[0].response.id, True)


CHAT: Any = {"model": "gpt-4o", "messages": MESSAGES, "stream_options": WITH_USAGE}
RESPONSE: Any = {"model": "gpt-4o", "input": "Hi."}
HELPERS = [
    ("chat", None), ("chat", "get_final_completion"),
    ("responses", None), ("responses", "get_final_response"), ("responses", "until_done"),
]  # fmt: skip


def helper(client: Any, what: str) -> Any:
    """What the official client gives to be entered."""
    return (
        client.chat.completions.stream(**CHAT)
        if what == "chat"
        else client.responses.stream(**RESPONSE)
    )


def tokens(client: openai.OpenAI, what: str) -> int:
    """What the same request uses without a stream."""
    made: Any = (
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        if what == "chat"
        else client.responses.create(**RESPONSE)
    )
    return int(made.usage.total_tokens)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(("what", "finish"), HELPERS)
def test_the_client_s_own_stream_helpers_are_told(
    client: openai.OpenAI,
    meter: Meter,
    endpoint: Endpoint,
    what: str,
    finish: str | None,
    *,
    inside: bool,
) -> None:
    """Wrapped before or after they are entered, read event by event or all at once: exactly what
    was used, once.
    """
    raw = helper(client, what)
    with raw if inside else meter.stream(raw, "alice") as entered:
        stream = meter.stream(entered, "alice") if inside else entered
        assert getattr(stream, finish)() if finish else list(stream)
    assert meter.flush()
    assert [(data["total_tokens"], "estimated" in data) for data in endpoint.data] == [
        (tokens(client, what), False)
    ]


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(("what", "finish"), HELPERS)
async def test_the_async_client_s_stream_helpers_are_told(
    aclient: openai.AsyncOpenAI,
    client: openai.OpenAI,
    meter: Meter,
    endpoint: Endpoint,
    what: str,
    finish: str | None,
    *,
    inside: bool,
) -> None:
    """The same."""
    raw = helper(aclient, what)
    async with raw if inside else meter.stream(raw, "alice") as entered:
        stream = meter.stream(entered, "alice") if inside else entered
        if finish:
            await getattr(stream, finish)()
        else:
            assert [event async for event in stream]
    assert await meter.aflush()
    assert [(data["total_tokens"], "estimated" in data) for data in endpoint.data] == [
        (tokens(client, what), False)
    ]


def test_a_stream_that_breaks_breaks_for_the_caller_too(meter: Meter, endpoint: Endpoint) -> None:
    """The error is the caller's as it was; what went by before is told."""

    def chunks() -> Any:
        yield {
            "id": "c",
            "created": 1,
            "model": "m",
            "choices": [{"delta": {"content": "some text"}}],
            "usage": None,
        }
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        list(meter.stream(chunks(), "alice"))
    assert meter.flush(20)
    assert (endpoint.events[0]["id"], endpoint.data[0]["estimated"]) == ("c", True)


def test_odd_chunks_are_passed_on(meter: Meter) -> None:
    """Whatever a stream yields, the caller gets it."""
    odd: list[Any] = [
        None,
        5,
        {"choices": [None]},
        {"choices": 7},
        "text",
        {"type": "response.completed"},
    ]
    for first in odd:
        assert list(meter.stream([first, *odd], "alice")) == [first, *odd]


def test_a_stream_is_still_itself(client: openai.OpenAI, meter: Meter) -> None:
    """What else the official stream offers is there."""
    raw = client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True)
    stream = meter.stream(raw, "alice")
    assert stream.response.status_code == 200
    stream.close()


def test_estimates_use_an_encoding_where_there_is_one() -> None:
    """tiktoken's, if one can be had without the network; the rule of thumb else. Text, messages and
    tools all count.
    """
    text = "The quick brown fox jumps over the lazy dog. " * 20
    counted = Estimator().count(text, "gpt-4")
    assert 180 <= counted <= 230
    estimator = Estimator()
    assert estimator.prompt(
        {"messages": MESSAGES, "tools": [{"type": "function"}]}, "gpt-4"
    ) > estimator.prompt(MESSAGES, "gpt-4")
    assert (
        estimator.prompt(
            [{"role": "user", "content": [{"type": "text", "text": "hello"}]}], "gpt-4"
        )
        >= 6
    )
    assert estimator.count("", "gpt-4") == 0
