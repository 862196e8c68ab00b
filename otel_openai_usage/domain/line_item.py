"""Splits a line item of OpenAI's bill into the model and what was charged of it. Pure.

OpenAI does not document the wording of line items, and spells them in several ways. Seen:
`gpt-4o-2024-08-06, cached input` · `gpt-image-1 text, input` · `gpt-6-astra, cached_input_tokens` ·
`gpt-5.4-mini, cache_write_30m_tokens` · `gpt-5.5-2026-04-23, cache writes` ·
`priority | gpt-5.6-sol, output, long context` · `web search tool calls` (no model).

A text is split only if every word of it is known. Anything else stays whole.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

_CLASSES = frozenset({
    "batch", "calls", "characters", "duration", "images", "input", "minutes", "output", "read",
    "requests", "seconds", "training", "write",
})  # fmt: skip
"""Words that say what was charged. One of them must be there."""

_TIERS = ("priority", "flex", "batch", "scale", "fast")
_STANDARD = frozenset({"standard", "default", "tier", "long", "context"})
"""Words that do not change which tokens were charged."""
_MODALITIES = ("text", "audio", "image")
_WRITES = ("30m", "12h")

_ADJECTIVES = frozenset({
    "cache", "cached", "file", "reasoning", "search", "tool", "video", "web",
    *_MODALITIES, *_WRITES, *_TIERS, *_STANDARD,
})  # fmt: skip
"""Words that say more about it. They may also stand before the comma, behind the model."""

_MODEL = re.compile(r"(ft:\S+|(?=\S*[-\d])[a-z][\w.:/-]*)")

NOT_ITEMISED = "not itemised"
"""What was charged if the bill does not say it."""


@dataclass(frozen=True, slots=True)
class LineItem:
    """A line item: its model, and what was charged of it. Without a model `charged` is the text.

    With a model, `charged` is in words and without `tokens`: `cached_input_tokens` is
    `cached input`.
    """

    model: str | None
    charged: str

    @property
    def label(self) -> str:
        """The model, or the text of an item without one."""
        return self.model or self.charged

    @property
    def token_class(self) -> str | None:
        """The tokens that were charged, as a value of `token_type`; None if they are not tokens.

        `input` and `input_text` are tokens that were neither read from the cache nor written to
        it. See `billed_tokens`.
        """
        return None if self.model is None else _token_class(self.charged)

    @property
    def service_tier(self) -> str | None:
        """`priority`, `flex`, `batch`, …, or None if the item names no special tier."""
        if self.model is None:
            return None
        words = self.charged.split()
        return next((tier for tier in _TIERS if tier in words), None)


@lru_cache(4096)
def split(text: str | None) -> LineItem:
    """The model of a line item, and what was charged of it."""
    if not text:
        return LineItem(None, NOT_ITEMISED)
    tier, bar, rest = text.rpartition("|")
    before, _, behind = rest.partition(",")
    model_words = before.split()
    charged = _words(behind)
    while len(model_words) > 1 and model_words[-1].lower() in _ADJECTIVES:
        charged.insert(0, model_words.pop().lower())
    tier_words = _words(tier)
    is_tier = not bar or (bool(tier_words) and _ADJECTIVES.issuperset(tier_words))
    has_model = len(model_words) == 1 and _MODEL.fullmatch(model_words[0])
    if is_tier and has_model and _is_known(charged):
        return LineItem(model_words[0], " ".join(tier_words + charged))
    return LineItem(None, text)


def billed_tokens(name: str, used: Mapping[str, int]) -> int:
    """How many of the used tokens a line item of token class `name` is for. `used` is by measure.

    OpenAI bills `input` without the tokens that have lines of their own, but reports it with them.
    """
    tokens = used.get(name, 0)
    if name == "input":
        tokens -= used.get("input_cached", 0) + used.get("input_cache_write", 0)
    return max(0, tokens)


def _words(text: str) -> list[str]:
    """The words that say what was charged."""
    words = re.sub(r"[_(),\s]+", " ", text.lower()).split()
    return [_SINGULAR.get(word, word) for word in words if word not in ("token", "tokens")]


_SINGULAR = {"writes": "write", "reads": "read", "inputs": "input", "outputs": "output"}


def _is_known(charged: list[str]) -> bool:
    """Whether all words are known, and one of them says what was charged."""
    has_class = not _CLASSES.isdisjoint(charged)
    return has_class and all(word in _CLASSES or word in _ADJECTIVES for word in charged)


_KINDS = {
    frozenset({"input"}): "input",
    frozenset({"output"}): "output",
    frozenset({"cached"}): "input_cached",
    frozenset({"cached", "input"}): "input_cached",
    frozenset({"cache", "read"}): "input_cached",
    frozenset({"cache", "read", "input"}): "input_cached",
    frozenset({"cache", "write"}): "input_cache_write",
    frozenset({"cache", "write", "input"}): "input_cache_write",
}
"""Token types by the words that name them, without modality and lifetime."""


@lru_cache(4096)
def _token_class(charged: str) -> str | None:
    """The token type that these words name, None if they name no tokens of one class."""
    words = set(charged.split()) - _STANDARD - set(_TIERS)
    modalities = [name for name in _MODALITIES if name in words]
    lifetimes = [name for name in _WRITES if name in words]
    kind = _KINDS.get(frozenset(words.difference(modalities, lifetimes)))
    # OpenAI counts written tokens by lifetime, all others by modality.
    known, unknown = modalities, lifetimes
    if kind == "input_cache_write":
        known, unknown = lifetimes, modalities
    if kind is None or unknown or len(known) > 1:
        return None
    return "_".join([kind, *known])
