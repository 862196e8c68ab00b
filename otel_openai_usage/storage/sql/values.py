"""How attribute sets, amounts and names of columns are written in a store."""

import json
from decimal import Decimal

from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.model import Amount, Amounts, Dims
from otel_openai_usage.domain.reconciliation import are_whole


def quoted(name: str) -> str:
    """A column's name as an SQL identifier: a measure may be called `order`.

    Without the quotes a name that is a keyword would be taken for the keyword.
    """
    return '"' + name.replace('"', '""') + '"'


def encode_dims(dims: Dims, endpoint: Endpoint) -> str:
    """The key of an attribute set: JSON by dimension name, so that an endpoint may gain one."""
    pairs = zip(endpoint.dimensions, dims, strict=True)
    named = {name: value for name, value in pairs if value is not None}
    # Sorted, because equal attribute sets must have equal keys.
    return json.dumps(named, sort_keys=True)


def decode_dims(text: str, endpoint: Endpoint) -> Dims:
    """The reverse of `encode_dims`."""
    named = json.loads(text)
    return tuple(named.get(name) for name in endpoint.dimensions)


def encode_amounts(amounts: Amounts) -> str:
    """Amounts as JSON. Money is a string, so that no digit is lost.

    Zeros at the end are left out: most rows have few of an endpoint's measures.
    """
    count = len(amounts)
    while count and amounts[count - 1] == 0:
        count -= 1
    if are_whole(amounts):
        # As JSON writes it, and much faster: this runs for every series that changes.
        return str(list(amounts[:count]))
    return json.dumps([encode_amount(amount) for amount in amounts[:count]])


def decode_amounts(text: str, endpoint: Endpoint) -> Amounts:
    """The reverse of `encode_amounts`. An older version wrote fewer measures."""
    values = json.loads(text)
    amounts = tuple(
        Decimal(value) if measure.money else value
        for measure, value in zip(endpoint.measures, values, strict=False)
    )
    if len(values) > len(endpoint.measures):
        raise ValueError(f"{endpoint.name}: {len(values)} amounts are stored: {text[:60]}")
    return amounts + endpoint.zero[len(amounts) :]


def encode_amount(amount: Amount) -> int | str:
    """An amount as a column's value."""
    return amount if isinstance(amount, int) else str(amount)


def decode_text(text: str | Decimal) -> Amount:
    """An amount from its text: an int if it is whole, else a Decimal."""
    return int(text) if str(text).isdigit() else Decimal(text)
