"""Token counts in the spelling of other vendors, read where OpenAI's fields say nothing. Pure.

Gemini's `usageMetadata`: ai.google.dev/api/generate-content#UsageMetadata. `promptTokenCount`
includes the cached content; `candidatesTokenCount` leaves the thoughts out.
Bedrock's `usage`: docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html.
`inputTokens` leaves out what the cache was read and written for.
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
    """Input, output, cached, reasoning and one request; None if no object says input or output.

    `count` reads the value of a field, and raises what it wants to raise for one that is no count.
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
    for holder in _responses(data):
        yield holder
        for name in _HOLDERS:
            usage = holder.get(name)
            if isinstance(usage, dict):
                yield usage


def _split(usage: Mapping[str, object], count: Count) -> tuple[int, int, int, int, int] | None:
    fields: dict[str, tuple[str, object]] = {}
    for name, value in usage.items():
        fields[name.replace("_", "").lower()] = (name, value)

    def read(names: tuple[str, ...]) -> list[int]:
        return [count(*fields[name]) for name in names if name in fields]

    given = read(_INPUT)
    made = read(_OUTPUT)
    more_made = read(_MORE_OUTPUT)
    if not (given or made or more_made):
        return None
    return (
        max(given, default=0) + sum(read(_MORE_INPUT)),
        max(made, default=0) + sum(more_made),
        max(read(_CACHED), default=0),
        max(read(_REASONING), default=0),
        1,
    )
