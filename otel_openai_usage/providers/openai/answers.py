"""Turns an HTTP answer into an error of our tree, or None for a good one. Pure."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeAlias, TypeVar

import msgspec

from otel_openai_usage import errors
from otel_openai_usage.config.secrets import redact
from otel_openai_usage.providers.openai.retry import MAX_RETRY_AFTER

T = TypeVar("T")
Body: TypeAlias = bytes | bytearray
"""The bytes of an answer. A bytearray grows without being copied."""

_SCOPES = re.compile(r"Missing scopes?:\s*([\w.:-]+(?:\s*,\s*[\w.:-]+)*)", re.IGNORECASE)
_TRANSIENT = (408, 409, 425)
_ANY = msgspec.json.Decoder(msgspec.Raw)


class _Detail(msgspec.Struct):
    message: str | None = None
    code: str | int | None = None


class _Envelope(msgspec.Struct):
    error: _Detail | str | None = None


_ENVELOPE = msgspec.json.Decoder(_Envelope)


@dataclass(frozen=True, slots=True)
class Advice:
    """The advice for a refused key, and for too many requests."""

    key: str = "the key must be a live admin key of the organization (sk-admin-…)"
    rate: str = "lower api.requests_per_minute if this goes on"


ADMIN = Advice()


def error_of(
    call: str,
    status: int,
    headers: Mapping[str, str],
    body: Body,
    *,
    now: float,
    secret: str = "",
    advice: Advice = ADMIN,
) -> errors.SourceError | None:
    """The error that an answer to `call` ("GET organization/costs") means; None if its body can be
    read.

    Classified by the status first (OpenAI's own ErrorResponse, its
    components.responses.TooManyRequests, and reports from the field where those are silent). `now`
    in Unix seconds, for a Retry-After that is a date.
    """
    if 200 <= status < 300:
        return None
    detail = _detail(body)
    said = redact(detail.message or "", secret)[:300]
    return _classify(
        f"{call}: {status}", status, said, str(detail.code or ""), headers, now, advice
    )


def whole(body: Body) -> bytes:
    """The body as it is; BadResponse where it is no JSON."""
    if not _is_json(body):
        raise errors.BadResponse("no JSON")
    return bytes(body)


def read(
    call: str, status: int, body: Body, reading: Callable[[Body], T], *, secret: str = ""
) -> T:
    """Return `reading(body)`. If the body is no JSON, the BadResponse quotes its beginning.

    Whether it is JSON is only checked after `reading` refused it: bodies have tens of megabytes.
    """
    try:
        return reading(body)
    except errors.BadResponse:
        if _is_json(body):
            raise
        raise errors.BadResponse(
            f"{call}: {status}, {_start(body, secret)}", status=status
        ) from None


def _classify(
    call_and_status: str,
    status: int,
    said: str,
    code: str,
    headers: Mapping[str, str],
    now: float,
    advice: Advice,
) -> errors.SourceError:
    quoted = f" ({said})" if said else ""
    if status in (401, 403):
        return _refused(call_and_status, status, said, quoted, advice)
    if status in (404, 410):
        return errors.NotOffered(
            f"{call_and_status}; OpenAI has no such endpoint for this organization, or base_url is wrong{quoted}",
            status=status,
        )
    if status == 407:
        return errors.Unavailable(
            f"{call_and_status}; the proxy asks for a login: put user and password into the proxy's URL",
            status=status,
        )
    if status == 429:
        return _limited(call_and_status, retry_after(headers, now), code, quoted, advice)
    if status >= 500 or status in _TRANSIENT:
        return errors.Unavailable(
            f"{call_and_status}; a failure at OpenAI or on the way there{quoted}", status=status
        )
    return _bad_request(call_and_status, status, said, code, quoted)


def _refused(
    call_and_status: str, status: int, said: str, quoted: str, advice: Advice
) -> errors.Rejected:
    if found := _SCOPES.search(said):
        scopes = [scope.strip().rstrip(".") for scope in found[1].split(",")]
        return errors.MissingScope(
            f"{call_and_status}; the key lacks {', '.join(scopes)}: grant that to the admin key",
            status=status,
            scopes=scopes,
        )
    return errors.Rejected(f"{call_and_status}; {advice.key}{quoted}", status=status)


def _limited(
    call_and_status: str, wait: float | None, code: str, quoted: str, advice: Advice
) -> errors.RateLimited:
    asked = f"OpenAI asks to wait {wait:g} s" if wait is not None else "too many requests"
    if wait is not None and wait > MAX_RETRY_AFTER:
        asked += f", longer than the {MAX_RETRY_AFTER:g} s that one request waits"
    return errors.RateLimited(
        f"{call_and_status}; {asked}; {advice.rate}{quoted}",
        retry_after=wait,
        out_of_quota=code == "insufficient_quota",
    )


def _bad_request(
    call_and_status: str, status: int, said: str, code: str, quoted: str
) -> errors.BadRequest:
    if code == "reporting_lookback_exceeded":
        return errors.LookbackExceeded(
            f"{call_and_status}; that lies further back than OpenAI reports{quoted}", status=status
        )
    if "page token is invalid" in said:
        return errors.BadCursor(
            f"{call_and_status}; OpenAI refuses its own page token{quoted}", status=status
        )
    if 300 <= status < 400:
        return errors.BadRequest(
            f"{call_and_status}; a redirect, which OpenAI's API does not send: check base_url",
            status=status,
        )
    return errors.BadRequest(
        f"{call_and_status}; OpenAI refuses the request{quoted}", status=status
    )


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that `retry-after-ms` or a Retry-After (seconds or an HTTP date) asks to wait; None
    without one.
    """
    if (thousandths := _number(headers.get("retry-after-ms", ""))) is not None:
        return thousandths / 1000
    text = headers.get("retry-after", "").strip()
    if (seconds := _number(text)) is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d{1,12}(\.\d*)?", text.strip()) else None


def _is_json(body: Body) -> bool:
    try:
        _ANY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _detail(body: Body) -> _Detail:
    try:
        error = _ENVELOPE.decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Detail()  # HTML of a proxy, or nothing: the status has to do
    return error if isinstance(error, _Detail) else _Detail(error)


def _start(body: Body, secret: str) -> str:
    if not body:
        return "but an empty body"
    start = repr(redact(body[:200].decode("utf-8", "replace"), secret)[:80])
    if body[:200].lstrip().startswith((b"{", b"[")):
        return f"but its JSON breaks off or is broken after {len(body)} bytes: {start}"
    return f"but no JSON: {start}; check base_url"
