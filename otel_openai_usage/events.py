"""A CloudEvents 1.0 body becomes events, or a sentence about what is wrong with it. Pure.

The envelope: CloudEvents 1.0.2, JSON format (section 3) and batch format (section 4). The data:
what OpenAI's usage objects say (openai-api.md section 7), and OpenMeter's `{tokens, model, type}`.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from hashlib import blake2b
from typing import Annotated, Literal, TypeAlias

import msgspec

from otel_openai_usage.core.metered import METERED, Event
from otel_openai_usage.core.model import Amounts

MOST = 10**12
"""The most tokens that one event may tell of; more is a mistake, and could overflow the store."""
LONGEST = 512
"""Characters that a value may have which becomes an attribute."""

Number: TypeAlias = int | float | str | None
Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]
Short: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST)]

_TYPES: Mapping[str, int] = {
    "input": 0, "prompt": 0, "system": 0, "output": 1, "completion": 1, "input_cached": 2, "cached": 2, "reasoning": 3,
}  # fmt: skip
"""Values of OpenMeter's `type` beside `tokens`, and the measure that they mean."""


class Refused(ValueError):
    """The body cannot be taken. `index` is the place in a batch of what is wrong, None for a single
    event.
    """

    def __init__(self, message: str, index: int | None = None) -> None:
        self.index = index
        super().__init__(message)


class _Envelope(msgspec.Struct, gc=False):
    id: Text
    source: Text
    specversion: Literal["1.0"]
    type: Short
    subject: Short
    time: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    datacontenttype: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")
    data_base64: str | None = None


class _Details(msgspec.Struct, gc=False):
    cached_tokens: Number = None
    reasoning_tokens: Number = None


class _Usage(msgspec.Struct, gc=False):
    tokens: Number = None
    prompt_tokens: Number = None
    completion_tokens: Number = None
    input_tokens: Number = None
    output_tokens: Number = None
    total_tokens: Number = None
    cached_tokens: Number = None
    input_cached_tokens: Number = None
    reasoning_tokens: Number = None
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    input_token_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    output_token_details: _Details | None = None


class _Data(_Usage, gc=False):
    model: Annotated[str, msgspec.Meta(max_length=LONGEST)] | None = None
    type: str | None = None
    estimated: bool | None = None
    organization: str | None = None
    usage: _Usage | None = None


_ONE = msgspec.json.Decoder(_Envelope)
_MANY = msgspec.json.Decoder(list[_Envelope])
_DATA = msgspec.json.Decoder(_Data | None)
_ANY = msgspec.json.Decoder()
_AT = re.compile(r" - at `\$(?:\[(\d+)\])?\.?(.*)`$")
_MEDIA = re.compile(r"application/(?:[\w.+-]+\+)?json\s*(?:;|$)", re.ASCII | re.IGNORECASE)
_NEVER = datetime.fromisoformat(
    "0001-01-01T00:00:00+00:00"
)  # Go's zero time, which OpenMeter takes as no time


_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Parser:
    """Reads bodies. `attributes` maps a name of an attribute to the path of its value in the data
    (`team`, `$.user.plan`).

    `dimensions` is the order in which an event's `dims` are wanted.
    """

    def __init__(
        self, attributes: Mapping[str, str] | None = None, dimensions: Sequence[str] | None = None
    ) -> None:
        paths = {name: _path(path) for name, path in (attributes or {}).items()}
        wanted = METERED.group_by + tuple(paths) if dimensions is None else dimensions
        self._paths = tuple((name, paths.get(name)) for name in wanted[len(METERED.group_by) :])

    def one(self, body: bytes) -> list[Event]:
        """The event of a body that holds one. Raises Refused."""
        try:
            return [self._event(_ONE.decode(body))]
        except _UNREADABLE as error:
            raise _refused(error) from error

    def many(self, body: bytes) -> list[Event]:
        """The events of a batch, at least one. Raises Refused, with the place of the first that is
        not right.
        """
        try:
            envelopes = _MANY.decode(body)
        except _UNREADABLE as error:
            raise _refused(error) from error
        if not envelopes:
            raise Refused("the batch is empty; send at least one event")
        found = []
        for index, envelope in enumerate(envelopes):
            try:
                found.append(self._event(envelope))
            except _UNREADABLE as error:
                raise Refused(str(_refused(error)), index) from error
            except Refused as error:
                raise Refused(str(error), index) from error
        return found

    def either(self, body: bytes) -> list[Event]:
        """One event or a batch, as the body shows. Raises Refused."""
        return self.many(body) if body.lstrip()[:1] == b"[" else self.one(body)

    def _event(self, envelope: _Envelope) -> Event:
        if envelope.data_base64 is not None:
            raise Refused("data_base64: expected data, a JSON object")
        if envelope.datacontenttype is not None and not _MEDIA.match(envelope.datacontenttype):
            raise Refused(
                f"datacontenttype: expected application/json, got {envelope.datacontenttype!r}"
            )
        try:
            data = _DATA.decode(envelope.data) or _Data()
        except msgspec.ValidationError as error:
            raise Refused(_sentence(error, "data")) from error
        amounts = _amounts(data)
        extra = self._extra(envelope.data) if self._paths else ()
        dims = (
            envelope.subject,
            data.model or None,
            envelope.type,
            "true" if data.estimated else None,
            *extra,
        )
        time = (
            None if envelope.time is None or envelope.time <= _NEVER else envelope.time.timestamp()
        )
        content = blake2b(
            f"{time} {dims} {amounts} {data.organization}".encode(), digest_size=8
        ).digest()
        identity = blake2b(
            f"{len(envelope.source)}:{envelope.source}{envelope.id}".encode(), digest_size=16
        ).digest()
        return Event(
            identity,
            content,
            None if time is None else int(time // 1),
            dims,
            amounts,
            data.organization,
        )

    def _extra(self, raw: msgspec.Raw) -> tuple[str | None, ...]:
        data = _ANY.decode(raw)
        return tuple(
            None if path is None else _value(name, data, path) for name, path in self._paths
        )


def _path(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.removeprefix("$").split(".") if part)


def _value(name: str, data: object, path: Sequence[str]) -> str | None:
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    if data is None or isinstance(data, dict | list):
        return None
    text = str(data).lower() if isinstance(data, bool) else str(data)
    if len(text) > LONGEST:
        raise Refused(
            f"data: the value of {name} has {len(text)} characters, expected at most {LONGEST}"
        )
    return text or None


def _amounts(data: _Data) -> Amounts:
    usage = data.usage or data
    if usage.tokens is not None:
        return _typed(_count("tokens", usage.tokens), data.type)
    given = _either("input_tokens", usage.input_tokens, "prompt_tokens", usage.prompt_tokens)
    made = _either(
        "output_tokens", usage.output_tokens, "completion_tokens", usage.completion_tokens
    )
    if given is None or made is None:
        given, made = _rest(given, made, usage.total_tokens)
    cached = _either(
        "input_cached_tokens", usage.input_cached_tokens, "cached_tokens", usage.cached_tokens
    )
    if cached is None:
        cached = _detail(
            "cached_tokens",
            usage.prompt_tokens_details,
            usage.input_tokens_details,
            usage.input_token_details,
        )
    thought = _either("reasoning_tokens", usage.reasoning_tokens)
    if thought is None:
        thought = _detail(
            "reasoning_tokens",
            usage.completion_tokens_details,
            usage.output_tokens_details,
            usage.output_token_details,
        )
    return (given, made, cached, thought, 1)


def _either(name: str, value: Number, other: str = "", instead: Number = None) -> int | None:
    if value is None:
        return None if instead is None else _count(other, instead)
    return _count(name, value)


def _rest(given: int | None, made: int | None, total: Number) -> tuple[int, int]:
    """Input and output, where one of them (or both) is not said but the total is."""
    all_ = 0 if total is None else _count("total_tokens", total)
    if given is None and made is None and all_:
        raise Refused(
            "data.total_tokens: cannot be told apart into input and output; send input_tokens and output_tokens too"
        )
    if given is None:
        return (max(all_ - (made or 0), 0), made or 0)
    return (given, max(all_ - given, 0))


def _typed(tokens: int, kind: str | None) -> Amounts:
    if kind is None or kind not in _TYPES:
        raise Refused(f"data.type: expected {', '.join(_TYPES)} beside tokens, got {kind!r}")
    amounts = [0, 0, 0, 0, 1]
    amounts[_TYPES[kind]] = tokens
    return tuple(amounts)


def _detail(name: str, *details: _Details | None) -> int:
    for holder in details:
        if holder is not None:
            value: Number = getattr(holder, name)
            if value is not None:
                return _count(name, value)
    return 0


def _count(name: str, value: float | str) -> int:
    if type(value) is int and 0 <= value <= MOST:
        return value
    text = str(value)
    try:
        number = Decimal(text)  # it takes digits of any script, and 1_000
        if (
            text.isascii()
            and "_" not in text
            and number.is_finite()
            and 0 <= number <= MOST
            and number == number.to_integral_value()
        ):
            return int(number)
    except InvalidOperation:
        pass
    raise Refused(f"data.{name}: expected a whole number from 0 to {MOST}, got {_short(value)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _refused(error: Exception) -> Refused:
    at = _AT.search(str(error))
    return Refused(_sentence(error), int(at[1]) if at and at[1] else None)


def _sentence(error: Exception, prefix: str = "") -> str:
    """msgspec's message with the path first: `type: Expected `str`, got `int``."""
    if isinstance(error, RecursionError):
        return "the body is nested too deeply"
    if not isinstance(error, msgspec.ValidationError):
        return f"the body is not JSON: {error}"
    text = str(error)
    at = _AT.search(text)
    place = ".".join(part for part in (prefix, at[2] if at else "") if part)
    what = (text[: at.start()] if at else text).replace("Invalid enum value", "expected '1.0', got")
    what = f"{what[0].lower()}{what[1:]}".replace(
        "invalid RFC3339 encoded datetime", "expected a time as in RFC 3339"
    )
    return f"{place}: {what}" if place else what
