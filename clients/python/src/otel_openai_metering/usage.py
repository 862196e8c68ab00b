"""What a response says of its usage, as a CloudEvent. Pure.

Takes what the official client returns, or the same as a mapping: chat completions, legacy
completions, responses, embeddings, images, transcriptions, realtime's `response.done`, batches and
the lines of their output files; and the same of servers that are compatible with OpenAI.
"""

import json
import math
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeAlias

Number: TypeAlias = int | float

INPUT = ("prompt_tokens", "input_tokens")
OUTPUT = ("completion_tokens", "output_tokens")
CACHED = (
    "cached_tokens", "input_cached_tokens", "cached_input_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens",
)  # fmt: skip
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "input_token_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details", "output_token_details")
_CACHE_WRITE = "cache_creation_input_tokens"

_TOOLS = ("toolUsePromptTokenCount", "tool_use_prompt_token_count")
_BEDROCK_CACHE = ("cacheReadInputTokens", "cacheWriteInputTokens")
_THOUGHTS = ("thoughtsTokenCount", "thoughts_token_count")
_OTHERS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "input_tokens": (("promptTokenCount", "prompt_token_count", "inputTokens", "promptTokens"), (*_TOOLS, *_BEDROCK_CACHE)),
    "output_tokens": (("candidatesTokenCount", "candidates_token_count", "outputTokens", "completionTokens"), _THOUGHTS),
    "total_tokens": (("totalTokenCount", "total_token_count", "totalTokens"), ()),
    "cached_tokens": (("cachedContentTokenCount", "cached_content_token_count", "cachedInputTokens", "cacheReadInputTokens"), ()),
    "reasoning_tokens": ((*_THOUGHTS, "reasoningTokens"), ()),
}  # fmt: skip
"""Counts of Gemini, Bedrock and Vercel's AI SDK by our names: the largest of the first names, and
what is added to it. Gemini's candidates leave the thoughts out, Bedrock's input its cache.
"""
_METADATA = ("usageMetadata", "usage_metadata")
_RESPONSES = frozenset({"response", "body", "message"})
"""Names under which servers look for a response, if it is an object."""


def _plain(name: str) -> str:
    """A name without case and marks, so that all spellings of it are the same."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _names_of_usage() -> frozenset[str]:
    names = {*INPUT, *OUTPUT, *CACHED, *_INPUT_DETAILS, *_OUTPUT_DETAILS, _CACHE_WRITE, *_METADATA}
    names |= {"total_tokens", "reasoning_tokens", "seconds", "tokens", "usage", "estimated"}
    names |= {"x_groq", "object"}
    for largest, added in _OTHERS.values():
        names |= {*largest, *added}
    return frozenset(_plain(name) for name in names)


_RESERVED = _names_of_usage()


def is_reserved(name: str, value: object) -> bool:
    """Servers read an attribute as usage, in whatever spelling. A caller's cannot be called so."""
    if name in _RESPONSES:
        return isinstance(value, Mapping) or hasattr(value, "model_dump")
    return _plain(name) in _RESERVED


LONGEST = 512
"""Characters of an attribute or of the name of a model; the exporter takes no more."""


def cut(text: str) -> str:
    """At most LONGEST characters of a text, the last of them a mark if it had more."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


_RUNNING = frozenset({"queued", "validating", "in_progress", "finalizing", "cancelling"})
"""What an object says while its usage is still to come."""


class NoUsage(ValueError):
    """The response does not say what it used."""


class StillRunning(NoUsage):
    """The response will say what it used when it has ended."""


@dataclass(frozen=True, slots=True)
class Context:
    """What was handed in with a response: whose it is, and what the response itself does not say.
    `now` in Unix seconds.
    """

    subject: object
    source: str
    type: str
    now: float
    model: str | None = None
    attributes: Mapping[str, object] | None = None


def get(thing: Any, name: str) -> Any:
    """A part of an object or of a mapping; None if it has none."""
    kind = type(thing)
    if kind is dict:
        return thing.get(name)
    if thing is None or kind is str:
        return None
    if hasattr(kind, "__pydantic_fields__") and not name.startswith("_"):
        # as getattr() has it, but a field that is missing costs a tenth
        value = thing.__dict__.get(name)
        if value is None and thing.__pydantic_extra__:
            value = thing.__pydantic_extra__.get(name)
        return value
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)


def event(response: Any, context: Context) -> dict[str, object]:
    """The CloudEvent of a response. Raises NoUsage.

    Its id is the response's own, so that sending it twice is counted once; a response without one
    (embeddings, images) has that of the request, else a new one.
    """
    if isinstance(response, str | bytes | bytearray):
        response = _parsed(response)
    counts = usage(response)
    status = get(response, "status")
    if isinstance(status, str) and status in _RUNNING and not any((counts or {}).values()):
        raise StillRunning(f"it is {status}; record it when it has ended")
    if counts is None:
        raise NoUsage(f"{type(response).__name__} has no usage")
    identity = Identity()
    for holder in holders(response):
        identity.add(holder)
    identity.id = identity.id or _text(get(response, "_request_id"))
    return envelope(identity, counts, context)


def _parsed(line: str | bytes | bytearray) -> Any:
    """A line of a file, as JSON has it."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise NoUsage(f"a text that is no JSON has no usage: {error}") from error


def holders(thing: Any) -> Iterator[Any]:
    """The objects that may say whose usage it is, the nearest to the usage first: the response in
    an event, the response in a line of a batch's output file, the thing itself.
    """
    response = get(thing, "response")
    if response is not None:
        body = get(response, "body")
        if body is not None:
            yield body
        yield response
    message = get(thing, "message")
    if message is not None:
        yield message
    yield thing


def usage(thing: Any) -> dict[str, Number] | None:
    """All that a response, or a chunk of a stream, says of its usage, wherever that stands; None if
    it says nothing.
    """
    found: dict[str, Number] | None = None
    for holder in (*holders(thing), get(thing, "x_groq"), *_choices(thing)):
        part = _usage_of(holder)
        if part is None:
            continue
        counts = numbers(part)
        if get(thing, "type") == "message_start":
            # Anthropic begins with the input, and an output that is only the first token
            counts.pop("output_tokens", None)
        found = counts if found is None else merged(found, counts)
    return found


def _usage_of(holder: Any) -> Any:
    """The usage object of a response; None if it has none."""
    for name in ("usage", *_METADATA):
        part = get(holder, name)
        if part is not None:
            return part
    return None


def _choices(thing: Any) -> tuple[Any, ...]:
    """The choices: Moonshot's last chunk has its usage there."""
    choices = get(thing, "choices")
    return tuple(choices) if isinstance(choices, list | tuple) else ()


def merged(one: Mapping[str, Number], other: Mapping[str, Number]) -> dict[str, Number]:
    """What two reports of the same response say together. The larger number wins: reports are
    cumulative, and zeros before or after the real one say nothing.
    """
    found = dict(one)
    for name, number in other.items():
        found[name] = max(number, found.get(name, 0))
    sums = [_drop_zeros(found, spellings) for spellings in (INPUT, OUTPUT)]
    if "total_tokens" in found:
        found["total_tokens"] = max(found["total_tokens"], sum(sums))
    return found


def numbers(usage: Any) -> dict[str, Number]:
    """The counts of a usage object, flat: details stand beside the totals that they are parts of."""
    say = _reader(usage)
    found: dict[str, Number] = {}
    for name in (*INPUT, *OUTPUT, "total_tokens", "seconds"):
        value = number(say(name))
        if value is None or (isinstance(value, float) and name != "seconds"):
            continue
        found[name] = value
    if not any(found.values()):
        others = _others(say)
        if others:
            return others
    for spellings in (INPUT, OUTPUT):
        _drop_zeros(found, spellings)
    for ours, flat, holders in (
        ("cached_tokens", CACHED, _INPUT_DETAILS),
        ("reasoning_tokens", ("reasoning_tokens",), _OUTPUT_DETAILS),
    ):
        values = [number(say(name)) for name in flat]
        values += [number(_reader(say(holder))(ours)) for holder in holders]
        known = [value for value in values if value is not None]
        if known:
            found[ours] = max(known)
    if "input_tokens" in found and not {"prompt_tokens", "total_tokens"} & found.keys():
        # Anthropic's input leaves out what came from its cache or went into it
        cache = (number(say(name)) for name in ("cache_read_input_tokens", _CACHE_WRITE))
        found["input_tokens"] += sum(tokens or 0 for tokens in cache)
    return found


def _others(say: Callable[[str], Any]) -> dict[str, Number]:
    """The counts of a usage object in the spelling of another vendor, by our names."""
    found: dict[str, Number] = {}
    for ours, (largest, added) in _OTHERS.items():
        values = _counts(say, largest)
        more = _counts(say, added)
        if values or more:
            found[ours] = max(values, default=0) + sum(more)
    return found


def _counts(say: Callable[[str], Any], names: tuple[str, ...]) -> list[int]:
    values = [number(say(name)) for name in names]
    return [value for value in values if isinstance(value, int)]


def _reader(thing: Any) -> Callable[[str], Any]:
    """`get` for many fields of one thing."""
    if type(thing) is dict:
        return thing.get
    if thing is None or isinstance(thing, str):
        return _nothing
    if hasattr(type(thing), "__pydantic_fields__"):
        extra = thing.__pydantic_extra__
        fields: dict[str, Any] = {**thing.__dict__, **extra} if extra else thing.__dict__
        return fields.get
    return partial(get, thing)


def _nothing(_: str) -> None:
    return None


def _drop_zeros(counts: dict[str, Number], spellings: tuple[str, ...]) -> Number:
    """Drop the zero of a spelling where another one has a number. Returns the largest."""
    largest = max(counts.get(name, 0) for name in spellings)
    if largest:
        for name in spellings:
            if not counts.get(name, largest):
                del counts[name]
    return largest


def number(value: Any) -> Number | None:
    """A count, also as text; None for what is none."""
    if value is None or (type(value) is int and value >= 0):
        return value
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not math.isfinite(value) or value < 0:
        return None
    return int(value) if value == int(value) else value


class Identity:
    """Which response it is: the first id, time and model that are said. Azure's first chunk says
    them all empty.
    """

    __slots__ = ("created", "id", "model")

    def __init__(self) -> None:
        self.id: str | None = None
        self.created: Number | None = None
        self.model: str | None = None

    def add(self, holder: Any) -> None:
        """Take from an object what is not known yet."""
        self.id = self.id or _text(get(holder, "id"))
        self.model = self.model or _text(get(holder, "model"))
        self.created = (
            self.created or number(get(holder, "created")) or number(get(holder, "created_at"))
        )
        if self.id and self.model:
            return
        if any(get(holder, name) is not None for name in _METADATA):
            self.id = self.id or _text(get(holder, "responseId") or get(holder, "response_id"))
            model = get(holder, "modelVersion") or get(holder, "model_version")
            self.model = self.model or _text(model)


def _text(value: Any) -> str | None:
    """An id or a name as text; None if it is missing, empty or something else."""
    if isinstance(value, bool) or not isinstance(value, str | int | uuid.UUID):
        return None
    return str(value) if value else None


def envelope(
    identity: Identity, counts: Mapping[str, object], context: Context
) -> dict[str, object]:
    """The CloudEvents 1.0 envelope around what was used."""
    model = identity.model or context.model
    data: dict[str, object] = dict(context.attributes or {})
    data.update(counts)
    if model:
        data["model"] = cut(model)
    return {
        "specversion": "1.0",
        "id": identity.id or str(uuid.uuid4()),
        "source": context.source,
        "type": context.type,
        "subject": _subject(context.subject),
        "time": f"{_time(identity.created, context.now):%Y-%m-%dT%H:%M:%SZ}",
        "datacontenttype": "application/json",
        "data": data,
    }


def _subject(subject: object) -> str:
    """The subject as text: customers are often numbers or UUIDs in a database."""
    text = subject.decode("utf-8", "replace") if isinstance(subject, bytes) else str(subject)
    if subject is None or not text:
        raise NoUsage(f"subject: expected whose usage it is, got {subject!r}")
    return text


_FIRST = datetime(2015, 1, 1, tzinfo=UTC).timestamp()
"""The exporter refuses earlier times: OpenAI is no older."""
_AHEAD = 86400.0
"""Seconds that a provider's clock may be ahead of ours."""


def _time(created: Number | None, now: float) -> datetime:
    """When it was made; now, if what a provider says of that cannot be."""
    if created is None or not _FIRST <= created <= now + _AHEAD:
        created = now
    return datetime.fromtimestamp(created, UTC)
