"""Costs results: amounts as exact Decimals, whatever spelling OpenAI sends (number, string, 34
digits, `0E-6176`).
"""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal

import msgspec

from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.model import Amounts, Dims
from otel_openai_usage.errors import BadShape
from otel_openai_usage.providers.openai.text import Odd, cut

ZERO = Decimal(0)
MAX_COUNT = 10**16
"""The largest amount of one attribute set in one bucket, be it one row or several: no bill is larger,
and sums of many buckets stay exact.
"""
PLACES = 100
"""The most decimal places that an amount may have; OpenAI sends up to 34 digits."""


class _Amount(msgspec.Struct, gc=False):
    value: Decimal | None = None
    currency: str | None = None


class _Cost(msgspec.Struct, gc=False):
    amount: _Amount | None = None
    quantity: Decimal | None = None
    quantity_unit: str | None = None
    project_id: str | None = None
    line_item: str | None = None
    api_key_id: str | None = None
    user_id: str | None = None
    api_source: str | None = None


_COSTS = msgspec.json.Decoder(list[_Cost])
_NOTHING = _Amount()


def results(
    endpoint: Endpoint, body: bytes, odd: Odd | None = None
) -> Iterator[tuple[Dims, Amounts]]:
    """Dimensions (currency last, "usd" where none is said) and (cost, quantity) of each result.

    Quantities are of one line item and of one unit, so that no two units are ever added up; any
    other quantity is 0.
    """
    items = _decoded(endpoint, body)
    units = _units(items)
    for item in items:
        amount = item.amount or _NOTHING
        if amount.value is None and odd is not None:
            odd.replaced += 1  # shown as 0
        currency = cut((amount.currency or "usd").lower())
        dims = (*(cut(getattr(item, name) or "") or None for name in endpoint.group_by), currency)
        yield (
            dims,
            (
                exact(amount.value, f"{endpoint.path}: amount"),
                exact(_of_one_unit(item, units), f"{endpoint.path}: quantity"),
            ),
        )


def quantity_units(endpoint: Endpoint, body: bytes) -> dict[str, set[str]]:
    """The units in which OpenAI counts line items, by line item. Raises BadShape."""
    return _units(_decoded(endpoint, body))


def _decoded(endpoint: Endpoint, body: bytes) -> list[_Cost]:
    try:
        return _COSTS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadShape(f"{endpoint.path}: not the shape we know: {error}") from error


def _units(items: Iterable[_Cost]) -> dict[str, set[str]]:
    units: dict[str, set[str]] = {}
    for item in items:
        if item.line_item and item.quantity_unit and item.quantity:
            units.setdefault(item.line_item, set()).add(item.quantity_unit)
    return units


def _of_one_unit(item: _Cost, units: Mapping[str, set[str]]) -> Decimal | None:
    if not item.line_item or len(units.get(item.line_item, ())) > 1:
        return None
    return item.quantity


def exact(value: Decimal | None, where: str) -> Decimal:
    """The value as an amount. Raises BadShape for a value that is none.

    Null is zero, and a zero such as `0E-6176` loses its thousands of decimal places.
    """
    if not value:
        return ZERO
    if not value.is_finite() or not -MAX_COUNT <= value <= MAX_COUNT or not _short(value):
        raise BadShape(
            f"{where}: expected an amount up to {MAX_COUNT} with at most {PLACES} decimal places,"
            f" got {str(value)[:60]!r}"
        )
    return value


def _short(value: Decimal) -> bool:
    """Whether it has few enough decimal places, zeros at its end included."""
    exponent = value.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -PLACES
