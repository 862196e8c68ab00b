"""Reads objects of a list one by one and field by field, so that one odd value loses only itself."""

import types
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from otel_openai_usage.providers.openai.text import Odd, mend

T = TypeVar("T", bound=msgspec.Struct)
_ANY = msgspec.json.Decoder()


def objects(items: list[msgspec.Raw], item_type: type[T], odd: Odd) -> list[T]:
    """The items that can be read.

    An unreadable field keeps its default. An item without a required field is left out. `odd` counts
    both.
    """
    found = []
    for raw in items:
        item = _object(_decoded(bytes(raw), odd), item_type, odd)
        if item is None:
            odd.left_out += 1
        else:
            found.append(item)
    return found


def _decoded(raw: bytes, odd: Odd) -> Any:
    text = bytearray(raw.decode("utf-8", "replace").encode())
    odd.replaced += mend(text) + (text != raw)
    try:
        return _ANY.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def _object(value: Any, item_type: type[T], odd: Odd) -> T | None:
    if not isinstance(value, dict):
        return None
    hints = get_type_hints(item_type)
    given: dict[str, Any] = {}
    for field in msgspec.structs.fields(item_type):
        said = value.get(field.encode_name)
        if said is None:
            continue
        read = _field(said, hints[field.name], odd)
        if read is not None:
            given[field.name] = read
        elif said not in ([], {}):
            # PHP writes an empty object as [], which means null here.
            odd.replaced += 1
    try:
        return item_type(**given)
    except TypeError:
        # A required field is missing.
        return None


def _field(said: Any, hint: Any, odd: Odd) -> Any:
    """The value, if it has one of the types of a field; else None."""
    is_union = get_origin(hint) in (Union, types.UnionType)
    for kind in get_args(hint) if is_union else (hint,):
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return _object(said, kind, odd)
        if kind is not type(None) and isinstance(kind, type):
            if isinstance(said, kind) and not isinstance(said, bool):
                return said
            if kind is str and isinstance(said, int | float) and not isinstance(said, bool):
                return str(said)
    return None
