"""What the simulated API answers to a usage or costs question, and its errors."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from otel_openai_usage.domain.endpoints import COSTS
from otel_openai_usage.domain.model import Dims, Width, Window, floor
from otel_openai_usage.simulator import wire
from otel_openai_usage.simulator.costs import CostRow
from otel_openai_usage.simulator.faults import Fault
from otel_openai_usage.simulator.query import CURSOR, Query
from otel_openai_usage.simulator.traffic import Flow
from otel_openai_usage.simulator.wire import Style
from otel_openai_usage.simulator.world import World

_MONEY = {"money_string": "string", "money_long": "long", "money_long_string": "long_string"}


def _styled(style: Style, kinds: set[str]) -> Style:
    """`style` with the odd spellings that some faults ask for."""
    for kind in kinds & _MONEY.keys():
        style = replace(style, money=_MONEY[kind])
    return replace(
        style,
        integral_floats=style.integral_floats or "integral_floats" in kinds,
        unknown_fields=style.unknown_fields or "unknown_fields" in kinds,
        missing_optional=style.missing_optional or "missing_optional" in kinds,
        iso=style.iso and "no_iso" not in kinds,
    )


class Shelf:
    """Settled buckets as they were written, for they are asked for again and again. Emptied when it
    holds `limit` characters.
    """

    def __init__(self, limit: int = 64_000_000) -> None:
        self._limit = limit
        self._size = 0
        self._rows: dict[Hashable, dict[int, str]] = {}

    def rows(self, question: Hashable) -> Mapping[int, str]:
        """What is there for a question, by bucket start."""
        return self._rows.get(question, {})

    def keep(self, question: Hashable, start: int, text: str) -> None:
        """Put the results of one bucket on the shelf."""
        self._size += len(text)
        if self._size > self._limit:
            self._rows = {}
            self._size = len(text)
        self._rows.setdefault(question, {})[start] = text


def page(
    world: World,
    query: Query,
    now: datetime,
    style: Style,
    shelf: Shelf,
    struck: Iterable[Fault] = (),
) -> bytes:
    """One page of buckets at `now`, changed by the faults that struck."""
    struck = list(struck)
    kinds = {fault.kind for fault in struck}
    style = _styled(style, kinds)
    limit = query.limit
    if "overlapping_pages" in kinds:
        limit = max(2, limit // 2)  # one bucket again, and at least one more
    until = min(query.end, floor(query.start, query.width) + limit * query.width)
    if query.width == Width.HOUR:
        lags = [fault.seconds or 3600 for fault in struck if fault.kind == "lagging_hours"]
        now -= timedelta(seconds=max(lags, default=0))
    buckets: list[str] = []
    if query.start < until:
        rows = (
            _costs(world, query, until, now, style, kinds)
            if query.endpoint is COSTS
            else _usage(world, query, until, now, style, kinds, shelf)
        )
        buckets = [
            wire.bucket(start, min(floor(start, query.width) + query.width, until), text, style)
            for start, text in rows
        ]
    more = until < query.end
    return wire.page(buckets, *_continued(query, until, more, bool(buckets), kinds), style)


def _continued(
    query: Query, until: int, more: bool, some: bool, kinds: set[str]
) -> tuple[bool, str | None]:
    if "null_cursor" in kinds:
        return True, None
    if "repeated_cursor" in kinds:
        return True, query.page or query.cursor(query.start)
    if "empty_more" in kinds and some:
        return True, query.cursor(until)
    if "overlapping_pages" in kinds and more:
        return True, query.cursor(until - query.width)
    return more, query.cursor(until) if more else None


def _usage(
    world: World,
    query: Query,
    until: int,
    now: datetime,
    style: Style,
    kinds: set[str],
    shelf: Shelf,
) -> list[tuple[int, str]]:
    question = (
        query.endpoint.name,
        query.width,
        query.group_by,
        frozenset(query.filters.items()),
        style,
        frozenset(kinds),
        world.lateness,
    )
    kept = shelf.rows(question)
    rows = []
    start = query.start
    while start + query.width <= until and start in kept:
        rows.append((start, kept[start]))
        start += query.width
    if start < until:
        fresh = _read(world, query, Window(start, until), now, style, kinds)
        settled = now.timestamp() - world.settles_after.total_seconds()
        for begin, text in fresh:
            if begin % query.width == 0 and begin + query.width <= min(settled, until):
                shelf.keep(question, begin, text)
        rows += fresh
    return rows


def _read(
    world: World, query: Query, window: Window, now: datetime, style: Style, kinds: set[str]
) -> list[tuple[int, str]]:
    readings = world.readings(
        query.endpoint.name, window, query.width, query.group_by, now, query.filters
    )
    if "null_dims" in kinds:
        lost = {
            query.endpoint.dimensions.index(name)
            for name in ("user_id", "api_key_id")
            if name in query.endpoint.dimensions
        }
        readings = [
            (start, [(_without(dims, lost), flow) for dims, flow in rows])
            for start, rows in readings
        ]
    if "duplicate_rows" in kinds:
        readings = [(start, _doubled(rows)) for start, rows in readings]
    renderer = wire.Renderer(query.endpoint, style)
    return [(start, renderer.rows(rows)) for start, rows in readings]


def _costs(
    world: World, query: Query, until: int, now: datetime, style: Style, kinds: set[str]
) -> list[tuple[int, str]]:
    readings = world.cost_readings(Window(query.start, until), query.group_by, now, query.filters)
    if "duplicate_rows" in kinds:
        readings = [(start, _doubled_costs(rows)) for start, rows in readings]
    return [(start, wire.cost_rows(query.endpoint, rows, style)) for start, rows in readings]


def _without(dims: Dims, lost: set[int]) -> Dims:
    return tuple(None if place in lost else value for place, value in enumerate(dims))


def _doubled(rows: list[tuple[Dims, Flow]]) -> list[tuple[Dims, Flow]]:
    parts = [(dims, tuple(amount // 2 for amount in flow)) for dims, flow in rows]
    rests = [(dims, tuple(amount - amount // 2 for amount in flow)) for dims, flow in rows]
    return parts + rests


def _doubled_costs(rows: list[CostRow]) -> list[CostRow]:
    parts = [
        replace(row, cost=row.cost / 2, quantity=None if row.quantity is None else row.quantity / 2)
        for row in rows
    ]
    return parts + parts


def error(
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    kind: str = "invalid_request_error",
) -> dict[str, object]:
    """OpenAI's error envelope."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def wrong_key(key: str) -> dict[str, object]:
    """The body of the 401 for a key that is not accepted; it shows the key's ends, as OpenAI's
    does.
    """
    shown = f"{key[:8]}{'*' * 8}{key[-4:]}" if len(key) > 16 else "*" * len(key)
    where = "https://platform.openai.com/account/api-keys"
    return error(
        f"Incorrect API key provided: {shown}. You can find your API key at {where}.",
        code="invalid_api_key",
    )


NO_KEY = error(
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
    "(i.e. Authorization: Bearer YOUR_KEY)."
)
"""The body of the 401 for a request without a key."""


SERVER_ERROR = error(
    "The server had an error while processing your request. Sorry about that!", kind="server_error"
)
TOO_FAR_BACK = error(
    "The requested time range lies further back than is reported.",
    param="start_time",
    code="reporting_lookback_exceeded",
)
BAD_CURSOR = error(CURSOR, code="invalid_request_error")


def missing_scope(scope: str) -> dict[str, object]:
    """The body of the 403 (or 401) for a key that may not do this."""
    return error(
        f"You have insufficient permissions for this operation. Missing scopes: {scope}. Check that you have the correct role in your "
        "organization (Reader, Writer, Owner) and project (Member, Owner), and if you're using a restricted API key, that it has the "
        "necessary scopes."
    )


HTML = (
    "<html>\r\n<head><title>{status} Bad Gateway</title></head>\r\n<body>\r\n"
    "<center><h1>{status} Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n"
)
"""The page of a proxy on the way."""
