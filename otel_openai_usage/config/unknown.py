"""The nearest known word to one that is not known."""

from collections.abc import Collection
from difflib import get_close_matches


def nearest(word: str, known: Collection[str], cutoff: float = 0.0) -> str | None:
    """The most similar of `known`; None if there is none as similar as `cutoff` (0 to 1)."""
    folded = {one.lower(): one for one in sorted(known)}
    found = get_close_matches(word.lower(), folded, n=1, cutoff=cutoff)
    return folded[found[0]] if found else None
