"""Streams that pass everything on untouched, and report what they used when they end."""

from collections.abc import Callable, Mapping
from inspect import iscoroutinefunction
from types import TracebackType
from typing import Any, Self

from otel_openai_metering.usage import INPUT, OUTPUT, Identity, Number, get, merged, usage

_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.done"})
_TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
_FINISHING = frozenset({"until_done", "get_final_response", "get_final_completion"})
"""Methods of a stream that read the rest of it."""
_REASONING = ("reasoning_content", "reasoning")
"""Where compatible servers put reasoning; some of them put the same text into both."""
_NOTHING: Mapping[str, Any] = {}


class Seen:
    """What went by in a stream: its usage, wherever that came, and the text from which the output
    can be estimated if it did not. Each chunk is read for what it is: nothing is concluded from the
    first one.
    """

    __slots__ = ("_texts", "counts", "identity")

    def __init__(self) -> None:
        self.identity = Identity()
        self.counts: dict[str, Number] = {}
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        """All that was made, reasoning and tool calls included."""
        return "".join(self._texts)

    @property
    def is_empty(self) -> bool:
        """Nothing of a response went by."""
        return not (self.counts or self._texts or self.identity.id)

    @property
    def is_exact(self) -> bool:
        """The stream said what it used. Zeros beside text that was seen are what some servers
        write into every chunk but the last.
        """
        if self._said(OUTPUT) or self.counts.get("seconds"):
            return True
        return bool(self.counts) and not self._texts and any(self.counts.values())

    def input_tokens(self) -> Number:
        """The input that the stream said, 0 if it did not."""
        return self._said(INPUT)

    def _said(self, names: tuple[str, ...]) -> Number:
        return max(self.counts.get(name, 0) for name in names)

    def see(self, chunk: Any) -> bool:
        """Read a chunk. True if it ends a response, of which all is known then."""
        return False if self._quick(chunk) else self._any(chunk)

    def _quick(self, chunk: Any) -> bool:
        """Read an object of a chat completion that has text and nothing else: most chunks, so it
        must not take long. False if it is another one.
        """
        identity = self.identity
        try:
            if chunk.usage is not None or "x_groq" in _more(chunk):
                return False
            texts = []
            for choice in chunk.choices:
                delta = choice.delta
                content = delta.content
                if not content or type(content) is not str or "usage" in _more(choice):
                    return False
                fields = delta.__dict__
                if fields.get("tool_calls") or fields.get("refusal") or fields.get("audio"):
                    return False
                more = _more(delta)
                if more and ("reasoning" in more or "reasoning_content" in more):
                    return False
                texts.append(content)
            if not (identity.id and identity.model and identity.created):
                identity.add(chunk)
        except (AttributeError, TypeError):
            return False
        self._texts += texts
        return bool(texts)

    def _any(self, chunk: Any) -> bool:
        kind = get(chunk, "type")
        if kind == "chunk":  # `client.chat.completions.stream()` wraps them
            inner = get(chunk, "chunk")
            return inner is not None and self._any(inner)
        counts = usage(chunk)
        if counts is not None:
            self.counts = merged(self.counts, counts)
        self._identify(chunk, kind)
        self._read_choices(get(chunk, "choices"))
        if isinstance(kind, str):
            self._read_event(kind, get(chunk, "delta"))
            return kind in _ENDS or (kind == _TRANSCRIBED and counts is not None)
        return False

    def _identify(self, chunk: Any, kind: object) -> None:
        for name in ("response", "message"):
            holder = get(chunk, name)
            if holder is not None:
                self.identity.add(holder)
        self.identity.add(chunk)
        if kind == _TRANSCRIBED and not self.identity.id:
            self.identity.id = get(chunk, "item_id")

    def _read_choices(self, choices: Any) -> None:
        for choice in choices if isinstance(choices, list | tuple) else ():
            self._add(get(choice, "text"))  # legacy completions
            delta = get(choice, "delta")
            if delta is None:
                continue
            self._add(get(delta, "content"))
            self._add(get(delta, "refusal"))
            self._add(get(get(delta, "audio"), "transcript"))
            self._add(next(filter(None, (get(delta, name) for name in _REASONING)), None))
            calls = get(delta, "tool_calls")
            functions = [get(call, "function") for call in calls or ()]
            for function in (get(delta, "function_call"), *functions):
                self._add(get(function, "name"))
                self._add(get(function, "arguments"))

    def _read_event(self, kind: str, delta: Any) -> None:
        """The text in an event of a response, a transcription or an Anthropic message."""
        if kind == "content_block_delta":
            for name in ("text", "thinking", "partial_json"):
                self._add(get(delta, name))
        elif kind.startswith(("response.", "transcript.")) and not kind.endswith("audio.delta"):
            self._add(delta)

    def _add(self, text: Any) -> None:
        """Keep a piece of text. Some servers send content in parts, as requests have it."""
        if isinstance(text, str):
            if text:
                self._texts.append(text)
        elif isinstance(text, list | tuple):
            for part in text:
                self._add(part if isinstance(part, str) else get(part, "text"))


def _more(thing: Any) -> Mapping[str, Any]:
    """What an object has beyond its declared fields; all it has, if it declares none."""
    extra: Mapping[str, Any] | None = getattr(thing, "__pydantic_extra__", thing.__dict__)
    return extra or _NOTHING


class MeteredStream:
    """A stream of the official client, sync or async, that behaves as it did; `ended` gets what
    went by, once for each response.

    What gives a stream only when it is entered (`client.responses.stream()`) may be wrapped, too.
    It ends when it is exhausted, breaks, is closed, left (`with`), or forgotten. A realtime session
    has many responses: each is reported when it is done.
    """

    def __init__(self, stream: Any, ended: Callable[[Seen], None]) -> None:
        self._stream = stream
        self._outer = stream
        self._ended = ended
        self._seen = Seen()
        self._reported = False
        self._is_over = False
        self._next: Callable[[], Any] | None = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._stream, name)
        return self._finishing(found) if name in _FINISHING else found

    def _finishing(self, finish: Callable[[], Any]) -> Callable[[], Any]:
        """The same, having seen the rest."""

        def finished() -> Any:
            for _ in self:
                pass
            return finish()

        async def afinished() -> Any:
            async for _ in self:
                pass
            return await finish()

        return afinished if iscoroutinefunction(finish) else finished

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            if not (self._reported and self._seen.is_empty):
                self._ended(self._seen)

    def _see(self, chunk: Any) -> None:
        try:
            if self._seen.see(chunk) and not self._seen.is_empty and not self._is_over:
                self._ended(self._seen)
                self._seen = Seen()
                self._reported = True
        except Exception:  # noqa: BLE001, S110 - whatever a chunk is: the caller gets it, and we go without
            pass

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            if self._next is None:
                self._next = iter(self._stream).__next__
            chunk = self._next()
        except BaseException:
            self._end()
            raise
        self._see(chunk)
        return chunk

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            if self._next is None:
                self._next = aiter(self._stream).__anext__
            chunk = await self._next()
        except BaseException:
            self._end()
            raise
        self._see(chunk)
        return chunk

    def __enter__(self) -> Self:
        if hasattr(self._outer, "__enter__"):
            self._stream = self._outer.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Any:
        self._end()
        return (
            self._outer.__exit__(kind, error, trace) if hasattr(self._outer, "__exit__") else None
        )

    async def __aenter__(self) -> Self:
        if hasattr(self._outer, "__aenter__"):
            self._stream = await self._outer.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> Any:
        self._end()
        return (
            await self._outer.__aexit__(kind, error, trace)
            if hasattr(self._outer, "__aexit__")
            else None
        )

    def close(self) -> Any:
        """Close the stream, as it does it: of an async one the result is to be awaited."""
        self._end()
        return self._stream.close()

    def __del__(self) -> None:
        self._end()
