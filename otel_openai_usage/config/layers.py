"""Trees of settings laid over each other, and things done to one of them."""

from collections.abc import Iterator, Mapping, Sequence

from otel_openai_usage.config.document import Tree

_WHOLE = ("headers", "rename", "overrides")
"""Mappings that are one value: a higher layer replaces all of it."""


def lay(lower: Tree, upper: Tree) -> Tree:
    """`upper` over `lower`, section by section; neither is changed."""
    result = dict(lower)
    for key, value in upper.items():
        under = lower.get(key)
        if isinstance(value, dict) and isinstance(under, dict) and key not in _WHOLE:
            result[key] = lay(under, value)
        else:
            result[key] = value
    return result


def without_nothing(value: object) -> object:
    """The tree without the keys that have no value: they say nothing, so what lies below shows
    through.
    """
    if isinstance(value, dict):
        return {key: without_nothing(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nothing(item) for item in value]
    return value


def nested(flat: Mapping[str, object]) -> Tree:
    """The tree of values by dotted path."""
    tree: Tree = {}
    for path, value in flat.items():
        *sections, key = path.split(".")
        at = tree
        for section in sections:
            at = at.setdefault(section, {})
        at[key] = value
    return tree


def paths(tree: object, prefix: str = "") -> Iterator[str]:
    """The dotted path of every value in the tree, sections included."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            path = f"{prefix}.{key}" if prefix else str(key)
            yield path
            yield from paths(value, path)
    if isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from paths(value, f"{prefix}[{index}]")


def cut(tree: Tree, loc: Sequence[str | int]) -> None:
    """Take out the value at `loc`; of a list the whole list, so that its default comes in."""
    # An error of the whole tree leaves nothing that could be validated.
    if not loc or loc[0] not in tree:
        tree.clear()
        return
    at: object = tree
    holder = tree
    last = str(loc[0])
    for part in loc:
        if isinstance(at, dict) and part in at:
            holder = at
            last = str(part)
            at = at[part]
        elif isinstance(at, list) and isinstance(part, int) and part < len(at):
            at = at[part]
        else:
            break
    holder.pop(last, None)
