"""Streams pass through unchanged, and are metered once."""

from types import SimpleNamespace
from typing import Any, TypeAlias

import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from clients.python.tests.conftest import Endpoint
from otel_openai_metering import Meter
from otel_openai_metering.estimate import Estimator

Chunks: TypeAlias = list[Any]
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
    """Closed, left, or forgotten half-way: metered once each, with the chunks until then."""
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
    """The caller gets the error unchanged; the chunks before it are metered."""

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


def objects(thing: Any) -> Any:
    """Mappings as objects."""
    if isinstance(thing, dict):
        return SimpleNamespace(**{key: objects(value) for key, value in thing.items()})
    return [objects(each) for each in thing] if isinstance(thing, list) else thing


def metered(meter: Meter, endpoint: Endpoint, chunks: Chunks, **more: Any) -> dict[str, Any]:
    """The event of a stream of chunks, which is the same whether they are mappings or objects."""
    for made in (chunks, objects(chunks)):
        assert list(meter.stream(iter(made), "alice", **more)) == made
    assert meter.flush(20)
    one, other = endpoint.events
    if one["id"].startswith("r"):
        assert one == other
    return one


def text(content: str | None, usage: Any = None, **more: Any) -> dict[str, Any]:
    """A chunk of a chat completion."""
    choices = [{"index": 0, "delta": {"content": content}}]
    return {
        "id": "r1",
        "model": "m",
        "created": 1_795_305_605,
        "choices": choices,
        "usage": usage,
        **more,
    }


U = {"prompt_tokens": 13, "completion_tokens": 7, "total_tokens": 20}
Z = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
AZURE = {"id": "", "model": "", "created": 0, "choices": [], "prompt_filter_results": []}
NULLS = {"id": None, "model": None, "created": None, "choices": None, "usage": None}


@pytest.mark.parametrize("first", [None, 5, "text", {}, AZURE, NULLS, {"choices": [None]}, {"choices": 7}])  # fmt: skip
@pytest.mark.parametrize("cut", [True, False])
def test_the_first_chunk_decides_nothing(
    meter: Meter, endpoint: Endpoint, first: Any, *, cut: bool
) -> None:
    """A heartbeat, Azure's filter results, null choices: what follows is read all the same."""
    tail = [text("Good morning to you")] + ([] if cut else [text(None, U)])
    event = metered(meter, endpoint, [first, *tail], prompt="greet")
    assert (event["id"], event["data"]["model"], event["time"]) == (
        "r1",
        "m",
        "2026-11-22T00:00:05Z",
    )
    if cut:
        assert event["data"]["estimated"]
        assert event["data"]["output_tokens"] >= 3
    else:
        assert event["data"] == {**U, "model": "m"}


@pytest.mark.parametrize(
    "chunks",
    [
        [text("hi", U), text("there")], [text("hi"), text(None, U)], [text("hi"), text(None, U), text(None, Z)],
        [text("hi", Z), text("there", U), text(None, Z)], [text("hi", U), text("there", Z), text(None, {})],
        # cumulative usage in every chunk; input first and output last
        [text("hi", {"prompt_tokens": 13, "completion_tokens": n, "total_tokens": 13 + n}) for n in range(8)],
        [text("hi", {"prompt_tokens": 13, "completion_tokens": 0, "total_tokens": 13}),
         text("hi", {"prompt_tokens": 0, "completion_tokens": 7, "total_tokens": 7})],
        [text("hi", {"input_tokens": 0, "output_tokens": 0}), text(None, U)],
        [text("hi"), text(None, None, x_groq={"id": "req", "usage": U})], [text("hi", Z), text(None, Z, x_groq={"usage": U})],
        [text("hi"), {**text(None), "choices": [{"delta": {}, "usage": U}]}],
        [text("hi"), {"id": "r1", "choices": [], "usage": {**U, "completion_tokens_details": None, "prompt_tokens_details": []}}],
    ],
)  # fmt: skip
def test_usage_counts_wherever_it_comes(meter: Meter, endpoint: Endpoint, chunks: Chunks) -> None:
    """In the first, in every or in the last chunk, in Groq's or Moonshot's place: the number wins
    over zeros before and after it.
    """
    data = metered(meter, endpoint, chunks, prompt="greet")["data"]
    assert data == {**U, "model": "m"}


@pytest.mark.parametrize(
    "usage",
    [
        Z,
        {"input_tokens": 0, "output_tokens": 0},
        {},
        {"prompt_tokens": 13, "completion_tokens": 0},
    ],
)
def test_zeros_beside_text_are_no_usage(meter: Meter, endpoint: Endpoint, usage: Any) -> None:
    """A stream that is cut before its real usage is estimated; an input that was said is kept."""
    data = metered(meter, endpoint, [text("one two three four five six", usage)] * 3, prompt="x")[
        "data"
    ]
    assert data["estimated"]
    assert data["output_tokens"] >= 15
    assert data["total_tokens"] == data["input_tokens"] + data["output_tokens"]
    assert data["input_tokens"] == 13 if usage.get("prompt_tokens") else data["input_tokens"] < 13


WORDS = "many words that were made and have to be paid for"
ANTHROPIC: Chunks = [
    {"type": "message_start", "message": {"id": "r1", "model": "m", "usage":
     {"input_tokens": 20, "output_tokens": 1, "cache_read_input_tokens": 5}}},
    {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": WORDS}},
]  # fmt: skip


def delta(**parts: Any) -> dict[str, Any]:
    """A chunk with something else than content."""
    return {"id": "r1", "model": "m", "choices": [{"index": 0, "delta": parts}]}


@pytest.mark.parametrize(
    "chunks",
    [
        [{"id": "r1", "object": "text_completion", "choices": [{"text": WORDS}]}],
        [delta(reasoning_content=WORDS)], [delta(reasoning=WORDS, content=None)], [delta(reasoning=WORDS, reasoning_content=WORDS)],
        [delta(content="", reasoning=WORDS)], [delta(refusal=WORDS)], [delta(audio={"transcript": WORDS})],
        [delta(tool_calls=[{"function": {"name": WORDS[:4], "arguments": WORDS[4:]}}])], [delta(function_call={"arguments": WORDS})],
        [delta(content=[{"type": "text", "text": WORDS}])],
        [{"type": "response.created", "response": {"id": "r1"}}, {"type": "response.output_text.delta", "delta": WORDS}],
        [{"type": "response.created", "response": {"id": "r1"}}, {"type": "response.output_audio_transcript.delta", "delta": WORDS},
         {"type": "response.output_audio.delta", "delta": "base64" * 50}],
        [{"type": "response.custom_tool_call_input.delta", "delta": WORDS}, {"type": "response.output_text.done", "text": WORDS}],
        [{"type": "transcript.text.delta", "delta": WORDS}],
        [{"type": "content.delta", "delta": WORDS, "snapshot": WORDS}, {"type": "chunk", "chunk": text(WORDS)}],
        ANTHROPIC[:1] + ANTHROPIC[2:],
    ],
)  # fmt: skip
def test_all_that_was_made_is_estimated_once(
    meter: Meter, endpoint: Endpoint, chunks: Chunks
) -> None:
    """Legacy completions, reasoning, refusals, tool calls, transcripts, in every dialect."""
    made = metered(meter, endpoint, chunks, model="m")["data"]
    assert made["estimated"]
    assert made["output_tokens"] == Estimator().count(WORDS, "m")


@pytest.mark.parametrize(
    ("chunks", "data"),
    [
        ([{"type": "transcript.text.delta", "delta": "hello"}, {"type": "transcript.text.done", "text": "hello",
           "usage": {"type": "tokens", "input_tokens": 140, "output_tokens": 30, "total_tokens": 170}}],
         {"input_tokens": 140, "output_tokens": 30, "total_tokens": 170}),
        ([{"type": "transcript.text.delta", "delta": "hello"}, {"type": "transcript.text.done",
           "usage": {"type": "duration", "seconds": 3.5}}], {"seconds": 3.5}),
        ([{"type": "image_generation.partial_image", "b64_json": "aa"}, {"type": "image_generation.completed", "usage":
          {"input_tokens": 12, "output_tokens": 272, "total_tokens": 284}}],
         {"input_tokens": 12, "output_tokens": 272, "total_tokens": 284}),
        ([{"type": "image_edit.completed", "usage": {"input_tokens": 12, "output_tokens": 272}}],
         {"input_tokens": 12, "output_tokens": 272}),
        ([{"type": "speech.audio.delta", "audio": "aa"}, {"type": "speech.audio.done",
           "usage": {"input_tokens": 14, "output_tokens": 101}}],
         {"input_tokens": 14, "output_tokens": 101}),
        ([*ANTHROPIC, {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 33}}, {"type": "message_stop"}],
         {"input_tokens": 25, "output_tokens": 33, "cached_tokens": 5}),
    ],
)  # fmt: skip
def test_events_of_other_streams_are_told_exactly(
    meter: Meter, endpoint: Endpoint, chunks: Chunks, data: dict[str, Any]
) -> None:
    """Transcriptions by tokens and by length, images, speech, Anthropic's messages."""
    assert metered(meter, endpoint, chunks, model="m")["data"] == {**data, "model": "m"}


@pytest.mark.parametrize("end", ["response.completed", "response.incomplete", "response.failed", "response.done"])  # fmt: skip
def test_every_response_of_a_session_is_an_event(
    meter: Meter, endpoint: Endpoint, end: str
) -> None:
    """A realtime session has many responses, and each is metered when it is done; the last one is cut off."""
    chunks: Chunks = [{"type": "session.created", "session": {"id": "sess_1"}}]
    for number in range(3):
        chunks.append(
            {"type": "response.created", "response": {"id": f"resp_{number}", "usage": None}}
        )
        chunks.append({"type": "response.output_text.delta", "delta": WORDS})
        if number < 2:
            usage = {"input_tokens": 5, "output_tokens": number + 1}
            chunks.append({"type": end, "response": {"id": f"resp_{number}", "usage": usage}})
    session = meter.stream(iter(chunks), "alice")
    for _ in range(4):
        next(session)
    assert meter.flush()
    assert len(endpoint.events) == 1
    list(session)
    assert meter.flush(20)
    assert [event["id"] for event in endpoint.events] == ["resp_0", "resp_1", "resp_2"]
    assert [data.get("output_tokens") for data in endpoint.data[:2]] == [1, 2]
    assert endpoint.data[2]["estimated"]


def test_a_stream_that_said_nothing_is_no_event(meter: Meter, endpoint: Endpoint) -> None:
    """Neither an empty one nor one of heartbeats."""
    chunks: Chunks
    for chunks in ([], [None, {}, {"type": "ping"}], [{"choices": []}]):
        list(meter.stream(iter(chunks), "alice", prompt="x"))
    assert meter.flush()
    assert (endpoint.events, meter.counts.dropped) == ([], 3)


def test_a_prompt_that_cannot_be_read_costs_only_itself(meter: Meter, endpoint: Endpoint) -> None:
    """A list that holds itself, an object that fails: the output is estimated all the same."""
    circle: list[object] = []
    circle.append(circle)

    class Failing:
        def model_dump(self, **_: object) -> object:
            raise RuntimeError("no")

    for prompt in (circle, [Failing()], Failing()):
        list(meter.stream(iter([text(WORDS)]), "alice", prompt=prompt))
    assert meter.flush(20)
    assert [data["output_tokens"] > 5 for data in endpoint.data] == [True] * 3


def test_text_and_more_in_one_chunk_of_the_client_s(meter: Meter, endpoint: Endpoint) -> None:
    """The client's own objects are read the quick way, and nothing beside the text is missed."""
    chunk = ChatCompletionChunk.model_validate
    first = {"id": "r1", "model": "m", "created": 1_795_305_605, "object": "chat.completion.chunk"}
    call = {"index": 0, "function": {"name": "f", "arguments": "{}" * 20}}
    for more in ({"reasoning": WORDS}, {"refusal": WORDS}, {"tool_calls": [call]}):
        choice = {"index": 0, "finish_reason": None, "delta": {"content": "a", **more}}
        list(meter.stream(iter([chunk({**first, "choices": [choice]})] * 2), "alice"))
    choice = {"index": 0, "finish_reason": None, "delta": {"content": "a"}}
    extras: list[dict[str, Any]] = [
        {"x_groq": {"usage": U}},
        {"service_tier": "default", "usage": U},
    ]
    for extra in extras:
        list(meter.stream(iter([chunk({**first, "choices": [choice], **extra})]), "alice"))
    list(meter.stream(iter([chunk({**first, "choices": [{**choice, "usage": U}]})]), "alice"))
    assert meter.flush(20)
    assert [data["output_tokens"] > 8 for data in endpoint.data[:3]] == [True] * 3
    assert [data["completion_tokens"] for data in endpoint.data[3:]] == [7] * 3
