"""What a line item of OpenAI's bill is about: the model, and what of it was charged.

OpenAI does not document the wording of line items, and spells them in several ways. Seen:
`gpt-4o-2024-08-06, cached input` · `gpt-image-1 text, input` · `gpt-6-astra, cached_input_tokens` ·
`gpt-5.4-mini, cache_write_30m_tokens` · `web search tool calls` (no model).

What stands before the first comma is a model if it looks like one and if every word behind it is
known. Anything else stays whole.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

_CLASSES = frozenset(
    {
        "batch",
        "calls",
        "characters",
        "duration",
        "images",
        "input",
        "minutes",
        "output",
        "read",
        "requests",
        "seconds",
        "training",
        "write",
    }
)
"""Words that say what was charged. One of them must be there."""

_ADJECTIVES = frozenset(
    {
        "12h",
        "30m",
        "audio",
        "batch",
        "cache",
        "cached",
        "default",
        "fast",
        "file",
        "flex",
        "image",
        "priority",
        "reasoning",
        "scale",
        "search",
        "standard",
        "text",
        "tier",
        "tool",
        "video",
        "web",
    }
)
"""Words that say more about it. They may also stand before the comma, behind the model."""

_MODEL = re.compile(r"(ft:\S+|(?=\S*[-\d])[a-z][\w.:/-]*)")


@dataclass(frozen=True, slots=True)
class Item:
    """A line item: the model, where it speaks of one, and what of it was charged (the whole text
    else).
    """

    model: str | None
    charged: str

    @property
    def label(self) -> str:
        """Whose cost it is: the model's, or the item's own."""
        return self.model or self.charged


@lru_cache(4096)
def split(text: str | None) -> Item:
    """The model and the class of a line item.

    The class is in words and without `tokens`: `cached_input_tokens` is `cached input`.
    """
    if not text:
        return Item(None, "not itemised")
    head, _, tail = text.partition(",")
    before = head.split()
    behind = re.sub(r"[_()\s]+", " ", tail.lower()).split()
    charged = [word for word in behind if word != "tokens"]
    while len(before) > 1 and before[-1].lower() in _ADJECTIVES:
        charged.insert(0, before.pop().lower())
    is_known = all(word in _CLASSES or word in _ADJECTIVES for word in charged)
    says_what = any(word in _CLASSES for word in charged)
    if len(before) == 1 and _MODEL.fullmatch(before[0]) and is_known and says_what:
        return Item(before[0], " ".join(charged))
    return Item(None, text)
