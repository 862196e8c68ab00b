"""What a line of OpenAI's bill is about. A best effort: the wording of line items is documented
nowhere.

Seen: `gpt-4o-2024-08-06, input`, `gpt-4o-2024-08-06, cached input`, `gpt-image-1 image, output`,
`web search tool calls`. What stands before the first comma is a model if what follows is a known
class; the class's own adjective may stand before it.
"""

from dataclasses import dataclass
from functools import lru_cache

_CLASSES = (
    "input",
    "output",
    "cached input",
    "cache write",
    "training",
    "images",
    "characters",
    "duration",
    "batch",
)
_ADJECTIVES = ("audio", "image", "text", "batch", "cached", "flex", "priority")


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
    """The model and the class of a line item."""
    if not text:
        return Item(None, "not itemised")
    head, comma, tail = text.partition(",")
    words = head.strip().split()
    charged = tail.strip().lower()
    while len(words) > 1 and words[-1].lower() in _ADJECTIVES:
        charged = f"{words.pop().lower()} {charged}"
    known = any(charged == name or charged.endswith(" " + name) for name in _CLASSES)
    if comma and known and len(words) == 1:
        return Item(words[0], charged)
    return Item(None, text)
