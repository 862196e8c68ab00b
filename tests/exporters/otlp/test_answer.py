"""How answers are judged, and when a request is sent again."""

import random

import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from otel_openai_usage.exporters.otlp.answer import (
    Answer,
    accepted,
    grpc_retry_delay,
    http_answer,
    retry_after,
    shortened,
    wait_before_retry,
)

NOW = 1_763_800_000.0  # 2025-11-22 08:26:40 UTC


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("9" * 400, 999_999_999),
        ("Sat, 22 Nov 2025 08:27:40 GMT", 60),
        ("Sat, 22 Nov 2025 08:26:40", 0),
        ("Sat, 22 Nov 2025 08:00:00 GMT", 0),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    """Both forms of the header are read; anything else is ignored."""
    assert retry_after(value, NOW) == seconds


def details(*messages: Any) -> bytes:
    """The trailer in which gRPC servers put them."""
    packed = Status(details=messages).SerializeToString()
    assert isinstance(packed, bytes)
    return packed


def test_a_grpc_backend_says_how_long_to_wait() -> None:
    """RetryInfo is found among the details of the status; other details are ignored."""
    info = Any()
    info.Pack(RetryInfo(retry_delay=Duration(seconds=3, nanos=500_000_000)))
    other = Any()
    other.Pack(Duration(seconds=9))
    assert grpc_retry_delay(details(other, info)) == 3.5
    assert grpc_retry_delay(details(other)) is None
    assert grpc_retry_delay(b"\xff\xff") is None
    assert grpc_retry_delay(b"") is None


def test_waits_grow_and_are_spread() -> None:
    """About 1, 2 and 4 s, or what the backend asks for, but at least 0.2 s."""
    rng = random.Random(1)
    waits = [wait_before_retry(Answer("retryable"), attempt, rng) for attempt in range(3)]
    for wait, about in zip(waits, (1, 2, 4), strict=True):
        assert 0.8 * about <= wait <= 1.2 * about
    assert wait_before_retry(Answer("retryable", retry_after=30), 0, rng) == 30
    assert wait_before_retry(Answer("retryable", retry_after=0), 0, rng) == 0.2


def test_json_answers_count_too() -> None:
    """A backend that answers in JSON may reject points as well."""
    body = b'{"partialSuccess": {"rejectedDataPoints": "4", "errorMessage": "too old"}}'
    answer = http_answer(200, {"content-type": "application/json; charset=utf-8"}, body, NOW)
    assert (answer.verdict, answer.rejected, answer.notice) == ("accepted", 4, "too old")


@given(
    st.integers(100, 599),
    st.dictionaries(
        st.sampled_from(["content-type", "retry-after", "location"]),
        st.sampled_from(["application/x-protobuf", "application/json", "text/html"]) | st.text(),
    ),
    st.binary(max_size=200)
    | st.sampled_from([b"[]", b"{", b"null", b'{"partialSuccess": []}', b"[" * 100_000])
    | st.just(b'{"partialSuccess": {"rejectedDataPoints": "many"}}'),
)
def test_whatever_is_answered_is_judged(status: int, headers: dict[str, str], body: bytes) -> None:
    """No answer raises; 2xx is accepted, all else is not; messages are short and on one line."""
    answer = http_answer(status, headers, body, NOW)
    assert (answer.verdict == "accepted") is (200 <= status < 300)
    assert answer.rejected >= 0
    for words in (answer.error, answer.notice):
        assert len(words) < 700
        assert "\n" not in words
    assert bool(answer.error) is (answer.verdict != "accepted")


@given(st.binary(max_size=200))
def test_whatever_grpc_answers_is_accepted(body: bytes) -> None:
    """The status was OK, so a body that is no answer changes nothing."""
    assert accepted(body).verdict == "accepted"
    grpc_retry_delay(body)


def test_a_message_of_a_backend_is_shortened() -> None:
    """A megabyte is cut, and lines become one."""
    assert shortened("a\n b\t" * 300_000).startswith("a b a b")
    assert len(shortened("a\n b\t" * 300_000)) <= 500
