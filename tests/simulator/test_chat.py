"""The official client talks to the simulated models, and gets what it expects of OpenAI."""

from collections.abc import AsyncIterator

import openai
import pytest

from tests.simulator.conftest import Api

ASK = "How many tokens does this cost?"


@pytest.fixture
async def client(api: Api) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client with an ordinary key."""
    async with openai.AsyncOpenAI(
        api_key="sk-simulated", base_url=f"{api.url}/v1", max_retries=0
    ) as made:
        yield made


async def test_a_chat_completion_tells_its_usage(client: openai.AsyncOpenAI) -> None:
    """The answer has an id of its own, the dated model, and usage that adds up."""
    one, two = [
        await client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": ASK}]
        )
        for _ in range(2)
    ]
    assert one.id != two.id
    assert (one.model, one.choices[0].finish_reason) == ("gpt-4o-2024-08-06", "stop")
    assert one.usage is not None
    assert one.usage.prompt_tokens == 8
    assert one.usage.prompt_tokens + one.usage.completion_tokens == one.usage.total_tokens > 8
    assert one.choices[0].message.content == two.choices[0].message.content


async def test_a_chat_stream_ends_with_usage_only_if_asked(client: openai.AsyncOpenAI) -> None:
    """With include_usage every chunk has a null usage but an extra last one without choices;
    without it there is none.
    """
    whole = await client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": ASK}]
    )
    plain = await client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": ASK}], stream=True
    )
    chunks = [chunk async for chunk in plain]
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        == whole.choices[0].message.content
    )
    assert all(chunk.usage is None for chunk in chunks)
    asked = await client.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "user", "content": ASK}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in asked]
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)


async def test_a_response_and_its_stream_tell_the_same(client: openai.AsyncOpenAI) -> None:
    """The terminal event carries the usage that the whole response has; a limit makes it
    incomplete.
    """
    whole = await client.responses.create(model="o3", input=ASK, instructions="Be short.")
    events = [
        event
        async for event in await client.responses.create(
            model="o3", input=ASK, instructions="Be short.", stream=True
        )
    ]
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.usage == whole.usage
    assert last.response.output_text == whole.output_text
    assert whole.usage is not None
    assert whole.usage.output_tokens_details.reasoning_tokens == 64
    short = await client.responses.create(model="o3", input=ASK, max_output_tokens=3)
    assert short.status == "incomplete"
    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_embeddings_come_packed_and_plain(client: openai.AsyncOpenAI) -> None:
    """As many vectors as inputs, of the dimensions asked for, the same in both encodings."""
    packed = await client.embeddings.create(
        model="text-embedding-3-small", input=["one", "two"], dimensions=8
    )
    plain = await client.embeddings.create(
        model="text-embedding-3-small", input=["one", "two"], dimensions=8, encoding_format="float"
    )
    assert [len(item.embedding) for item in packed.data] == [8, 8]
    assert packed.data[1].embedding == pytest.approx(plain.data[1].embedding, abs=1e-6)
    assert packed.usage.prompt_tokens == packed.usage.total_tokens == 2


async def test_no_key_and_no_model_are_refused(api: Api, client: openai.AsyncOpenAI) -> None:
    """As OpenAI does: 401 and 400, in its own envelope."""
    with pytest.raises(openai.BadRequestError, match="must provide a model"):
        await client.chat.completions.create(model="", messages=[])
    async with openai.AsyncOpenAI(
        api_key="nothing", base_url=f"{api.url}/v1", max_retries=0
    ) as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.embeddings.create(model="text-embedding-3-small", input="x")
