"""The exporter with nothing but its events listener, wired as `run` wires it."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from otel_openai_usage.composition import app
from otel_openai_usage.config import load
from otel_openai_usage.engine.recorder import Clock

PATH = "/api/v1/events"
NOW = 1_795_305_700
"""2026-11-22, 00:01:40 UTC."""
ONE = "application/cloudevents+json"
MANY = "application/cloudevents-batch+json"
EVENT: dict[str, object] = {
    "specversion": "1.0", "id": "chatcmpl-abc123", "source": "my-app", "type": "openai", "subject": "alice", "time": "2026-11-21T23:59:59Z",
    "data": {"total_tokens": 20, "prompt_tokens": 13, "completion_tokens": 7, "model": "gpt-4o"},
}  # fmt: skip
QUIET = {
    "usage.enabled": False,
    "costs.enabled": False,
    "limits.enabled": False,
    "names.enabled": False,
    "prices.enabled": False,
    "prometheus.enabled": False,
    "events.enabled": True,
    "events.port": 0,
    "attributes.zero_hold": "0s",
}


@dataclass
class Answer:
    """What came back."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def problem(self) -> dict[str, object]:
        """The body, of which the media type says that it is a problem."""
        assert self.headers["Content-Type"].startswith("application/problem+json")
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found


class Service:
    """A listener for events, and what it makes of them."""

    def __init__(self, exporter: app.Exporter, session: aiohttp.ClientSession) -> None:
        assert exporter.ingest
        self.exporter = exporter
        self.session = session
        self.url = exporter.ingest.url

    async def post(self, body: object, kind: str = "application/json", **headers: str) -> Answer:
        """Send a body, as it is or as JSON."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(
            self.url + PATH, data=raw, headers={"Content-Type": kind, **headers}
        ) as answer:
            return Answer(answer.status, await answer.read(), dict(answer.headers))

    async def shown(
        self, instrument: str = "openai.metered.tokens"
    ) -> dict[tuple[str, ...], int | float]:
        """Subject, model, token type (and whatever else is not usual) to value, of what is not 0."""
        for _ in range(2):  # a new series is 0 first
            await self.exporter.publish()
        points = self.exporter.board.current().points.get(instrument, ())
        usual = {"organization", "type"}
        found = {
            tuple(
                str(value)
                for key, value in sorted(point.series.attributes.items())
                if key not in usual
            ): point.value
            for point in points
        }
        return {key: value for key, value in found.items() if value}

    def counted(self) -> dict[str, float]:
        """Events by outcome."""
        data = self.exporter.self_metrics.collect()
        assert data
        metrics = [
            metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        points = next(
            metric.data.data_points
            for metric in metrics
            if metric.name == "otel_openai_usage.events"
        )
        counts = {}
        for point in points:
            if point.value:  # type: ignore[union-attr]
                counts[str((point.attributes or {})["outcome"])] = point.value  # type: ignore[union-attr]
        return counts


def event(number: object = 0, **changed: object) -> dict[str, object]:
    """An event with an id of its own; None leaves an attribute out."""
    return {
        key: value
        for key, value in {**EVENT, "id": f"chatcmpl-{number}", **changed}.items()
        if value is not None
    }


@pytest.fixture
async def open_service(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Service]]]:
    """Opens a service on the same state, time after time; `settings` are those of the configuration."""
    async with AsyncExitStack() as stack:
        last: list[AsyncExitStack] = []

        async def open_(
            now: Callable[[], float] = lambda: NOW,
            mono: Callable[[], float] = lambda: 0.0,
            **settings: object,
        ) -> Service:
            if last:
                await last.pop().aclose()
            inner = await stack.enter_async_context(AsyncExitStack())
            last.append(inner)
            names = {key.replace("__", "."): value for key, value in settings.items()}
            loaded = load(None, {}, {**QUIET, "state.path": str(tmp_path / "state.db"), **names})
            exporter = await app.wire(loaded, inner, clock=Clock(now, mono), env={})
            return Service(exporter, await inner.enter_async_context(aiohttp.ClientSession()))

        yield open_


@pytest.fixture
async def service(open_service: Callable[..., Awaitable[Service]]) -> Service:
    """A service as it is by default."""
    return await open_service()
