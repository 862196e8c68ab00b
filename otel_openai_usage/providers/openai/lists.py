"""Lists of the administration API: `{data, has_more, last_id}`, read to the end."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from otel_openai_usage.errors import BadResponse, BadShape
from otel_openai_usage.providers.openai import lenient
from otel_openai_usage.providers.openai.answers import Body
from otel_openai_usage.providers.openai.client import Client
from otel_openai_usage.providers.openai.text import LONGEST, Odd, plain

LIMIT = 100
"""The most items that one call may ask for."""
MOST_ITEMS = 200_000
"""Items of one list; more are no organization."""
_MOST_PAGES = 10_000


class Identified(msgspec.Struct):
    """An item of a list."""

    id: str


T = TypeVar("T", bound=Identified)


class _Page(msgspec.Struct):
    """One page, its items as they came."""

    data: list[msgspec.Raw]
    has_more: msgspec.Raw = msgspec.Raw()
    last_id: msgspec.Raw = msgspec.Raw()


_PAGE = msgspec.json.Decoder(_Page)


async def whole(
    client: Client,
    path: str,
    item_type: type[T],
    *,
    endpoint: str,
    priority: int,
    params: Sequence[tuple[str, str]] = (),
) -> list[T]:
    """Every item of a list, once, also if pages overlap. `has_more` decides; the cursor is
    `last_id`, or else the last item's id.

    An item that cannot be read is left out, an odd field of it stays empty; the client counts both.
    """
    items: dict[str, T] = {}
    cursors: list[tuple[str, str]] = []
    for _ in range(_MOST_PAGES):
        odd = Odd()
        found, last_id = await client.read(
            path,
            lambda body, odd=odd: _read(body, item_type, endpoint, odd),  # type: ignore[misc]
            [("limit", str(LIMIT)), *params, *cursors[-1:]],
            endpoint=endpoint,
            priority=priority,
        )
        client.note_odd(endpoint, odd)
        items |= {item.id: item for item in found}
        if last_id is None:
            return list(items.values())
        cursor = ("after", last_id)
        if cursor in cursors:
            raise BadResponse(f"{endpoint}: has_more is true with a last_id that we had before")
        if len(items) > MOST_ITEMS:
            raise BadResponse(f"{endpoint}: more than {MOST_ITEMS} items")
        cursors.append(cursor)
    raise BadResponse(f"{endpoint}: more than {_MOST_PAGES} pages")


def _read(body: Body, item_type: type[T], endpoint: str, odd: Odd) -> tuple[list[T], str | None]:
    """The items of a page, and where the next one begins (None: there is none)."""
    try:
        page = _PAGE.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadShape(f"{endpoint}: not the shape we know: {error}") from error
    try:
        items = [msgspec.json.decode(raw, type=item_type) for raw in page.data]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        items = lenient.objects(page.data, item_type, odd)
    # Ids become parts of URLs, so an endless one is left out.
    usable = [item for item in items if len(item.id) <= LONGEST]
    odd.left_out += len(items) - len(usable)
    items = usable
    if bytes(page.has_more) != b"true" or not items:
        return items, None
    last_id = plain(page.last_id) or items[-1].id
    if len(last_id) > LONGEST:
        raise BadShape(f"{endpoint}: last_id has {len(last_id)} characters")
    return items, last_id


def one(body: Body, item_type: type[Any], endpoint: str, odd: Odd) -> Any:
    """A single object, read as an item of a list is. Raises BadShape where it has no id."""
    found = lenient.objects([msgspec.Raw(bytes(body))], item_type, odd)
    if not found:
        raise BadShape(f"{endpoint}: expected an object with an id")
    return found[0]
