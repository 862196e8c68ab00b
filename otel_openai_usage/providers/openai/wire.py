"""JSON to rows: strict on shape, lenient on additions.

Shapes are those of OpenAI's OpenAPI document 2.3.0 and of its Python client 3.54.0. An unknown
field is ignored, a missing required one is a BadShape that names the endpoint.
"""

import functools
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from operator import attrgetter
from sys import intern
from typing import Annotated, Any, TypeVar

import msgspec

from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.model import Amount, Amounts, Dims
from otel_openai_usage.domain.reconciliation import total
from otel_openai_usage.errors import BadShape
from otel_openai_usage.providers.openai import money
from otel_openai_usage.providers.openai.answers import Body
from otel_openai_usage.providers.openai.text import LONGEST, Odd, cut, mend, plain

T = TypeVar("T")
_Results = dict[Dims, Amounts]


@dataclass(frozen=True, slots=True)
class RawBucket:
    """One bucket of a page whose results are not decoded. `start` in Unix seconds.

    `content` is a view into the answer: most buckets are unchanged and never decoded, so they are
    not copied.
    """

    start: int
    fingerprint: bytes
    content: bytes | memoryview

    @property
    def results(self) -> bytes:
        """The JSON array of the results."""
        return bytes(self.content)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of buckets as OpenAI ordered them; `next_page` is None where OpenAI sent none."""

    buckets: list[RawBucket]
    has_more: bool
    next_page: str | None


class _Bucket(msgspec.Struct):
    start_time: int | float
    results: msgspec.Raw = msgspec.Raw()
    result: msgspec.Raw = msgspec.Raw()  # the name in OpenAI's document from 2024-12 to 2026-05


class _Page(msgspec.Struct):
    data: list[_Bucket]
    has_more: bool
    next_page: str | None = None


_PAGE = msgspec.json.Decoder(_Page)


def decode(decoding: Callable[[Body], T], body: Body, endpoint: str) -> T:
    """Return `decoding(body)`, where `decoding` belongs to a msgspec Decoder. Raises BadShape."""
    try:
        return decoding(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadShape(f"{endpoint}: not the shape we know: {error}") from error


def page(body: Body, endpoint: Endpoint) -> Page:
    """Decode the envelope of a page. Raises BadShape.

    The results of its buckets are not decoded: they are views into the body.
    """
    answer = decode(_PAGE.decode, body, endpoint.path)
    return Page(
        [_bucket(item, endpoint.path) for item in answer.data],
        answer.has_more,
        answer.next_page or None,
    )


def bucket(start: int, content: bytes | memoryview) -> RawBucket:
    """A bucket with the fingerprint of its results."""
    return RawBucket(start, hashlib.sha256(content).digest()[:16], content)


def joined(first: bytes, second: bytes) -> bytes:
    """Concatenate two JSON arrays of results."""
    parts = [part for part in (first.strip()[1:-1].strip(), second.strip()[1:-1].strip()) if part]
    return b"[" + b",".join(parts) + b"]"


def rows(endpoint: Endpoint, results: bytes, odd: Odd | None = None) -> _Results:
    """The rows of one bucket's results: amounts in the order of `endpoint.measures`, several results of
    one key summed.

    A dimension that is missing, null or empty is None; `batch` is "true" or "false". Counts are
    whole and not negative (10.0 is 10); an optional count that is missing or null is 0. Money is an
    exact Decimal.

    A number that cannot be read is a BadShape: nothing of the bucket is taken. Odd text is replaced,
    so that its row keeps its numbers, and a result without anything in it is left out; `odd` counts
    both.
    """
    odd = Odd() if odd is None else odd
    if endpoint.measures[0].money:
        costs = money.results(endpoint, readable_costs(endpoint, results, odd), odd)
        return _sum(endpoint, *_unzipped(costs))
    try:
        dims, amounts = _quick(endpoint)(results)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        dims, amounts = _unzipped(_slow(endpoint, _mended(results, odd), odd))
    return _sum(endpoint, dims, amounts)


REPLACED = "\ufffd"
"""The value of a dimension that is neither text nor a number."""
MAX_COUNT = 10**16
"""The largest count of one attribute set in one bucket, in one row or several. A larger one is no
usage, and sums of it could exceed the 64 bits of a database column.
"""

_ORGANIZATION = re.compile(rb'"organization_id"\s*:\s*"([^"\\]+)"')


def organization_id(results: bytes) -> str | None:
    """The organization's id, if costs results name it. OpenAI does not declare that field."""
    found = _ORGANIZATION.search(results)
    return found[1].decode("utf-8", "replace") if found else None


def _bucket(item: _Bucket, endpoint: str) -> RawBucket:
    content = memoryview(item.results) or memoryview(item.result)
    if bytes(content[:1]) != b"[":
        raise BadShape(
            f"{endpoint}: bucket {item.start_time}: expected an array `results`, got {_shown(content)}"
        )
    if item.start_time != int(item.start_time):
        raise BadShape(f"{endpoint}: expected start_time in whole seconds, got {item.start_time}")
    return bucket(int(item.start_time), content)


_Columns = tuple[list[Dims], list[Amounts]]


def _unzipped(pairs: Iterable[tuple[Dims, Amounts]]) -> _Columns:
    kept = list(pairs)
    return [dims for dims, _ in kept], [amounts for _, amounts in kept]


def _sum(endpoint: Endpoint, dims: list[Dims], amounts: list[Amounts]) -> _Results:
    found = dict(zip(dims, amounts, strict=True))
    if len(found) == len(dims):
        return found
    found = {}
    for key, value in zip(dims, amounts, strict=True):
        before = found.get(key)
        found[key] = value if before is None else total(before, value)
        if any(not -MAX_COUNT <= amount <= MAX_COUNT for amount in found[key]):
            raise BadShape(
                f"{endpoint.path}: rows of one attribute set add up to more than {MAX_COUNT} in one bucket"
            )
    return found


# --- The quick way decodes nearly all answers, in C. ---


@functools.cache
def _quick(endpoint: Endpoint) -> Callable[[bytes], _Columns]:
    count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
    required = [(m.field, count) for m in endpoint.measures if m.required]
    optional = [(m.field, count | None, 0) for m in endpoint.measures if not m.required]
    dimensions = [
        (name, bool | None if name == "batch" else str | None, None) for name in endpoint.dimensions
    ]
    # gc=False: items have no cycles, and a hundred thousand of them would start the collector.
    item_type: Any = msgspec.defstruct(
        endpoint.name, [*required, *optional, *dimensions], kw_only=True, gc=False
    )
    decoder = msgspec.json.Decoder(list[item_type])
    amounts_of = _getter([m.field for m in endpoint.measures])
    dims_of = _getter(list(endpoint.dimensions))

    def read(results: bytes) -> _Columns:
        items = decoder.decode(results)
        # The pool also knows dimensions as they came (batch still a boolean), so that a known
        # series costs one look-up and no new object.
        dims = [_pool.get(raw) or _share(raw) for raw in map(dims_of, items)]
        return dims, [
            tuple(n or 0 for n in ns) if None in ns else ns for ns in map(amounts_of, items)
        ]

    return read


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda item: (get(item),)


_BATCH: dict[object, str | None] = {
    True: "true",
    False: "false",
    None: None,
    "": None,
    "true": "true",
    "false": "false",
}


_pool: dict[tuple[object, ...], Dims] = {}
_POOL_SIZE = 200_000


def _share(raw: tuple[object, ...]) -> Dims:
    """The shared copy of equal dimensions, so that many buckets with them need little memory.

    Empty text becomes None. A boolean can only be the value of `batch`.
    """
    if len(_pool) >= _POOL_SIZE:
        _pool.clear()
    dims = tuple(
        (intern(cut(value)) or None) if isinstance(value, str) else _BATCH[value] for value in raw
    )
    known = _pool.setdefault(dims, dims)
    return _pool.setdefault(raw, known) if _is_short(raw) else known


def _is_short(raw: tuple[object, ...]) -> bool:
    """Whether no text of it was cut. Very long texts are not pooled, to bound the memory."""
    return all(len(value) <= LONGEST for value in raw if isinstance(value, str))


# --- The slow way accepts every oddity that we know, and its errors name the value. ---

_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_WHOLE = re.compile(r"\d+(\.\d*)?([eE][+-]?\d{1,3})?")
_RAW_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_SCALAR = msgspec.json.Decoder(bool | int | float | str | None)
_EMPTY = (b"", b"null", b"[]", b"{}")


_UNIT = "quantity_unit"


def _known(endpoint: Endpoint) -> list[str]:
    """The names of the fields of a result that are read."""
    measures = [measure.field for measure in endpoint.measures]
    return [*measures, *endpoint.group_by, *([_UNIT] if endpoint.measures[0].money else [])]


@functools.cache
def _fields(endpoint: Endpoint) -> Callable[[Body], list[Any]]:
    """A decoder of an array of results, whose known fields stay JSON.

    PHP and proxies write null or [] for an empty result, so both are accepted.
    """
    names = _known(endpoint)
    item_type: Any = msgspec.defstruct(
        endpoint.name,
        [(name, msgspec.Raw, msgspec.Raw()) for name in names],
        kw_only=True,
        gc=False,
    )
    return msgspec.json.Decoder(list[item_type | tuple[()] | None]).decode


def _mended(results: bytes, odd: Odd) -> bytearray:
    text = bytearray(results)
    odd.replaced += mend(text)
    return text


def _results(endpoint: Endpoint, results: Body, odd: Odd) -> Iterable[dict[str, bytes]]:
    """The known fields of each result, as JSON. A result that is null, [] or {} is left out."""
    names = _known(endpoint)
    as_sent: list[msgspec.Raw] = []
    for index, item in enumerate(decode(_fields(endpoint), results, endpoint.path)):
        fields = {name: bytes(getattr(item, name)) for name in names} if item else {}
        if fields and not any(fields.values()):
            as_sent = as_sent or _RAW_ITEMS.decode(results)
            # Unknown fields only: it says something, and we do not know what.
            fields = fields if bytes(as_sent[index])[1:-1].strip() else {}
        if fields:
            yield fields
        else:
            odd.left_out += 1


def _slow(endpoint: Endpoint, results: Body, odd: Odd) -> Iterable[tuple[Dims, Amounts]]:
    for fields in _results(endpoint, results, odd):
        dims = tuple(_dimension(fields[name], name, odd) for name in endpoint.dimensions)
        yield (
            _share(dims),
            tuple(
                _count(fields[m.field], m.field, m.required, endpoint.path)
                for m in endpoint.measures
            ),
        )


def readable_costs(endpoint: Endpoint, results: bytes, odd: Odd) -> bytes:
    """Costs results that can be decoded: unchanged, or else with unreadable text replaced.

    Numbers are not changed. Raises BadShape.
    """
    try:
        money.quantity_units(endpoint, results)
    except BadShape:
        return msgspec.json.encode(
            [
                _mended_cost(endpoint, fields, odd)
                for fields in _results(endpoint, _mended(results, odd), odd)
            ]
        )
    return results


def _mended_cost(endpoint: Endpoint, fields: dict[str, bytes], odd: Odd) -> dict[str, object]:
    texts = {name: _dimension(fields[name], name, odd) for name in (*endpoint.group_by, _UNIT)}
    numbers = {
        measure.field: msgspec.Raw(raw)
        for measure in endpoint.measures
        if (raw := fields[measure.field]) not in _EMPTY
    }
    return {**texts, **numbers}


def _dimension(raw: bytes, name: str, odd: Odd) -> str | None:
    """The value of a dimension. An unreadable one is replaced, so that the row keeps its numbers."""
    if raw in _EMPTY:
        return None
    try:
        value: bool | int | float | str | None = _SCALAR.decode(raw)
    except _NOT_JSON:
        value = plain(raw)
        odd.replaced += 1
        return REPLACED if value is None and name != "batch" else value or None
    if name == "batch":
        text = str(value).lower()
        known = {"true": "true", "1": "true", "false": "false", "0": "false", "": None}
        if text not in known or (isinstance(value, int) and not isinstance(value, bool)):
            odd.replaced += 1
        return known.get(text)
    if isinstance(value, str):
        return value or None
    odd.replaced += 1
    return str(value).lower()


def _count(raw: bytes, field: str, required: bool, endpoint: str) -> Amount:
    if not required and raw in (b"", b"null"):
        return 0
    text = raw.decode("ascii", "replace")
    number = Decimal(text) if _WHOLE.fullmatch(text) else None
    if number is None or number != int(number) or number > MAX_COUNT:
        raise BadShape(
            f"{endpoint}: {field}: expected a whole number from 0 to {MAX_COUNT}, got {_shown(raw)}"
        )
    return int(number)


def _shown(raw: bytes | memoryview) -> str:
    return repr(bytes(raw[:60]).decode("utf-8", "replace")) if raw else "nothing"
