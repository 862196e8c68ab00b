"""Answers that are made to break the reader are errors of their source: they never end the run."""

import pytest

from otel_openai_usage.domain.endpoints import USAGE_ENDPOINTS
from otel_openai_usage.errors import BadResponse
from otel_openai_usage.providers.openai import answers, wire

DEEP = b"[" * 100_000
KIND = USAGE_ENDPOINTS["embeddings"]


def row(tokens: str) -> bytes:
    """The results of one bucket of embeddings."""
    return f'[{{"object":"{KIND.object}","input_tokens":{tokens},"num_model_requests":1}}]'.encode()


@pytest.mark.parametrize("body", [DEEP, DEEP + b"]" * 100_000, b'{"data":' * 50_000])
def test_deep_json_is_no_answer(body: bytes) -> None:
    """Nesting beyond any reason is a BadResponse, and an error body of that kind is no detail."""
    with pytest.raises(BadResponse):
        wire.page(body, KIND)
    with pytest.raises(BadResponse):
        wire.rows(KIND, body)
    with pytest.raises(BadResponse):
        answers.read("GET usage", 200, body, answers.whole)
    for status in (400, 500):
        assert answers.error_of("GET usage", status, {}, body, now=0.0, secret="sk-x") is not None


@pytest.mark.parametrize("tokens", [str(10**16 + 1), str(2**63), "1" + "0" * 30, "1e30"])
def test_counts_beyond_reason_are_refused(tokens: str) -> None:
    """A count that neither SQLite nor OTLP could add up is a BadResponse; the largest is taken."""
    with pytest.raises(BadResponse, match="whole number from 0 to"):
        wire.rows(KIND, row(tokens))
    assert [amounts[0] for amounts in wire.rows(KIND, row(str(10**16))).values()] == [10**16]


def test_rows_that_add_up_beyond_reason_are_refused() -> None:
    """Many rows of one attribute set are bounded as one row is: their sum would leave SQLite's 64
    bits.
    """
    many = b"[" + b",".join([row(str(10**16))[1:-1]] * 1000) + b"]"
    with pytest.raises(BadResponse, match="add up to more than"):
        wire.rows(KIND, many)
    halves = b"[" + b",".join([row(str(10**16 // 2))[1:-1]] * 2) + b"]"
    assert [amounts[0] for amounts in wire.rows(KIND, halves).values()] == [10**16]
