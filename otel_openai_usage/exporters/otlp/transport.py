"""Sends MetricsData over OTLP, and says what became of it.

The SDK's exporters are not used: over HTTP they follow redirects and wait for an answer without
end, over both protocols they hide partial successes, and only private members of them take bytes
that are encoded already.
"""

import random
import time
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from opentelemetry.sdk.metrics.export import MetricsData

import otel_openai_usage
from otel_openai_usage.config import Otlp
from otel_openai_usage.exporters.otlp.delivery import Answer, wait_before_retry
from otel_openai_usage.exporters.otlp.encoding import Encoder

USER_AGENT = f"otel-openai-usage/{otel_openai_usage.__version__}"
ATTEMPTS = 6
"""How often a request is sent at most."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an export."""

    ok: bool
    """Whether the backend took the request."""
    error: str = ""
    """Why it did not."""
    rejected: int = 0
    """Points that the backend refused of a request that it took."""
    notice: str = ""
    """What the backend said beside taking it."""
    left_out: int = 0
    """Points that could not be encoded and were not sent."""
    left_out_reason: str = ""
    """Why the first of them could not."""


class Transport(Protocol):
    """Carries encoded requests. For one thread at a time."""

    def send(self, body: bytes, seconds: float) -> Answer:
        """Send a request once; the whole exchange takes at most so many seconds. Does not raise."""

    def close(self) -> None:
        """End what is on its way, from any thread."""


class Exporter:
    """Encodes and sends, and tries again where the OTLP specification says so.

    `timeout` in seconds is for an export with all its attempts. For one thread at a time.
    """

    def __init__(
        self,
        transport: Transport,
        timeout: float,
        *,
        attempts: int = ATTEMPTS,
        rng: random.Random | None = None,
    ) -> None:
        self._transport = transport
        self._timeout = timeout
        self._attempts = attempts
        self._rng = rng or random.Random()  # noqa: S311  # spreads retries, no more
        self._encode = Encoder()
        self._closing = Event()

    def export(self, data: MetricsData) -> Outcome:
        """Send these points in one request. Does not raise for what a backend does."""
        encoded = self._encode(data)
        answer = self._deliver(encoded.body)
        return Outcome(
            answer.verdict == "taken",
            answer.error,
            answer.rejected,
            answer.notice,
            encoded.left_out.points,
            encoded.left_out.reason,
        )

    def shutdown(self) -> None:
        """End an export that is on its way, and refuse later ones. May be called from any thread."""
        self._closing.set()
        self._transport.close()

    def _deliver(self, body: bytes) -> Answer:
        deadline = time.monotonic() + self._timeout
        answer = Answer("refused", "the exporter is closed")
        for attempt in range(self._attempts):
            if self._closing.is_set():
                break
            answer = self._transport.send(body, deadline - time.monotonic())
            if answer.verdict != "try again":
                break
            wait = wait_before_retry(answer, attempt, self._rng)
            if wait >= deadline - time.monotonic() or self._closing.wait(wait):
                break
        return answer


def exporter(otlp: Otlp, *, attempts: int = ATTEMPTS) -> Exporter:
    """The exporter of the wanted protocol. Does not connect. `otlp.endpoint` is complete, for HTTP
    with its path.
    """
    transport: Transport
    if otlp.protocol == "grpc":
        from otel_openai_usage.exporters.otlp.grpc_call import GrpcTransport

        transport = GrpcTransport(otlp, USER_AGENT)
    else:
        from otel_openai_usage.exporters.otlp.http_post import HttpTransport

        transport = HttpTransport(otlp, USER_AGENT)
    return Exporter(transport, otlp.timeout.total_seconds(), attempts=attempts)
