"""What became of an OTLP request, as the OTLP specification judges it. Does no I/O."""

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

Verdict = Literal["taken", "refused", "try again"]

ANSWER_LIMIT = 1024 * 1024
"""Bytes of an answer. A usual one is empty; the longest that is of use is a sentence."""
_TOLD = 500
"""Characters of a backend's own words that we pass on."""
_RETRYABLE = (429, 502, 503, 504)
_SHORTEST_WAIT = 0.2
"""Seconds between two attempts at least, whatever the backend asks for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How one attempt ended."""

    verdict: Verdict
    error: str = ""
    """What happened, unless it was taken."""
    retry_after: float | None = None
    """Seconds that the backend asks to wait."""
    rejected: int = 0
    """Points of a taken request that the backend refused."""
    notice: str = ""
    """What the backend said beside taking it."""


def taken(body: bytes) -> Answer:
    """The answer of a backend that took the request. A body that is no answer says nothing."""
    response = ExportMetricsServiceResponse()
    try:
        response.ParseFromString(body)
    except DecodeError:
        return Answer("taken")
    partial = response.partial_success
    return Answer(
        "taken",
        rejected=max(0, partial.rejected_data_points),
        notice=shortened(partial.error_message),
    )


def http_answer(status: int, headers: Mapping[str, str], body: bytes, now: float) -> Answer:
    """Judge an HTTP answer. `headers` has lower-case names; `now` is Unix time."""
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if 200 <= status < 300:
        if media == "application/json":
            return _taken_json(body)
        if media.startswith("text/"):
            return Answer("taken", notice=f"it answers with {media}; is it an OTLP endpoint?")
        return taken(body)
    if 300 <= status < 400:
        place = headers.get("location", "").partition("?")[0]
        return Answer(
            "refused",
            f"{status}: redirects to {shortened(place) or 'nowhere'}, which is not followed;"
            " set otlp.endpoint to the address that takes metrics",
        )
    words = _protobuf_words(body) if "protobuf" in media else body.decode(errors="replace")
    error = f"{status}: {shortened(words)}" if words.strip() else str(status)
    if status in _RETRYABLE:
        return Answer("try again", error, retry_after(headers.get("retry-after", ""), now))
    return Answer("refused", error)


def retry_after(value: str, now: float) -> float | None:
    """The seconds that a Retry-After header asks for: a number, or the date when it is over."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.fromtimestamp(now, UTC)).total_seconds())


def grpc_retry_delay(details: bytes) -> float | None:
    """The seconds that a `grpc-status-details-bin` trailer asks to wait, if it does."""
    status = Status()
    info = RetryInfo()
    try:
        status.ParseFromString(details)
        for detail in status.details:
            if detail.Is(RetryInfo.DESCRIPTOR) and detail.Unpack(info):
                delay = float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
                return max(0.0, delay)
    except DecodeError:
        pass
    return None


def wait_before_retry(answer: Answer, attempt: int, rng: random.Random) -> float:
    """The seconds to wait after the attempt with this number, from 0 on."""
    if answer.retry_after is not None:
        return max(answer.retry_after, _SHORTEST_WAIT)
    backoff: float = 2**attempt * rng.uniform(0.8, 1.2)
    return backoff


def shortened(text: str) -> str:
    """A backend's words on one line, of a bounded length."""
    return " ".join(text[: 4 * _TOLD].split())[:_TOLD]


def _protobuf_words(body: bytes) -> str:
    try:
        return str(Status.FromString(body).message)
    except DecodeError:
        return ""


def _taken_json(body: bytes) -> Answer:
    try:
        partial = json.loads(body).get("partialSuccess") or {}
        return Answer(
            "taken",
            rejected=max(0, int(partial.get("rejectedDataPoints") or 0)),
            notice=shortened(str(partial.get("errorMessage") or "")),
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        return Answer("taken")
