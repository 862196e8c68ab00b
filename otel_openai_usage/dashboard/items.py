"""Splits a line item of OpenAI's bill into the model and what was charged of it.

OpenAI does not document the wording of line items, and spells them in several ways. Seen:
`gpt-4o-2024-08-06, cached input` · `gpt-image-1 text, input` · `gpt-6-astra, cached_input_tokens` ·
`gpt-5.4-mini, cache_write_30m_tokens` · `web search tool calls` (no model).

What stands before the first comma is a model if it looks like one and if every word behind it is
known. Anything else stays whole.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

_CLASSES = frozenset({
    "batch", "calls", "characters", "duration", "images", "input", "minutes", "output", "read",
    "requests", "seconds", "training", "write",
})  # fmt: skip
"""Words that say what was charged. One of them must be there."""

_ADJECTIVES = frozenset({
    "12h", "30m", "audio", "batch", "cache", "cached", "default", "fast", "file", "flex", "image",
    "priority", "reasoning", "scale", "search", "standard", "text", "tier", "tool", "video",
    "web",
})  # fmt: skip
"""Words that say more about it. They may also stand before the comma, behind the model."""

_MODEL = re.compile(r"(ft:\S+|(?=\S*[-\d])[a-z][\w.:/-]*)")


@dataclass(frozen=True, slots=True)
class Item:
    """A line item: its model, and what was charged of it. Without a model `charged` is the text."""

    model: str | None
    charged: str

    @property
    def label(self) -> str:
        """The model, or the text of an item without one."""
        return self.model or self.charged


@lru_cache(4096)
def split(text: str | None) -> Item:
    """The model and the class of a line item.

    The class is in words and without `tokens`: `cached_input_tokens` is `cached input`.
    """
    if not text:
        return Item(None, "not itemised")
    before, _, behind = text.partition(",")
    model_words = before.split()
    charged = _words(behind)
    while len(model_words) > 1 and model_words[-1].lower() in _ADJECTIVES:
        charged.insert(0, model_words.pop().lower())
    if len(model_words) == 1 and _MODEL.fullmatch(model_words[0]) and _is_known(charged):
        return Item(model_words[0], " ".join(charged))
    return Item(None, text)


def _words(text: str) -> list[str]:
    """The words that say what was charged."""
    words = re.sub(r"[_()\s]+", " ", text.lower()).split()
    return [word for word in words if word != "tokens"]


def _is_known(charged: list[str]) -> bool:
    """Whether all words are known, and one of them says what was charged."""
    has_class = not _CLASSES.isdisjoint(charged)
    return has_class and all(word in _CLASSES or word in _ADJECTIVES for word in charged)
