"""What a backend answered to an OTLP request, as the OTLP specification judges it. Does no I/O.

https://opentelemetry.io/docs/specs/otlp lists the statuses after which a request may be retried.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)

Verdict = Literal["accepted", "refused", "retryable"]

MAX_ANSWER = 1024 * 1024
"""Bytes of an answer. A usual one is empty, and the longest useful one is a sentence."""
_MAX_MESSAGE = 500
"""Characters of a backend's message that we log."""
_RETRYABLE = (429, 502, 503, 504)
_MIN_WAIT = 0.2
"""Seconds between two attempts, even if the backend asks for less."""
_MAX_DIGITS = 9
"""Digits of a Retry-After header. A longer number exceeds every timeout anyway."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How one attempt ended."""

    verdict: Verdict
    error: str = ""
    """What happened, unless the request was accepted."""
    retry_after: float | None = None
    """Seconds that the backend asks to wait."""
    rejected: int = 0
    """Points of an accepted request that the backend rejected."""
    notice: str = ""
    """A message of the backend about an accepted request."""


def accepted(body: bytes) -> Answer:
    """Return the answer of a backend that accepted the request.

    A body that is no ExportMetricsServiceResponse is ignored.
    """
    response = ExportMetricsServiceResponse()
    try:
        response.ParseFromString(body)
    except DecodeError:
        return Answer("accepted")
    partial = response.partial_success
    return Answer(
        "accepted",
        rejected=max(0, partial.rejected_data_points),
        notice=shortened(partial.error_message),
    )


def http_answer(status: int, headers: Mapping[str, str], body: bytes, now: float) -> Answer:
    """Judge an HTTP answer. `headers` has lower-case names; `now` is Unix time."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if 200 <= status < 300:
        return _http_success(media_type, body)
    if 300 <= status < 400:
        return _redirect(status, headers.get("location", ""))
    is_protobuf = "protobuf" in media_type
    message = _status_message(body) if is_protobuf else body.decode(errors="replace")
    error = str(status)
    if message.strip():
        error = f"{status}: {shortened(message)}"
    if status in _RETRYABLE:
        wait = retry_after(headers.get("retry-after", ""), now)
        return Answer("retryable", error, wait)
    return Answer("refused", error)


def _http_success(media_type: str, body: bytes) -> Answer:
    if media_type == "application/json":
        return _accepted_json(body)
    if media_type.startswith("text/"):
        # Such as the page of a web server that answers 200 to anything.
        notice = f"it answers with {media_type}; is it an OTLP endpoint?"
        return Answer("accepted", notice=notice)
    return accepted(body)


def _redirect(status: int, location: str) -> Answer:
    # A query may hold a key, which must not be logged.
    target = shortened(location.partition("?")[0]) or "nowhere"
    return Answer(
        "refused",
        f"{status}: redirects to {target}, which is not followed;"
        " set otlp.endpoint to the address that takes metrics",
    )


def retry_after(value: str, now: float) -> float | None:
    """Return the seconds that a Retry-After header asks to wait: a number, or a date."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:_MAX_DIGITS])
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    wait = date - datetime.fromtimestamp(now, UTC)
    return max(0.0, wait.total_seconds())


def grpc_retry_delay(details: bytes) -> float | None:
    """Return the seconds that a `grpc-status-details-bin` trailer asks to wait, if it does."""
    status = Status()
    info = RetryInfo()
    try:
        status.ParseFromString(details)
        for detail in status.details:
            if detail.Is(RetryInfo.DESCRIPTOR) and detail.Unpack(info):
                seconds: float = info.retry_delay.seconds + info.retry_delay.nanos / 1e9
                return max(0.0, seconds)
    except DecodeError:
        pass  # a trailer that cannot be read asks for nothing
    return None


def wait_before_retry(answer: Answer, attempt: int, rng: random.Random) -> float:
    """Return the seconds to wait after the attempt with this number, from 0 on."""
    if answer.retry_after is not None:
        return max(answer.retry_after, _MIN_WAIT)
    # Spread, so that many exporters do not return at the same moment.
    spread = rng.uniform(0.8, 1.2)
    backoff: float = 2**attempt * spread
    return backoff


def shortened(text: str) -> str:
    """Return a backend's message on one line, with a limited length."""
    # Cut first: the text may have a megabyte.
    words = text[: 4 * _MAX_MESSAGE].split()
    return " ".join(words)[:_MAX_MESSAGE]


def _status_message(body: bytes) -> str:
    """Return the message of a google.rpc.Status; empty if the body is none."""
    try:
        return str(Status.FromString(body).message)
    except DecodeError:
        return ""


def _accepted_json(body: bytes) -> Answer:
    try:
        partial = json.loads(body).get("partialSuccess") or {}
        rejected = int(partial.get("rejectedDataPoints") or 0)
        message = str(partial.get("errorMessage") or "")
    except (ValueError, TypeError, AttributeError, RecursionError):
        return Answer("accepted")
    return Answer("accepted", rejected=max(0, rejected), notice=shortened(message))
