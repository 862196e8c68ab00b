"""Rows to the JSON that OpenAI answers with. Text templates, because a day of minutes has a hundred
thousand rows.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Context, Decimal

from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.model import Dims
from otel_openai_usage.simulator.costs import CostRow
from otel_openai_usage.simulator.traffic import Flow, measures

_ONE_TOKEN_FIELDS = (
    "input_tokens", "output_tokens", "num_model_requests", "input_cached_tokens", "input_uncached_tokens", "input_cache_write_tokens",
    "input_cache_write_30m_tokens", "input_cache_write_12h_tokens", "input_text_tokens", "output_text_tokens", "input_cached_text_tokens",
    "input_audio_tokens", "input_cached_audio_tokens", "output_audio_tokens", "input_image_tokens", "input_cached_image_tokens",
    "output_image_tokens",
)  # fmt: skip
"""In the order in which OpenAI lists them."""
_REQUIRED_TOKEN_FIELDS = 3


@dataclass(frozen=True, slots=True)
class Style:
    """How an answer is spelt. `money`: number, string, long, long_string (34 digits, 0E-6176)."""

    money: str = "number"
    integral_floats: bool = False
    unknown_fields: bool = False
    missing_optional: bool = False
    iso: bool = True
    organization: str | None = None


class Renderer:
    """Writes rows of one endpoint in one style; what it wrote of dimensions it keeps, for they come
    again every minute.
    """

    def __init__(self, endpoint: Endpoint, style: Style) -> None:
        self._endpoint = endpoint
        self._style = style
        self._tokens = endpoint.name in ("completions", "decisions")
        self._count: int | None = None
        names = tuple(measure.field for measure in endpoint.measures)
        if self._tokens:
            self._places = [names.index(name) for name in _ONE_TOKEN_FIELDS]
            names = _ONE_TOKEN_FIELDS
            if style.missing_optional:
                self._count = _REQUIRED_TOKEN_FIELDS
        number = "%d.0" if style.integral_floats else "%d"
        body = ",".join(f'"{name}":{number}' for name in names[: self._count])
        self._head = f'{{"object":"{endpoint.object}",{body},'
        self._tails: dict[Dims, str] = {}

    def rows(self, rows: Iterable[tuple[Dims, Flow]]) -> str:
        """The `results` of one bucket."""
        head = self._head
        tails = self._tails
        if self._tokens:
            rows = [(dims, self._token_fields(flow)) for dims, flow in rows]
        texts = []
        for dims, flow in rows:
            tail = tails.get(dims) or self._tail(dims)
            texts.append(head % flow + tail)
        return ",".join(texts)

    def _token_fields(self, flow: Flow) -> Flow:
        numbers = measures(self._endpoint.name, flow)
        return tuple([numbers[place] for place in self._places[: self._count]])

    def _tail(self, dims: Dims) -> str:
        """The dimensions of a row, and its end."""
        fields: dict[str, object] = dict(zip(self._endpoint.dimensions, dims, strict=True))
        # On the wire `batch` is a bool when grouped by, else null; the other dimensions are text.
        if fields.get("batch") is not None:
            fields["batch"] = fields["batch"] == "true"
        if self._style.missing_optional:
            fields = {name: value for name, value in fields.items() if value is not None}
            # The row's measures end with a comma, so at least one field must follow.
            fields = fields or {"project_id": None}
        if self._style.unknown_fields:
            fields |= {"region": "eu-north-1", "labels": [{"team": None}]}
        text = json.dumps(fields, separators=(",", ":"))
        tail = text[1:]
        self._tails[dims] = tail
        return tail


def cost_rows(endpoint: Endpoint, rows: Iterable[CostRow], style: Style) -> str:
    """The `results` of one day of costs; amounts are exact decimals, also as JSON numbers."""
    return ",".join([_cost_row(endpoint, row, style) for row in rows])


def _cost_row(endpoint: Endpoint, row: CostRow, style: Style) -> str:
    fields: dict[str, object] = dict(zip(endpoint.dimensions, row.dims, strict=True))
    currency = fields.pop("currency")
    quantity = "null" if row.quantity is None else money(row.quantity, "number")
    tail = {**fields, "quantity_unit": row.unit}
    if style.organization:
        tail["organization_id"] = style.organization
    if style.unknown_fields:
        tail["billing_cycle"] = {"day": 1}
    # The json module would write a Decimal as a float and lose digits that OpenAI sends.
    amount = f'{{"value":{money(row.cost, style.money)},"currency":"{currency}"}}'
    return f'{{"object":"{endpoint.object}","amount":{amount},"quantity":{quantity},{json.dumps(tail)[1:]}'


def money(value: Decimal, style: str) -> str:
    """A decimal as JSON. The long styles are the text of an IEEE decimal128: 34 digits, and zero as
    0E-6176.
    """
    text = f"{value.normalize():f}"
    if style.startswith("long"):
        text = _long(value)
    return f'"{text}"' if style.endswith("string") else text


def _long(value: Decimal) -> str:
    if not value:
        return "0E-6176"
    places = 33 - value.adjusted()
    last_digit = Decimal(1).scaleb(-places)
    # The default context has 28 digits and would refuse 34.
    return str(value.quantize(last_digit, context=Context(prec=34)))


def bucket(start: int, end: int, results: str, style: Style) -> str:
    """One bucket."""
    # OpenAI documents no ISO times, but its answers have them.
    iso = ""
    if style.iso:
        iso = f'"start_time_iso":"{_iso(start)}","end_time_iso":"{_iso(end)}",'
    odd = '"settled":false,' if style.unknown_fields else ""
    return f'{{"object":"bucket","start_time":{start},"end_time":{end},{iso}{odd}"results":[{results}]}}'


def _iso(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat()


def page(buckets: Iterable[str], has_more: bool, next_page: str | None, style: Style) -> bytes:
    """The whole answer."""
    odd = '"data_as_of":null,' if style.unknown_fields else ""
    data = ",".join(buckets)
    more = json.dumps(has_more)
    cursor = json.dumps(next_page)
    text = f'{{"object":"page",{odd}"data":[{data}],"has_more":{more},"next_page":{cursor}}}'
    return text.encode()
