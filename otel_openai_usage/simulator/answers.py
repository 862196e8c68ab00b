"""What the simulated API answers to a usage or costs question, and its errors."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from operator import sub

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
    if "integral_floats" in kinds:
        style = replace(style, integral_floats=True)
    if "unknown_fields" in kinds:
        style = replace(style, unknown_fields=True)
    if "missing_optional" in kinds:
        style = replace(style, missing_optional=True)
    if "no_iso" in kinds:
        style = replace(style, iso=False)
    return style


class BucketCache:
    """Settled buckets as JSON. It is emptied when it would hold more than `limit` characters."""

    # A poller reads the same trailing hours every minute, and most of them no longer change.

    def __init__(self, limit: int = 64_000_000) -> None:
        self._limit = limit
        self._size = 0
        self._rows: dict[Hashable, dict[int, str]] = {}

    def rows(self, question: Hashable) -> Mapping[int, str]:
        """The JSON of the buckets of a question, by bucket start."""
        return self._rows.get(question, {})

    def add(self, question: Hashable, start: int, text: str) -> None:
        """Store the results of one bucket."""
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
    cache: BucketCache,
    struck: Iterable[Fault] = (),
) -> bytes:
    """One page of buckets at `now`, changed by the faults that struck."""
    struck = list(struck)
    kinds = {fault.kind for fault in struck}
    style = _styled(style, kinds)
    limit = query.limit
    if "overlapping_pages" in kinds:
        limit = max(2, limit // 2)  # one bucket again, and at least one more
    # The limit counts buckets between edges of the width, so a start off an edge makes the first
    # bucket short, as in OpenAI's answers.
    page_end = floor(query.start, query.width) + limit * query.width
    until = min(query.end, page_end)
    if query.width == Width.HOUR:
        lags = [fault.seconds or 3600 for fault in struck if fault.kind == "lagging_hours"]
        now -= timedelta(seconds=max(lags, default=0))
    rows: list[tuple[int, str]] = []
    if query.start < until:
        if query.endpoint.money:
            rows = _costs(world, query, until, now, style, kinds)
        else:
            rows = _usage(world, query, until, now, style, kinds, cache)
    buckets = []
    for start, text in rows:
        edge = floor(start, query.width) + query.width
        # OpenAI clips the running bucket to the requested end: its end_time moves with each poll.
        end = min(edge, until)
        buckets.append(wire.bucket(start, end, text, style))
    more = until < query.end
    has_more, next_page = _continued(query, until, more, bool(buckets), kinds)
    return wire.page(buckets, has_more, next_page, style)


def _continued(
    query: Query, until: int, more: bool, some: bool, kinds: set[str]
) -> tuple[bool, str | None]:
    """`has_more` and `next_page` of a page that ends at `until`."""
    if "null_cursor" in kinds:
        return True, None
    if "repeated_cursor" in kinds:
        return True, query.page or query.cursor(query.start)
    if "empty_more" in kinds and some:
        return True, query.cursor(until)
    if "overlapping_pages" in kinds and more:
        return True, query.cursor(until - query.width)
    if not more:
        return False, None
    return True, query.cursor(until)


def _usage(
    world: World,
    query: Query,
    until: int,
    now: datetime,
    style: Style,
    kinds: set[str],
    cache: BucketCache,
) -> list[tuple[int, str]]:
    # The style, the faults and the lateness change the text, so each has its own buckets.
    question = (
        query.endpoint.name,
        query.width,
        query.group_by,
        frozenset(query.filters.items()),
        style,
        frozenset(kinds),
        world.lateness,
    )
    cached = cache.rows(question)
    rows = []
    start = query.start
    while start + query.width <= until and start in cached:
        rows.append((start, cached[start]))
        start += query.width
    if start >= until:
        return rows
    fresh = _read(world, query, Window(start, until), now, style, kinds)
    settled_until = now.timestamp() - world.settles_after.total_seconds()
    for begin, text in fresh:
        is_aligned = begin % query.width == 0
        end = begin + query.width
        # A clipped bucket or one that can still grow would be wrong in the next answer.
        if is_aligned and end <= settled_until and end <= until:
            cache.add(question, begin, text)
    return rows + fresh


def _read(
    world: World, query: Query, window: Window, now: datetime, style: Style, kinds: set[str]
) -> list[tuple[int, str]]:
    readings = world.readings(
        query.endpoint.name, window, query.width, query.group_by, now, query.filters
    )
    if "null_dims" in kinds:
        dimensions = query.endpoint.dimensions
        lost = set()
        for place, name in enumerate(dimensions):
            if name in ("user_id", "api_key_id"):
                lost.add(place)
        readings = [(start, _nameless(rows, lost)) for start, rows in readings]
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


def _nameless(rows: list[tuple[Dims, Flow]], lost: set[int]) -> list[tuple[Dims, Flow]]:
    """`rows` with null in the places `lost`; they are not merged, so one key may appear twice."""
    nameless = []
    for dims, flow in rows:
        rest = tuple(None if place in lost else value for place, value in enumerate(dims))
        nameless.append((rest, flow))
    return nameless


def _doubled(rows: list[tuple[Dims, Flow]]) -> list[tuple[Dims, Flow]]:
    """Every row as two that add up to it. An export of a real organization had such pairs."""
    parts = []
    rests = []
    for dims, flow in rows:
        part = tuple(amount // 2 for amount in flow)
        # Halves of odd numbers differ by one: the sum must stay exact.
        rest = tuple(map(sub, flow, part))
        parts.append((dims, part))
        rests.append((dims, rest))
    return parts + rests


def _doubled_costs(rows: list[CostRow]) -> list[CostRow]:
    parts = []
    for row in rows:
        quantity = row.quantity
        if quantity is not None:
            quantity /= 2
        parts.append(replace(row, cost=row.cost / 2, quantity=quantity))
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
    """The body of the 401 for a key that is not accepted."""
    # OpenAI's message echoes both ends of the key, which the exporter must redact from its log.
    shown = "*" * len(key)
    if len(key) > 16:
        shown = f"{key[:8]}{'*' * 8}{key[-4:]}"
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
