"""Lists of the administration API: `{data, has_more, last_id}`, read to the end."""

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec

from otel_openai_usage.errors import BadResponse
from otel_openai_usage.openai import wire
from otel_openai_usage.openai.answers import Body
from otel_openai_usage.openai.client import Client


class _Identified(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=_Identified)
LIMIT = 100
"""The most items that one call may ask for."""
_MOST_PAGES = 10_000


class Listing(msgspec.Struct, Generic[T]):
    """One page of a list."""

    data: list[T]
    has_more: bool
    last_id: str | None = None


async def whole(
    client: Client,
    path: str,
    decode: Callable[[Body], Listing[T]],
    *,
    endpoint: str,
    priority: int,
    params: Sequence[tuple[str, str]] = (),
) -> list[T]:
    """Every item of a list, once, also if pages overlap. `has_more` decides; the cursor is
    `last_id`, or else the last item's id.
    """
    items: dict[str, T] = {}
    cursors: list[tuple[str, str]] = []
    for _ in range(_MOST_PAGES):
        body = await client.get(
            path,
            [("limit", str(LIMIT)), *params, *cursors[-1:]],
            endpoint=endpoint,
            priority=priority,
        )
        page = wire.decode(decode, body, endpoint)
        items |= {item.id: item for item in page.data}
        if not page.has_more or not page.data:
            return list(items.values())
        cursor = ("after", page.last_id or page.data[-1].id)
        if cursor in cursors:
            raise BadResponse(f"{endpoint}: has_more is true with a last_id that we had before")
        cursors.append(cursor)
    raise BadResponse(f"{endpoint}: more than {_MOST_PAGES} pages")
