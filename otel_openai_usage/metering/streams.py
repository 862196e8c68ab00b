"""Streams that pass everything on untouched, and tell what they used when they end."""

from collections.abc import Callable
from inspect import iscoroutinefunction
from types import TracebackType
from typing import Any, Self

from otel_openai_usage.metering.usage import get

_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.done"})
_FINISHING = frozenset({"until_done", "get_final_response", "get_final_completion"})
"""Methods of a stream that read the rest of it."""
_TEXTS = frozenset({
    "response.output_text.delta", "response.refusal.delta", "response.function_call_arguments.delta",
    "response.reasoning_text.delta", "response.reasoning_summary_text.delta",
})  # fmt: skip


class Seen:
    """What went by in a stream: its usage if that came, else the text that it can be estimated
    from.
    """

    __slots__ = ("_texts", "created", "id", "model", "see", "whole")

    def __init__(self) -> None:
        self.whole: Any = None
        self.id: str | None = None
        self.created: float | None = None
        self.model: str | None = None
        self._texts: list[str] = []
        self.see: Callable[[Any], None] = self._first

    @property
    def text(self) -> str:
        """All that was made, tool calls included."""
        return "".join(self._texts)

    def _first(self, chunk: Any) -> None:
        if get(chunk, "type") == "chunk":
            self._first(get(chunk, "chunk"))
            self.see = self._helped
            return
        if get(chunk, "choices") is not None:
            self.id = get(chunk, "id")
            self.created = get(chunk, "created")
            self.model = get(chunk, "model")
            self.see = self._chat
        else:
            self.see = self._response
        self.see(chunk)

    def _chat(self, chunk: Any) -> None:
        """A chunk of a chat completion. Objects of the official client take the quick way."""
        try:
            if chunk.usage is not None:
                self.whole = chunk
            for choice in chunk.choices:
                content = choice.delta.content
                if content:
                    self._texts.append(content)
                elif content is None:
                    self._more(choice.delta)
        except AttributeError:
            self._mapping(chunk)

    def _helped(self, event: Any) -> None:
        """An event of `client.chat.completions.stream()`: chunks, and what is made of them."""
        if get(event, "type") == "chunk":
            self._chat(get(event, "chunk"))

    def _mapping(self, chunk: Any) -> None:
        if get(chunk, "usage") is not None:
            self.whole = chunk
        for choice in get(chunk, "choices") or ():
            delta = get(choice, "delta")
            if content := get(delta, "content"):
                self._texts.append(content)
            self._more(delta)

    def _more(self, delta: Any) -> None:
        if refusal := get(delta, "refusal"):
            self._texts.append(refusal)
        for call in get(delta, "tool_calls") or ():
            function = get(call, "function")
            self._texts += [
                part for part in (get(function, "name"), get(function, "arguments")) if part
            ]

    def _response(self, event: Any) -> None:
        """An event of a response, or of a realtime session."""
        kind = get(event, "type")
        if kind in _TEXTS:
            self._texts.append(get(event, "delta") or "")
        elif kind in _ENDS:
            self.whole = event if get(get(event, "response"), "usage") is not None else None
        elif kind == "response.created":
            response = get(event, "response")
            self.id = get(response, "id")
            self.created = get(response, "created_at")
            self.model = get(response, "model")


class MeteredStream:
    """A stream of the official client, sync or async, that behaves as it did; `ended` is told once
    what went by.

    What gives a stream only when it is entered (`client.responses.stream()`) may be wrapped, too.
    It ends when it is exhausted, breaks, is closed, left (`with`), or forgotten.
    """

    def __init__(self, stream: Any, ended: Callable[[Seen], None]) -> None:
        self._stream = stream
        self._outer = stream
        self._ended = ended
        self._seen = Seen()
        self._told = False
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

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._ended(self._seen)

    def _see(self, chunk: Any) -> None:
        try:  # noqa: SIM105 - suppress() would cost more than all the rest
            self._seen.see(chunk)
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
            self._tell()
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
            self._tell()
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
        self._tell()
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
        self._tell()
        return (
            await self._outer.__aexit__(kind, error, trace)
            if hasattr(self._outer, "__aexit__")
            else None
        )

    def close(self) -> Any:
        """Close the stream, as it does it: of an async one the result is to be awaited."""
        self._tell()
        return self._stream.close()

    def __del__(self) -> None:
        self._tell()
