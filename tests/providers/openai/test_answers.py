"""What an HTTP answer means."""

import msgspec
import pytest

from otel_openai_usage import errors
from otel_openai_usage.providers.openai.answers import (
    Advice,
    Body,
    error_of,
    read,
    retry_after,
    whole,
)

SCOPES = (
    "You have insufficient permissions for this operation. Missing scopes: api.usage.read, api.management.read. "
    "Check that you have the correct role in your organization (Reader, Writer, Owner)"
)
CURSOR = "The page token is invalid, have you modified the query parameters?"
HTML = b"<html><body>502 Bad Gateway</body></html>"


def envelope(message: str, code: str | None = None) -> bytes:
    """An error in OpenAI's envelope."""
    return msgspec.json.encode(
        {
            "error": {
                "message": message,
                "type": "invalid_request_error",
                "param": None,
                "code": code,
            }
        }
    )


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (
            401,
            envelope("Incorrect API key provided: sk-admin*fake.", "invalid_api_key"),
            errors.Rejected,
        ),
        (401, b"", errors.Rejected),
        (403, HTML, errors.Rejected),
        (401, envelope(SCOPES), errors.MissingScope),
        (403, envelope(SCOPES), errors.MissingScope),
        (403, msgspec.json.encode({"error": SCOPES}), errors.MissingScope),
        (400, envelope("no"), errors.BadRequest),
        (400, b'{"error":null}', errors.BadRequest),
        (422, b"{}", errors.BadRequest),
        (302, b"", errors.BadRequest),
        (400, envelope("too far", "reporting_lookback_exceeded"), errors.LookbackExceeded),
        (400, envelope(CURSOR, "invalid_request_error"), errors.BadCursor),
        (404, envelope("Invalid URL (GET /v1/x)"), errors.NotOffered),
        (404, HTML, errors.NotOffered),
        (429, envelope("Rate limit reached"), errors.RateLimited),
        (408, b"", errors.Unavailable),
        (500, envelope("server error"), errors.Unavailable),
        (502, HTML, errors.Unavailable),
        (503, b"[1, 2", errors.Unavailable),
        (200, HTML, type(None)),
    ],
)
def test_classes(status: int, body: bytes, kind: type) -> None:
    """The status decides first, then what the body says; each error names the call and the status."""
    error = error_of("GET organization/costs", status, {}, body, now=0.0)
    assert type(error) is kind
    if error is not None:
        assert str(error).startswith(f"GET organization/costs: {status}")
        assert error.status == status


@pytest.mark.parametrize(
    "body", [HTML, b"", b'{"data":[{"start_time":17', b'{"data":[]} trailing', b"\xff"]
)
def test_no_json(body: bytes) -> None:
    """A good status with a body that is no JSON is a BadResponse that names the call and how the
    body begins, whoever reads it.
    """

    def picky(body: Body) -> bytes:
        raise errors.BadShape("no shape that I know")

    for reading in (whole, picky):
        with pytest.raises(
            errors.BadResponse, match=r"^GET organization/costs: 200, but"
        ) as caught:
            read("GET organization/costs", 200, body, reading)
        assert type(caught.value) is errors.BadResponse
        assert caught.value.status == 200
    assert read("GET x", 200, b'{"data":[]}', whole) == b'{"data":[]}'
    with pytest.raises(errors.BadShape, match="no shape that I know"):
        read("GET x", 200, b"{}", picky)


def test_advice_is_the_client_s() -> None:
    """What to do depends on whose key and limit it is."""
    for status, kind, text in (
        (401, errors.Rejected, "use that key"),
        (429, errors.RateLimited, "ask less"),
    ):
        error = error_of(
            "GET usage", status, {}, b"", now=0.0, advice=Advice("use that key", "ask less")
        )
        assert type(error) is kind
        assert text in str(error)
        assert "admin" not in str(error)


def test_missing_scopes_are_listed() -> None:
    """The scopes come as OpenAI names them, without the full stop."""
    error = error_of("GET x", 403, {}, envelope(SCOPES), now=0.0)
    assert isinstance(error, errors.MissingScope)
    assert error.scopes == ("api.usage.read", "api.management.read")
    assert "api.usage.read, api.management.read" in str(error)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "20"}, 20.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "20"}, 1.5),
        ({"retry-after": "Sun, 22 Nov 2026 00:00:30 GMT"}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 00:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, thousandths or a date; nonsense is as nothing."""
    assert retry_after(headers, now=1795305600.0) == seconds


def test_waiting_too_long_is_said() -> None:
    """A Retry-After beyond our patience stands in the message."""
    error = error_of("GET x", 429, {"retry-after": "4000"}, b"", now=0.0)
    assert isinstance(error, errors.RateLimited)
    assert error.retry_after == 4000.0
    assert "asks to wait 4000 s, longer than the 300 s" in str(error)


@pytest.mark.parametrize(("code", "out_of_quota"), [("insufficient_quota", True), ("", False)])
def test_insufficient_quota_differs_from_a_rate_limit(code: str, out_of_quota: bool) -> None:
    """A 429 with the code `insufficient_quota` says that waiting does not help."""
    error = error_of("GET usage", 429, {}, envelope("no", code), now=0.0)
    assert isinstance(error, errors.RateLimited)
    assert error.out_of_quota is out_of_quota
