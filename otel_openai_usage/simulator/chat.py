"""Chat completions, responses and embeddings of the simulated organization, streaming and not:
something to meter.

Shapes: the types of OpenAI's Python client 3.54.0. What a model says is made up from the request.
These calls are not part of the world's usage: that stays a pure function of seed and minute.
"""

import asyncio
import base64
import hashlib
import json
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any, TypeAlias

from aiohttp import web

from otel_openai_usage.simulator import answers
from otel_openai_usage.simulator.chance import code
from otel_openai_usage.simulator.prices import TOKENS

Document: TypeAlias = Mapping[str, Any]
PAUSE = 0.002
"""Seconds between two pieces of a stream."""
_WORDS = (
    "the",
    "usage",
    "of",
    "this",
    "tenant",
    "was",
    "counted",
    "once",
    "and",
    "only",
    "while",
    "rain",
    "fell",
    "on",
    "servers",
)


class Odd(ValueError):
    """The request cannot be answered; `param` is the part of it that is wrong."""

    def __init__(self, message: str, param: str | None = None) -> None:
        self.param = param
        super().__init__(message)


def tokens(text: str) -> int:
    """How many tokens a text has, here: one for every four characters begun."""
    return -(-len(text) // 4)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model makes of a request."""

    model: str
    pieces: tuple[str, ...]
    prompt: int
    cached: int
    reasoning: int
    cut: bool

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def output(self) -> int:
        """Output tokens, with the reasoning tokens: OpenAI bills both as output."""
        return tokens(self.text) + self.reasoning

    def chat_usage(self) -> dict[str, object]:
        """As chat completions report it."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.output,
            "total_tokens": self.prompt + self.output,
            "prompt_tokens_details": {"cached_tokens": self.cached, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": self.reasoning,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    def response_usage(self) -> dict[str, object]:
        """As responses report it."""
        return {
            "input_tokens": self.prompt,
            "input_tokens_details": {"cached_tokens": self.cached, "cache_write_tokens": 0},
            "output_tokens": self.output,
            "output_tokens_details": {"reasoning_tokens": self.reasoning},
            "total_tokens": self.prompt + self.output,
        }


def reply(document: Document, prompt: str, limit: object) -> Reply:
    """The reply to a prompt; the same for the same request. Raises Odd."""
    model = document.get("model")
    if not isinstance(model, str) or not model:
        raise Odd("you must provide a model parameter", "model")
    draw = hashlib.sha256(f"{model}\n{prompt}".encode()).digest()
    wanted = 8 + draw[0] % 40
    most = wanted
    if isinstance(limit, int) and limit > 0:
        most = min(wanted, limit)
    step = 1 + draw[2] % 7
    pieces = []
    for place in range(most):
        word = _WORDS[(draw[1] + place * step) % len(_WORDS)]
        pieces.append(f" {word}" if place else word)
    prompted = tokens(prompt)
    # OpenAI caches long prompts only, by their beginning.
    cached = prompted // 1024 * 1024 if prompted > 1024 else 0
    reasoning = 64 if model.startswith("o") else 0
    return Reply(dated(model), tuple(pieces), prompted, cached, reasoning, most < wanted)


def dated(model: str) -> str:
    """The model that answers: an alias stands for its newest snapshot."""
    # The date of a snapshot begins with 2; "gpt-5" must not become "gpt-5-mini-2025-08-07".
    for name in sorted(TOKENS, reverse=True):
        if name.startswith(f"{model}-2"):
            return name
    return model


def written(parts: object) -> str:
    """All text of messages or input, whatever their shape."""
    if isinstance(parts, str):
        return parts
    if isinstance(parts, list):
        return "\n".join(written(part) for part in parts)
    if isinstance(parts, dict):
        present = [key for key in ("content", "text", "input_text", "output") if key in parts]
        return "\n".join(written(parts[key]) for key in present)
    return ""


class Models:
    """Answers what applications ask of models. Any key that begins with `sk-` is good."""

    def __init__(self, seed: int, clock: Callable[[], datetime]) -> None:
        self._seed = seed
        self._clock = clock
        self._numbers = count(1)

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add the routes to a router."""
        router.add_post("/v1/chat/completions", self.chat)
        router.add_post("/v1/responses", self.responses)
        router.add_post("/v1/embeddings", self.embeddings)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/chat/completions"""
        try:
            document = await _document(request)
            prompt = written(document.get("messages"))
            # `max_tokens` is the older name, which many applications still send.
            limit = document.get("max_completion_tokens") or document.get("max_tokens")
            made = reply(document, prompt, limit)
        except Odd as error:
            return _odd(error)
        head = {
            "id": self._id("chatcmpl-"),
            "created": self._now(),
            "model": made.model,
            "service_tier": "default",
        }
        if document.get("stream"):
            # A stream of chat completions has usage only on request; one of responses always.
            options = document.get("stream_options") or {}
            with_usage = bool(options.get("include_usage"))
            return await _stream(request, _chat_chunks(head, made, with_usage), done=True)
        message: Document = {
            "role": "assistant",
            "content": made.text,
            "refusal": None,
            "annotations": [],
        }
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": "length" if made.cut else "stop",
        }
        usage = made.chat_usage()
        return _json({**head, "object": "chat.completion", "choices": [choice], "usage": usage})

    async def responses(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/responses"""
        try:
            document = await _document(request)
            instructions = written(document.get("instructions"))
            given = written(document.get("input"))
            asked = f"{instructions}\n{given}".strip()
            made = reply(document, asked, document.get("max_output_tokens"))
        except Odd as error:
            return _odd(error)
        number = self._id("resp_")
        message = self._id("msg_")
        now = self._now()
        if document.get("stream"):
            events = _response_events(number, message, now, made, document)
            return await _stream(request, events, done=False)
        return _json(_response(number, message, now, made, document, done=True))

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/embeddings"""
        try:
            document = await _document(request)
            given = document.get("input")
            inputs = [given]
            # A list of numbers is one input that is already in tokens.
            if isinstance(given, list) and given and not isinstance(given[0], int):
                inputs = given
            made = reply(document, written(inputs), None)
        except Odd as error:
            return _odd(error)
        size = document.get("dimensions") or 1536
        vectors = [_vector(str(text), int(size)) for text in inputs]
        packed = document.get("encoding_format") == "base64"
        data = []
        for place, vector in enumerate(vectors):
            # OpenAI's Python client asks for base64 unless its caller chose a format.
            embedding = _packed(vector) if packed else vector
            data.append({"object": "embedding", "index": place, "embedding": embedding})
        usage = {"prompt_tokens": made.prompt, "total_tokens": made.prompt}
        return _json({"object": "list", "data": data, "model": made.model, "usage": usage})

    def _id(self, prefix: str) -> str:
        return prefix + code(29, self._seed, "response", next(self._numbers), self._clock())

    def _now(self) -> int:
        return int(self._clock().timestamp())


def _chat_chunks(head: Document, made: Reply, usage: bool) -> Iterator[Document]:
    base = {**head, "object": "chat.completion.chunk"}
    # With usage on request, every chunk has the field; a last one without choices has the numbers.
    if usage:
        base["usage"] = None
    yield {**base, "choices": [_delta({"role": "assistant", "content": "", "refusal": None})]}
    for piece in made.pieces:
        yield {**base, "choices": [_delta({"content": piece})]}
    yield {**base, "choices": [_delta({}, "length" if made.cut else "stop")]}
    if usage:
        yield {**base, "choices": [], "usage": made.chat_usage()}


def _delta(delta: Document, finish: str | None = None) -> Document:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _response(
    number: str, message: str, now: int, made: Reply, asked: Document, *, done: bool
) -> dict[str, Any]:
    status = "in_progress"
    details = None
    output = []
    usage = None
    if done:
        status = "incomplete" if made.cut else "completed"
        details = {"reason": "max_output_tokens"} if made.cut else None
        output = [_message(message, made.text)]
        # The usage comes with the last event only, so a stream that is cut loses it.
        usage = made.response_usage()
    return {
        "id": number,
        "object": "response",
        "created_at": now,
        "model": made.model,
        "status": status,
        "error": None,
        "incomplete_details": details,
        "instructions": asked.get("instructions"),
        "metadata": asked.get("metadata") or {},
        "max_output_tokens": asked.get("max_output_tokens"),
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage,
    }


def _message(message: str, text: str | None) -> dict[str, Any]:
    content = [] if text is None else [{"type": "output_text", "text": text, "annotations": []}]
    status = "in_progress" if text is None else "completed"
    return {
        "id": message,
        "type": "message",
        "role": "assistant",
        "content": content,
        "status": status,
    }


def _response_events(
    number: str, message: str, now: int, made: Reply, asked: Document
) -> Iterator[Document]:
    numbers = count()

    def event(name: str, **parts: object) -> Document:
        return {"type": f"response.{name}", "sequence_number": next(numbers), **parts}

    at = {"item_id": message, "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": []}
    begun = _response(number, message, now, made, asked, done=False)
    ended = _response(number, message, now, made, asked, done=True)
    yield event("created", response=begun)
    yield event("in_progress", response=begun)
    yield event("output_item.added", output_index=0, item=_message(message, None))
    yield event("content_part.added", **at, part=part)
    for piece in made.pieces:
        yield event("output_text.delta", **at, delta=piece, logprobs=[])
    yield event("output_text.done", **at, text=made.text, logprobs=[])
    yield event("content_part.done", **at, part={**part, "text": made.text})
    yield event("output_item.done", output_index=0, item=_message(message, made.text))
    yield event("incomplete" if made.cut else "completed", response=ended)


async def _stream(
    request: web.Request, parts: Iterator[Document], *, done: bool
) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
    )
    await response.prepare(request)
    try:
        async for line in _lines(parts, done=done):
            await response.write(line)
            await asyncio.sleep(PAUSE)
    except ConnectionError:
        return response  # the client closed the stream early
    await response.write_eof()
    return response


async def _lines(parts: Iterator[Document], *, done: bool) -> AsyncIterator[bytes]:
    for part in parts:
        name = b"" if done else f"event: {part['type']}\n".encode()
        yield name + b"data: " + json.dumps(part).encode() + b"\n\n"
    if done:
        yield b"data: [DONE]\n\n"


async def _document(request: web.Request) -> dict[str, Any]:
    if not request.headers.get("Authorization", "").startswith("Bearer sk-"):
        raise web.HTTPUnauthorized(text=json.dumps(answers.NO_KEY), content_type="application/json")
    try:
        document = await request.json()
    except ValueError as error:
        raise Odd("We could not parse the JSON body of your request.") from error
    if not isinstance(document, dict):
        raise Odd("We expected an object as the JSON body of your request.")
    return document


def _odd(error: Odd) -> web.Response:
    return web.json_response(answers.error(str(error), param=error.param), status=400)


def _json(body: Document) -> web.Response:
    return web.json_response(body, headers={"openai-version": "2020-10-01"})


def _vector(text: str, size: int) -> list[float]:
    raw = hashlib.shake_128(text.encode()).digest(size)
    length = sum((byte - 127.5) ** 2 for byte in raw) ** 0.5
    return [(byte - 127.5) / length for byte in raw]


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
