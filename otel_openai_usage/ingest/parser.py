"""Decodes a CloudEvents 1.0 body to events, or raises Refused with the problem. Pure: no I/O.

The envelope: CloudEvents 1.0.2, JSON format (section 3) and batch format (section 4). The data: an
OpenAI response or its usage object, or OpenMeter's `{tokens, model, type}`.

An event that is refused is lost usage, so the data are read with tolerance: a field of an
unexpected type counts as missing wherever the tokens are certain without it.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from hashlib import blake2b
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec

from otel_openai_usage.domain.metered import METERED, Event, PricedBy
from otel_openai_usage.domain.model import Amounts
from otel_openai_usage.ingest import dialects

MAX_COUNT = 10**12
"""The most tokens of one event; more is a mistake, and could overflow the store."""
LONGEST = 512
"""Characters of a subject or type; the value of another attribute is cut to as many."""
CUT = "…"
"""The last character of a value that was cut."""
FIRST_YEAR = 2015
"""OpenAI was founded in this year: an earlier time is a mistake."""
AHEAD = 400 * 86400.0
"""Seconds that the time of an event may lie after our clock. The limit is this high because our
clock may be behind by days or months, and an event that is refused is lost.
"""

Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]
Short: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST)]

_TYPES: Mapping[str, int] = {
    "input": 0, "prompt": 0, "system": 0, "output": 1, "completion": 1, "input_cached": 2, "cached": 2, "reasoning": 3,
}  # fmt: skip
"""Values of OpenMeter's `type` beside `tokens`, and the index of their measure in `METERED`."""


class Refused(ValueError):
    """The body cannot be recorded. `index` is the place of the bad event in a batch, else None."""

    def __init__(self, message: str, index: int | None = None) -> None:
        self.index = index
        super().__init__(message)


# The default of a field that is missing.
_NOTHING = msgspec.Raw()


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


class _Modalities(msgspec.Struct, gc=False):
    audio_tokens: Any = None
    image_tokens: Any = None


class _Details(_Modalities, gc=False):
    cached_tokens: Any = None
    reasoning_tokens: Any = None
    cached_tokens_details: msgspec.Raw = _NOTHING


class _Usage(msgspec.Struct, gc=False):
    """The names of counts in the answers of OpenAI and of compatible servers.

    Values are checked later: one field of another type must not make the whole object unreadable.
    """

    tokens: Any = None
    prompt_tokens: Any = None
    completion_tokens: Any = None
    input_tokens: Any = None
    output_tokens: Any = None
    total_tokens: Any = None
    cached_tokens: Any = None
    input_cached_tokens: Any = None
    cached_input_tokens: Any = None
    prompt_cache_hit_tokens: Any = None
    cache_read_input_tokens: Any = None
    cache_creation_input_tokens: Any = None
    reasoning_tokens: Any = None
    prompt_tokens_details: msgspec.Raw = _NOTHING
    input_tokens_details: msgspec.Raw = _NOTHING
    input_token_details: msgspec.Raw = _NOTHING
    completion_tokens_details: msgspec.Raw = _NOTHING
    output_tokens_details: msgspec.Raw = _NOTHING
    output_token_details: msgspec.Raw = _NOTHING


class _Data(_Usage, gc=False):
    """The data of an event, or an object in it that may carry the usage."""

    object: Any = None
    status: Any = None
    model: Any = None
    type: Any = None
    estimated: Any = None
    organization: Any = None
    service_tier: Any = None
    custom_id: Any = None
    usage: msgspec.Raw = _NOTHING
    response: msgspec.Raw = _NOTHING
    body: msgspec.Raw = _NOTHING
    message: msgspec.Raw = _NOTHING
    x_groq: msgspec.Raw = _NOTHING


_ONE = msgspec.json.Decoder(_Envelope)
_MANY = msgspec.json.Decoder(list[_Envelope])
_DATA = msgspec.json.Decoder(_Data | None)
_USAGE = msgspec.json.Decoder(_Usage)
_DETAILS = msgspec.json.Decoder(_Details)
_MODALITIES = msgspec.json.Decoder(_Modalities)
_ANY = msgspec.json.Decoder()
_AT = re.compile(r" - at `\$(?:\[(\d+)\])?\.?(.*)`$")
_MEDIA = re.compile(r"application/(?:[\w.+-]+\+)?json\s*(?:;|$)", re.ASCII | re.IGNORECASE)
# Go's zero time. OpenMeter, whose contract this is, treats it as no time.
_NEVER = datetime.fromisoformat("0001-01-01T00:00:00+00:00")
_FIRST = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp()


_BOM = b"\xef\xbb\xbf"
_ESCAPES = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair: one character
    rb"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"  # half of one
    rb"|\\."  # so that an escaped backslash begins no escape
)
_RUNNING = frozenset({"validating", "in_progress", "finalizing", "cancelling"})
"""The states of a Batch whose usage is not complete yet."""

_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError)
_UNREADABLE = (*_NO_JSON, RecursionError)


class Parser:
    """Decodes bodies. `attributes` maps the name of an attribute to the path of its value in the
    data (`team`, `$.user.plan`).

    `dimensions` is the order of an event's `dims`; it begins with those of METERED. `now` returns
    the present in Unix seconds.
    """

    def __init__(
        self,
        attributes: Mapping[str, str] | None = None,
        dimensions: Sequence[str] | None = None,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        paths = {name: _path(path) for name, path in (attributes or {}).items()}
        wanted = METERED.group_by + tuple(paths) if dimensions is None else dimensions
        self._paths = tuple((name, paths.get(name)) for name in wanted[len(METERED.group_by) :])

    def one(self, body: bytes) -> list[Event]:
        """The event of a body with one event; none if a Batch still runs. Raises Refused."""
        return _tolerant(self._one, body)

    def many(self, body: bytes) -> list[Event]:
        """The events of a batch. Raises Refused for an empty batch, or with the index of the first
        bad event.
        """
        return _tolerant(self._many, body)

    def either(self, body: bytes) -> list[Event]:
        """One event or a batch: a batch begins with `[`. Raises Refused."""
        return self.many(body) if body.lstrip()[:1] == b"[" else self.one(body)

    def _one(self, body: bytes) -> list[Event]:
        try:
            event = self._event(_ONE.decode(body))
        except _UNREADABLE as error:
            raise _refused(error) from error
        return [] if event is None else [event]

    def _many(self, body: bytes) -> list[Event]:
        try:
            envelopes = _MANY.decode(body)
        except _UNREADABLE as error:
            raise _refused(error) from error
        if not envelopes:
            raise Refused("the batch is empty; send at least one event")
        found = []
        for index, envelope in enumerate(envelopes):
            try:
                event = self._event(envelope)
            except _UNREADABLE as error:
                raise Refused(str(_refused(error)), index) from error
            except Refused as error:
                raise Refused(str(error), index) from error
            if event is not None:
                found.append(event)
        return found

    def _event(self, envelope: _Envelope) -> Event | None:
        """The event in an envelope; None for a Batch that still runs."""
        if envelope.data_base64 is not None:
            raise Refused("data_base64: expected data, a JSON object")
        if envelope.datacontenttype is not None and not _MEDIA.match(envelope.datacontenttype):
            raise Refused(
                f"datacontenttype: expected application/json, got {envelope.datacontenttype!r}"
            )
        try:
            data = _DATA.decode(envelope.data) or _Data()
        except msgspec.ValidationError:
            # Not an object, such as `[]`, which PHP writes for an empty one: it has no usage.
            data = _Data()
        if data.object == "batch" and data.status in _RUNNING:
            # If it were counted now, with 0 tokens, the complete event would not count: its id
            # would be known.
            return None
        holders = _holders(data)
        amounts, priced_by = _amounts(data, holders)
        model = _model(holders)
        if not (amounts[0] or amounts[1]):
            raw = _ANY.decode(envelope.data)
            amounts = dialects.amounts(raw, _part) or amounts
            model = model or dialects.model(raw)
        organization = data.organization if isinstance(data.organization, str) else None
        extra = self._extra(envelope.data) if self._paths else ()
        dims = (
            envelope.subject,
            None if model is None else _cut(model),
            envelope.type,
            "true" if data.estimated is True else None,
            *extra,
        )
        unix = self._unix(envelope.time)
        counted = f"{unix} {dims} {amounts} {organization}"
        content = blake2b(counted.encode(), digest_size=8).digest()
        # The length separates source and id: otherwise "a" + "bc" would equal "ab" + "c".
        name = f"{len(envelope.source)}:{envelope.source}{envelope.id}"
        identity = blake2b(name.encode(), digest_size=16).digest()
        # Rounded down, so that the last second of an hour stays in its hour.
        seconds = None if unix is None else int(unix // 1)
        return Event(identity, content, seconds, dims, amounts, organization, priced_by)

    def _unix(self, stated: datetime | None) -> float | None:
        """The time of an event in Unix seconds, None if it has none. Raises Refused."""
        if stated is None or stated <= _NEVER:
            return None
        unix = stated.timestamp()
        latest = self._now() + AHEAD
        if unix < _FIRST or unix > latest:
            last = datetime.fromtimestamp(latest, UTC)
            raise Refused(
                f"time: expected one from {FIRST_YEAR} to {last:%Y-%m-%dT%H:%M:%SZ}, got {stated.isoformat()}"
            )
        return unix

    def _extra(self, raw: msgspec.Raw) -> tuple[str | None, ...]:
        data = _ANY.decode(raw)
        return tuple(None if path is None else _value(data, path) for _, path in self._paths)


def _path(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.removeprefix("$").split(".") if part)


def _value(data: object, path: Sequence[str]) -> str | None:
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    if data is None or isinstance(data, dict | list):
        return None
    text = str(data).lower() if isinstance(data, bool) else str(data)
    return _cut(text) or None


def _cut(text: str) -> str:
    """At most LONGEST characters of a text, the last of them a mark if it had more."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}{CUT}"


def _tolerant(parse: Callable[[bytes], list[Event]], body: bytes) -> list[Event]:
    """Parse a body; if it is not Unicode, parse it again with U+FFFD in place of the wrong bytes.

    A client may have cut a text within a character. The tokens of that event must not be lost.
    """
    try:
        return parse(body)
    except Refused as error:
        cause = error.__cause__
        if isinstance(cause, msgspec.ValidationError) or not isinstance(cause, _NO_JSON):
            raise
        repaired = _repaired(body)
        if repaired == body:
            raise
    return parse(repaired)


def _repaired(body: bytes) -> bytes:
    """The body without a BOM, with U+FFFD for wrong bytes and for escapes of half a character."""
    text = body.removeprefix(_BOM).decode("utf-8", "replace").encode()
    return _ESCAPES.sub(lambda escape: b"\\ufffd" if escape[1] else escape[0], text)


_Read = TypeVar("_Read")


def _read(decoder: msgspec.json.Decoder[_Read], raw: msgspec.Raw) -> _Read | None:
    """Decode an inner object; None if it is missing or is not an object."""
    if raw is _NOTHING:
        return None
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError:
        return None


def _holders(data: _Data) -> list[_Data]:
    """The data, and the objects in it that may carry usage: `response.done` of a realtime session,
    a line of a batch's output file, an event of a stream.
    """
    found = [data]
    response = _read(_DATA, data.response)
    if response is not None:
        found.append(response)
        body = _read(_DATA, response.body)
        if body is not None:
            found.append(body)
    for raw in (data.message, data.x_groq):
        inner = _read(_DATA, raw)
        if inner is not None:
            found.append(inner)
    return found


def _model(holders: Sequence[_Data]) -> str | None:
    for holder in holders:
        model = holder.model
        if isinstance(model, str) and model:
            return model
    return None


def _amounts(data: _Data, holders: Sequence[_Data]) -> tuple[Amounts, PricedBy | None]:
    """The amounts to count: those of the first object with input or output tokens above 0, and
    what else that object says of the price.

    Without one, OpenMeter's `tokens` count, then an object with 0 tokens. An event without any of
    them counts as a request.
    """
    best: Amounts | None = None
    for usage in _usages(holders):
        found = _split(usage)
        if found is None:
            continue
        if found[0] or found[1]:
            return found, _priced_by(data, holders, usage)
        best = best or found
    return _typed(data) or best or (0, 0, 0, 0, 1), None


def _priced_by(data: _Data, holders: Sequence[_Data], usage: _Usage) -> PricedBy | None:
    """What decides the price of a response beside its model and tokens; None if nothing does."""
    tiers = [holder.service_tier for holder in holders if isinstance(holder.service_tier, str)]
    tier = tiers[0][:LONGEST] if tiers and tiers[0] not in _NO_TIER else None
    # Each line of a batch's output file has the id that its request had.
    is_batch = data.object == "batch" or isinstance(data.custom_id, str)
    parts = _parts(usage)
    return PricedBy(parts, tier, is_batch) if parts or tier or is_batch else None


_NO_TIER = ("", "auto", "default", "standard")


def _parts(usage: _Usage) -> dict[str, int]:
    """Tokens of audio and images. OpenAI's input contains cached tokens, its usage rows do not."""
    found: dict[str, int] = {}
    for direction, raws in (
        (
            "input",
            (usage.prompt_tokens_details, usage.input_tokens_details, usage.input_token_details),
        ),
        (
            "output",
            (
                usage.completion_tokens_details,
                usage.output_tokens_details,
                usage.output_token_details,
            ),
        ),
    ):
        for raw in raws:
            details = None if raw is _NOTHING else _read(_DETAILS, raw)
            if details is None:
                continue
            cached = _read(_MODALITIES, details.cached_tokens_details) or _Modalities()
            for name in ("audio", "image"):
                count = _detail(getattr(details, f"{name}_tokens"))
                of_cache = _detail(getattr(cached, f"{name}_tokens"))
                if direction == "input" and of_cache:
                    found[f"input_cached_{name}"] = of_cache
                if count > of_cache:
                    found[f"{direction}_{name}"] = count - of_cache
    return found


def _usages(holders: Sequence[_Data]) -> Iterator[_Usage]:
    for holder in holders:
        yield holder
        inner = _read(_USAGE, holder.usage)
        if inner is not None:
            yield inner


def _split(usage: _Usage) -> Amounts | None:
    """Input, output and their parts; None if the object says neither input nor output."""
    inputs = _largest("input_tokens", usage.input_tokens, "prompt_tokens", usage.prompt_tokens)
    outputs = _largest(
        "output_tokens", usage.output_tokens, "completion_tokens", usage.completion_tokens
    )
    if inputs is None and outputs is None:
        return None
    # One of the two is missing: the total says how many tokens it has.
    if inputs is None or outputs is None:
        total = _number("total_tokens", usage.total_tokens) or 0
        if inputs is None:
            inputs = max(total - (outputs or 0), 0)
        if outputs is None:
            outputs = max(total - inputs, 0)
    if usage.prompt_tokens is None and usage.total_tokens is None:
        # Anthropic's input_tokens do not include tokens read from or written to its cache.
        cache = (usage.cache_read_input_tokens, usage.cache_creation_input_tokens)
        inputs += sum(_detail(value) for value in cache)
    return (inputs, outputs, _cached(usage), _reasoning(usage), 1)


def _cached(usage: _Usage) -> int:
    flat = (
        usage.cached_tokens,
        usage.input_cached_tokens,
        usage.cached_input_tokens,
        usage.prompt_cache_hit_tokens,
        usage.cache_read_input_tokens,
    )
    found = max((_detail(value) for value in flat if value is not None), default=0)
    for raw in (usage.prompt_tokens_details, usage.input_tokens_details, usage.input_token_details):
        if raw is not _NOTHING:
            details = _read(_DETAILS, raw)
            found = max(found, _detail(details.cached_tokens) if details else 0)
    return found


def _reasoning(usage: _Usage) -> int:
    found = _detail(usage.reasoning_tokens)
    for raw in (
        usage.completion_tokens_details,
        usage.output_tokens_details,
        usage.output_token_details,
    ):
        if raw is not _NOTHING:
            details = _read(_DETAILS, raw)
            found = max(found, _detail(details.reasoning_tokens) if details else 0)
    return found


def _typed(data: _Data) -> Amounts | None:
    """OpenMeter's `tokens` of one `type`. None without tokens, or with an unknown type: it does not
    say which counter they belong to.
    """
    measure = _TYPES.get(data.type) if isinstance(data.type, str) else None
    if measure is None:
        return None
    tokens = _number("tokens", data.tokens)
    if tokens is None:
        return None
    amounts = [0, 0, 0, 0, 1]
    amounts[measure] = tokens
    return tuple(amounts)


def _largest(name: str, value: Any, other: str, instead: Any) -> int | None:
    """The larger of two names of one count: a server that writes both sets the unused one to 0."""
    one = None if value is None else _number(name, value)
    two = None if instead is None else _number(other, instead)
    if one is None or two is None:
        return two if one is None else one
    return max(one, two)


def _number(name: str, value: Any) -> int | None:
    """A count; None for null, an object, or `[]`, which PHP writes for an empty object.

    Raises Refused for any other value that is not a count.
    """
    if value is None or value == [] or isinstance(value, dict):
        return None
    return _count(name, value)


def _part(name: str, value: object) -> int:
    """A count of another vendor's field, 0 if it is null or an object. Raises Refused."""
    return _number(name, value) or 0


def _detail(value: Any) -> int:
    """A part of input or output; 0 if it is not a count, because the whole is counted anyway."""
    if value is None:
        return 0
    try:
        return _number("", value) or 0
    except Refused:
        return 0


def _count(name: str, value: object) -> int:
    if type(value) is int and 0 <= value <= MAX_COUNT:
        return value
    text = str(value) if isinstance(value, int | float | str) else ""
    try:
        # Decimal accepts digits of any script, and 1_000: both are excluded below.
        number = Decimal(text)
        is_plain = text.isascii() and "_" not in text
        is_in_range = number.is_finite() and 0 <= number <= MAX_COUNT
        if is_plain and is_in_range and number == number.to_integral_value():
            return int(number)
    except InvalidOperation:
        pass
    raise Refused(
        f"data.{name}: expected a whole number from 0 to {MAX_COUNT}, got {_short(value)}"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _refused(error: Exception) -> Refused:
    at = _AT.search(str(error))
    index = int(at[1]) if at and at[1] else None
    return Refused(_sentence(error), index)


def _sentence(error: Exception, prefix: str = "") -> str:
    """msgspec's message with the path first: `type: Expected `str`, got `int``."""
    if isinstance(error, RecursionError):
        return "the body is nested too deeply"
    if not isinstance(error, msgspec.ValidationError):
        return f"the body is not JSON: {error}"
    text = str(error)
    at = _AT.search(text)
    place = ".".join(part for part in (prefix, at[2] if at else "") if part)
    problem = text[: at.start()] if at else text
    problem = problem.replace("Invalid enum value", "expected '1.0', got")
    problem = f"{problem[0].lower()}{problem[1:]}"
    problem = problem.replace("invalid RFC3339 encoded datetime", "expected a time as in RFC 3339")
    return f"{place}: {problem}" if place else problem
