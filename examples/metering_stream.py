"""Report the usage of streams: exactly where the stream tells it, estimated where it does not or is
cut off.

Run it as metering_chat.py says.
"""

import asyncio

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from otel_openai_metering import Meter


async def main() -> None:
    """A whole stream, one that is left early, and one of the responses API."""
    prompt: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Tell me a story."}]
    async with AsyncOpenAI() as client, Meter(source="examples") as meter:
        whole = await client.chat.completions.create(
            model="gpt-4o", messages=prompt, stream=True, stream_options={"include_usage": True}
        )
        async for chunk in meter.stream(whole, subject="customer-1", prompt=prompt):
            if chunk.choices:
                print(chunk.choices[0].delta.content or "", end="", flush=True)
        print()

        left = await client.chat.completions.create(model="gpt-4o", messages=prompt, stream=True)
        async with meter.stream(left, subject="customer-2", prompt=prompt) as stream:
            for _ in range(4):
                await anext(stream)
        print("… left early: estimated")

        async for event in meter.stream(
            await client.responses.create(model="o3", input="Think.", stream=True),
            subject="customer-3",
        ):
            if event.type == "response.output_text.delta":
                print(event.delta, end="", flush=True)
        print()
    print(meter.counts)


if __name__ == "__main__":
    asyncio.run(main())
