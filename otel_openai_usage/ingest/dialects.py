"""Token counts in other vendors' fields, read if OpenAI's fields have none. Pure: no I/O.

Gemini's `usageMetadata`: ai.google.dev/api/generate-content#UsageMetadata. `promptTokenCount`
includes the cached content; `candidatesTokenCount` does not include the thoughts.
Bedrock's `usage`: docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html.
`inputTokens` does not include tokens read from or written to the cache.
Vercel's AI SDK: ai-sdk.dev/docs/reference/ai-sdk-core/generate-text. It has `inputTokens` or, in
older versions, `promptTokens`; both include the cached ones.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

Count: TypeAlias = Callable[[str, object], int]

_INPUT = ("prompttokencount", "inputtokens", "prompttokens")
_MORE_INPUT = ("tooluseprompttokencount", "cachereadinputtokens", "cachewriteinputtokens")
_OUTPUT = ("candidatestokencount", "outputtokens", "completiontokens")
_MORE_OUTPUT = ("thoughtstokencount",)
_CACHED = ("cachedcontenttokencount", "cachereadinputtokens", "cachedinputtokens")
_REASONING = ("thoughtstokencount", "reasoningtokens")
_HOLDERS = ("usage", "usageMetadata", "usage_metadata")
_RESPONSES = ("response", "body", "message")


def amounts(data: object, count: Count) -> tuple[int, int, int, int, int] | None:
    """Input, output, cached, reasoning and one request; None if no object has input or output.

    `count` gets the name and value of a field. Its errors pass through.
    """
    best = None
    for usage in _usages(data):
        found = _split(usage, count)
        if found is None:
            continue
        if found[0] or found[1]:
            return found
        best = best or found
    return best


def model(data: object) -> str | None:
    """Gemini's `modelVersion`."""
    for holder in _responses(data):
        for name in ("modelVersion", "model_version"):
            value = holder.get(name)
            if isinstance(value, str) and value:
                return value
    return None


def _responses(data: object, depth: int = 0) -> Iterator[Mapping[str, object]]:
    """The data, and the responses in it."""
    if not isinstance(data, dict):
        return
    yield data
    if depth < 2:
        for name in _RESPONSES:
            yield from _responses(data.get(name), depth + 1)


def _usages(data: object) -> Iterator[Mapping[str, object]]:
    """Every object that may have counts: each response, and the usage object in it."""
    for holder in _responses(data):
        yield holder
        for name in _HOLDERS:
            usage = holder.get(name)
            if isinstance(usage, dict):
                yield usage


def _split(usage: Mapping[str, object], count: Count) -> tuple[int, int, int, int, int] | None:
    # Clients in different languages write one field as inputTokens or as input_tokens.
    fields: dict[str, tuple[str, object]] = {}
    for name, value in usage.items():
        fields[name.replace("_", "").lower()] = (name, value)

    def read(names: tuple[str, ...]) -> list[int]:
        return [count(*fields[name]) for name in names if name in fields]

    inputs = read(_INPUT)
    outputs = read(_OUTPUT)
    more_outputs = read(_MORE_OUTPUT)
    if not (inputs or outputs or more_outputs):
        return None
    # The fields of one tuple mean the same, so the largest counts; those of MORE come on top.
    return (
        max(inputs, default=0) + sum(read(_MORE_INPUT)),
        max(outputs, default=0) + sum(more_outputs),
        max(read(_CACHED), default=0),
        max(read(_REASONING), default=0),
        1,
    )
