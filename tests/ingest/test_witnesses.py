"""Other people's clients, unchanged: OpenMeter's own, and the CloudEvents SDK."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import openmeter.aio
import pytest
from cloudevents.conversion import to_structured
from cloudevents.http import CloudEvent
from corehttp.exceptions import HttpResponseError
from openmeter import Client
from openmeter.models import Event

from tests.ingest.conftest import Service

DATA: dict[str, Any] = {"tokens": 100, "model": "gpt-4o", "type": "input"}


def prompt(number: int, **changed: Any) -> Event:
    """The event of OpenMeter's own example."""
    given = {
        "id": f"prompt-{number}",
        "source": "my-app",
        "specversion": "1.0",
        "type": "prompt",
        "subject": "customer-1",
        "time": datetime(2026, 11, 22, tzinfo=UTC),
        "data": DATA,
        **changed,
    }
    return Event(**given)


async def test_openmeter_s_client_sends_one_and_many(service: Service) -> None:
    """Single and batch, again and again: each event counts once."""

    def send() -> None:
        with Client(endpoint=service.url, token="any") as client:
            for _ in range(2):
                client.events.ingest_event(prompt(1))
                client.events.ingest_events(
                    [prompt(1), prompt(2), prompt(3, data={**DATA, "type": "output"})]
                )
                client.events.ingest_events_json(prompt(4))

    await asyncio.to_thread(send)
    assert await service.shown() == {
        ("gpt-4o", "customer-1", "input"): 300,
        ("gpt-4o", "customer-1", "output"): 100,
    }


async def test_openmeter_s_async_client_sends(service: Service) -> None:
    """The asynchronous client, too."""
    async with openmeter.aio.Client(endpoint=service.url, token="any") as client:
        await client.events.ingest_event(prompt(1))
        await client.events.ingest_events([prompt(2), prompt(3)])
    assert await service.shown() == {("gpt-4o", "customer-1", "input"): 300}


async def test_openmeter_s_client_understands_our_refusals(service: Service) -> None:
    """What we answer to a wrong event is an error that its client reads: the status, and our
    sentence.
    """

    def send() -> HttpResponseError:
        with (
            Client(endpoint=service.url, token="any") as client,
            pytest.raises(HttpResponseError) as raised,
        ):
            client.events.ingest_events(
                [prompt(1), prompt(2, data={"tokens": "many", "type": "input"})]
            )
        return raised.value

    error = await asyncio.to_thread(send)
    assert error.status_code == 400
    assert "event 1: data.tokens: expected a whole number" in str(error)
    assert await service.shown() == {}


async def test_the_cloudevents_sdk_s_envelopes_are_taken(service: Service) -> None:
    """Structured mode as the SDK writes it, extension attributes included."""
    attributes = {
        "type": "openai",
        "source": "https://app.example",
        "subject": "alice",
        "time": "2026-11-22T00:00:00Z",
        "tenant": "t1",
    }
    made = CloudEvent(
        attributes,
        {"prompt_tokens": 13, "completion_tokens": 7, "total_tokens": 20, "model": "gpt-4o"},
    )
    headers, body = to_structured(made)
    assert (await service.post(body, headers["content-type"])).status == 204
    assert await service.shown() == {
        ("gpt-4o", "alice", "input"): 13,
        ("gpt-4o", "alice", "output"): 7,
    }
