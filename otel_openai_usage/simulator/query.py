"""The question in a usage or costs request: validated, with its cursor. (The live API's texts for
most 400s are unknown.)
"""

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias
from zlib import crc32

from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.model import Width, floor
from otel_openai_usage.simulator.costs import Filters

Parameters: TypeAlias = Sequence[tuple[str, str]]
"""Names and values, in order, as they were sent."""

_SINGLE = frozenset({"start_time", "end_time", "bucket_width", "limit", "page", "batch"})
_FILTERS = {
    "project_ids": "project_id",
    "user_ids": "user_id",
    "api_key_ids": "api_key_id",
    "models": "model",
    "sources": "source",
    "sizes": "size",
    "vector_store_ids": "vector_store_id",
    "context_levels": "context_level",
    "line_items": "line_item",
}
_NO_FILTER = {"costs": frozenset({"user_ids"})}
_DEFAULTS = {Width.MINUTE: 60, Width.HOUR: 24, Width.DAY: 7}
CURSOR = "The page token is invalid, have you modified the query parameters?"


class Refused(Exception):
    """A 400. `param` is the parameter that is at fault."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        self.message = message
        self.param = param
        self.code = code
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for: buckets of `width` from `start` until `end`, at most `limit` of them.

    `asked` is when the first page was asked for, `hash` stands for all parameters but the page.
    """

    endpoint: Endpoint
    start: int
    end: int
    width: Width
    limit: int
    group_by: tuple[str, ...]
    filters: Filters
    asked: int
    hash: int
    page: str | None

    def cursor(self, start: int) -> str:
        """The page token for the buckets from `start` on."""
        # OpenAI's published tokens decode to these three numbers in this order.
        asked = self.asked.to_bytes(8, "big")
        parameters = self.hash.to_bytes(4, "big")
        packed = asked + parameters + start.to_bytes(8, "big")
        return "page_" + base64.urlsafe_b64encode(packed).decode()


def values(parameters: Parameters, name: str) -> list[str]:
    """Every value of an array parameter, however it is spelt: `a=1&a=2`, `a[]=1&a[]=2` or `a=1,2`."""
    found = [text for key, text in parameters if key in (name, f"{name}[]")]
    # A line item has a comma of its own, so it can only be repeated.
    if name == "line_items":
        return found
    parts = []
    for text in found:
        parts += [part for part in text.split(",") if part]
    return parts


def query(endpoint: Endpoint, parameters: Parameters, now: int) -> Query:
    """The question of a request made at `now`. Raises Refused."""
    sent = dict(parameters)
    _known(endpoint, parameters)
    width = _width(endpoint, sent.get("bucket_width"))
    start = _integer(sent, "start_time")
    if start is None:
        raise Refused(
            "Missing required parameter: 'start_time'.", "start_time", "missing_required_parameter"
        )
    found = Query(
        endpoint=endpoint,
        start=start,
        end=-1,
        width=width,
        limit=_limit(endpoint, width, _integer(sent, "limit")),
        group_by=_group_by(endpoint, values(parameters, "group_by")),
        filters=_filters(endpoint, parameters),
        asked=now,
        hash=_hash(endpoint, parameters),
        page=sent.get("page"),
    )
    # A cursor replaces the start and freezes a default end at the time of the first page, so that
    # later pages do not move with the clock.
    if found.page is not None:
        found = _turned(found, found.page)
    return _bounded(found, start, _integer(sent, "end_time"), now)


def _known(endpoint: Endpoint, parameters: Parameters) -> None:
    allowed = _SINGLE | {"group_by"}
    if "batch" not in endpoint.dimensions:
        allowed -= {"batch"}
    # Costs can be grouped by user, but OpenAI's client has no filter for it.
    forbidden = _NO_FILTER.get(endpoint.name, frozenset())
    for name, _ in parameters:
        plain = name.removesuffix("[]")
        is_filter = _FILTERS.get(plain) in endpoint.dimensions
        if plain in forbidden or not (plain in allowed or is_filter):
            raise Refused(f"Unknown parameter: '{plain}'.", plain, "unknown_parameter")


def _integer(sent: dict[str, str], name: str) -> int | None:
    text = sent.get(name)
    if text is None:
        return None
    # Times are eight bytes in the cursor, and every time that makes sense is far below 2^40.
    if not text.removeprefix("-").isdecimal() or not 0 <= int(text) < 1 << 40:
        raise Refused(
            f"Invalid type for '{name}': expected an integer, but got {text!r} instead.",
            name,
            "invalid_type",
        )
    return int(text)


def _one_of(name: str, text: str, allowed: Iterable[str]) -> str:
    if text not in (known := tuple(allowed)):
        raise Refused(
            f"Invalid value: '{text}'. Supported values are: {', '.join(map(repr, known))}.",
            name,
            "invalid_value",
        )
    return text


def _width(endpoint: Endpoint, text: str | None) -> Width:
    allowed = [width.text for width in endpoint.widths]
    chosen = _one_of("bucket_width", text or Width.DAY.text, allowed)
    return Width.parse(chosen)


def _limit(endpoint: Endpoint, width: Width, limit: int | None) -> int:
    most = endpoint.limits[width]
    if limit is None:
        return _DEFAULTS[width]
    if not 1 <= limit <= most:
        raise Refused(
            f"Invalid 'limit': expected a value between 1 and {most}, but got {limit} instead.",
            "limit",
            "integer_out_of_range",
        )
    return limit


def _group_by(endpoint: Endpoint, wanted: list[str]) -> tuple[str, ...]:
    for name in wanted:
        _one_of("group_by", name, endpoint.group_by)
    return endpoint.grouping(tuple(wanted))


def _filters(endpoint: Endpoint, parameters: Parameters) -> Filters:
    found = {}
    for name, dimension in _FILTERS.items():
        wanted = values(parameters, name)
        if wanted:
            found[dimension] = frozenset(wanted)
    batch = values(parameters, "batch")
    if batch:
        # Python clients send "True" where others send "true".
        chosen = _one_of("batch", batch[0].lower(), ("true", "false"))
        found["batch"] = frozenset({chosen})
    return found


def _hash(endpoint: Endpoint, parameters: Parameters) -> int:
    """A number for all parameters but the page; their order does not matter."""
    others = sorted(pair for pair in parameters if pair[0] != "page")
    return crc32(repr((endpoint.name, others)).encode())


def _turned(found: Query, page: str) -> Query:
    try:
        packed = base64.urlsafe_b64decode(page.removeprefix("page_"))
    except (binascii.Error, ValueError):
        packed = b""
    if len(packed) != 20 or int.from_bytes(packed[8:12], "big") != found.hash:
        raise Refused(CURSOR, None, "invalid_request_error")
    asked = int.from_bytes(packed[:8], "big")
    start = int.from_bytes(packed[12:], "big")
    return replace(found, asked=asked, start=start)


def _bounded(found: Query, first: int, end: int | None, now: int) -> Query:
    """With its end: never beyond now, and for costs in whole UTC days, which are compared as dates."""
    if end is not None and end <= first:
        raise Refused(
            "Invalid 'end_time': expected a time after 'start_time'.", "end_time", "invalid_value"
        )
    if not found.endpoint.money:
        # OpenAI floors the start to the minute only, whatever the width of the buckets.
        wanted_end = found.asked if end is None else end
        return replace(found, start=floor(found.start, 60), end=min(wanted_end, now))
    midnight = floor(now, Width.DAY) + Width.DAY
    start = floor(found.start, Width.DAY)
    until = floor(found.asked, Width.DAY) + Width.DAY
    if end is not None:
        until = floor(end, Width.DAY)
    if end is not None and until <= floor(first, Width.DAY):
        raise Refused(
            "Invalid 'end_time': 'start_time' and 'end_time' must not fall on the same date.",
            "end_time",
            "invalid_value",
        )
    return replace(found, start=start, end=min(until, midnight))
