"""Sends encoded requests over OTLP, with retries, and returns what became of each.

The SDK's exporters are not used. Over HTTP they follow redirects and wait for an answer without
end. Over both protocols they hide partial successes, and only private members of them take bytes
that are encoded already.
"""

import random
import time
from dataclasses import dataclass
from threading import Event
from typing import Protocol

import otel_openai_usage
from otel_openai_usage.config import Otlp
from otel_openai_usage.exporters.otlp.answer import Answer, wait_before_retry

USER_AGENT = f"otel-openai-usage/{otel_openai_usage.__version__}"
ATTEMPTS = 6
"""How often a request is sent at most."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request."""

    ok: bool
    """Whether the backend accepted the request."""
    error: str = ""
    """Why it did not."""
    rejected: int = 0
    """Points that the backend rejected of a request that it accepted."""
    notice: str = ""
    """A message of the backend about a request that it accepted."""


class Transport(Protocol):
    """Carries encoded requests. For one thread at a time."""

    def send(self, body: bytes, seconds: float) -> Answer:
        """Send a request once. The whole exchange takes at most `seconds`. Does not raise."""

    def close(self) -> None:
        """End the exchange that is in progress. May be called from any thread."""


class Exporter:
    """Sends requests, and retries where the OTLP specification allows it.

    `timeout` in seconds is for one request with all its attempts. For one thread at a time.
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
        self._closing = Event()

    def export(self, body: bytes) -> Outcome:
        """Send one encoded request. Does not raise, whatever the backend does."""
        answer = self._deliver(body)
        return Outcome(
            ok=answer.verdict == "accepted",
            error=answer.error,
            rejected=answer.rejected,
            notice=answer.notice,
        )

    def shutdown(self) -> None:
        """End the request in progress, and refuse later ones. May be called from any thread."""
        self._closing.set()
        self._transport.close()

    def _deliver(self, body: bytes) -> Answer:
        deadline = time.monotonic() + self._timeout
        answer = Answer("refused", "the exporter is closed")
        for attempt in range(self._attempts):
            if self._closing.is_set():
                break
            answer = self._transport.send(body, deadline - time.monotonic())
            if answer.verdict != "retryable":
                break
            wait = wait_before_retry(answer, attempt, self._rng)
            # A retry after the deadline would have no time left.
            if wait >= deadline - time.monotonic():
                break
            if self._closing.wait(wait):
                break
        return answer


def exporter(otlp: Otlp, *, attempts: int = ATTEMPTS) -> Exporter:
    """Return the exporter for the protocol of the settings. Does not connect.

    `otlp.endpoint` is complete, for HTTP with its path.
    """
    transport: Transport
    if otlp.protocol == "grpc":
        # Imported here, so that a process loads only the library of its protocol.
        from otel_openai_usage.exporters.otlp.grpc_transport import GrpcTransport

        transport = GrpcTransport(otlp, USER_AGENT)
    else:
        from otel_openai_usage.exporters.otlp.http_transport import HttpTransport

        transport = HttpTransport(otlp, USER_AGENT)
    return Exporter(transport, otlp.timeout.total_seconds(), attempts=attempts)
