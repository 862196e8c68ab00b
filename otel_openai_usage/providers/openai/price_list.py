"""OpenAI's part of genai-prices: from the installed package, or from its data file.

The file is a list of providers, or an object with `providers` (since version 3 of the format).
Only what OpenAI's prices need is decoded: another provider may have anything.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from genai_prices import data_snapshot, types

from otel_openai_usage.domain.model import midnight

OPENAI = "openai"
MAX_BYTES = 64 * 2**20
"""The largest data file that is read. Today's has half a megabyte."""
MAX_PRICE = 10**9
_MAX_DEPTH = 20


class WrongList(Exception):
    """A data file that cannot be used. The text says what is wrong, and where."""


@dataclass(frozen=True, slots=True)
class PriceList:
    """The prices of one provider. `dated` is how new they are, in Unix seconds."""

    provider: types.Provider
    dated: float


def packaged() -> PriceList:
    """The list of the installed package. It is as new as the newest price that it dates.

    It also has prices that begin later: those do not make it newer.
    """
    providers = data_snapshot.get_snapshot().providers
    installed = datetime.fromtimestamp(Path(types.__file__).stat().st_mtime, UTC).date()
    dates = [constraint.start_date for constraint in _start_dates(providers)]
    newest = max((day for day in dates if day <= installed), default=installed)
    provider = next(provider for provider in providers if provider.id == OPENAI)
    return PriceList(provider, midnight(newest))


def _start_dates(providers: Iterable[types.Provider]) -> Iterator[types.StartDateConstraint]:
    for provider in providers:
        for model in provider.models:
            dated: list[types.ConditionalPrice | types.PriceVariant] = []
            if isinstance(model.prices, list):
                dated += model.prices
            dated += model.price_variants or ()
            for price in dated:
                if isinstance(price.constraint, types.StartDateConstraint):
                    yield price.constraint


def from_file(path: Path) -> PriceList:
    """The list in a data file, as new as the file. Raises OSError or WrongList."""
    with path.open("rb") as file:
        text = file.read(MAX_BYTES + 1)
        modified = path.stat().st_mtime
    if len(text) > MAX_BYTES:
        raise WrongList(f"larger than {MAX_BYTES} bytes")
    return PriceList(decode(text), modified)


# --- decoding; every class has the fields of genai-prices' JSON Schema that matter here

_Price: TypeAlias = "Decimal | _Tiered | None"


class _Tier(msgspec.Struct):
    start: int
    price: Decimal


class _Tiered(msgspec.Struct):
    base: Decimal
    tiers: list[_Tier]


class _Constraint(msgspec.Struct):
    start_date: date | None = None
    start_time: time | None = None
    end_time: time | None = None


class _Conditional(msgspec.Struct):
    prices: dict[str, _Price]
    constraint: _Constraint | None = None


class _Variant(msgspec.Struct):
    when: dict[str, str]
    prices: dict[str, _Price]
    constraint: _Constraint | None = None


class _Match(msgspec.Struct):
    equals: str | None = None
    starts_with: str | None = None
    ends_with: str | None = None
    contains: str | None = None
    regex: str | None = None
    or_: "list[_Match] | None" = msgspec.field(default=None, name="or")
    and_: "list[_Match] | None" = msgspec.field(default=None, name="and")


class _Model(msgspec.Struct):
    id: str
    match: _Match
    prices: dict[str, _Price] | list[_Conditional]
    price_variants: list[_Variant] | None = None


class _Provider(msgspec.Struct):
    id: str
    models: msgspec.Raw


class _File(msgspec.Struct):
    providers: list[_Provider]


_LIST = msgspec.json.Decoder(list[_Provider])
_OBJECT = msgspec.json.Decoder(_File)
_MODELS = msgspec.json.Decoder(list[_Model])
_NOT_DECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode(text: bytes) -> types.Provider:
    """OpenAI, from the content of a data file. Raises WrongList."""
    try:
        is_object = text.lstrip()[:1] == b"{"
        providers = _OBJECT.decode(text).providers if is_object else _LIST.decode(text)
        found = next((provider for provider in providers if provider.id == OPENAI), None)
        if found is None:
            raise WrongList(f"no provider has the id {OPENAI!r}")
        models = _MODELS.decode(found.models)
    except _NOT_DECODABLE as error:
        raise WrongList(f"not the data of genai-prices: {error}") from error
    if not models:
        raise WrongList(f"the provider {OPENAI!r} has no models")
    return types.Provider(OPENAI, "OpenAI", "", models=[_model(model) for model in models])


def _model(model: _Model) -> types.ModelInfo:
    where = f"the model {model.id!r}"
    prices: types.ModelPrice | list[types.ConditionalPrice]
    if isinstance(model.prices, dict):
        prices = _prices(model.prices, where)
    else:
        prices = [
            types.ConditionalPrice(
                _constraint(each.constraint, where), prices=_prices(each.prices, where)
            )
            for each in model.prices
        ]
        if not prices:
            raise WrongList(f"{where} has an empty list of prices")
    variants = []
    for variant in model.price_variants or ():
        if not variant.when:
            raise WrongList(f"{where} has a variant without a condition")
        variants.append(
            types.PriceVariant(
                variant.when,
                _prices(variant.prices, where),
                _constraint(variant.constraint, where),
            )
        )
    return types.ModelInfo(
        model.id, _match(model.match, where), prices=prices, price_variants=variants or None
    )


def _prices(prices: dict[str, _Price], where: str) -> types.ModelPrice:
    found: dict[str, Decimal | types.TieredPrices | None] = {}
    for name, price in prices.items():
        if isinstance(price, _Tiered):
            tiers = [
                types.Tier(tier.start, _checked(tier.price, f"{where}: {name}"))
                for tier in price.tiers
            ]
            base = _checked(price.base, f"{where}: {name}")
            found[name] = types.TieredPrices(base, tiers)
        elif price is not None:
            found[name] = _checked(price, f"{where}: {name}")
    return types.ModelPrice(**found)


def _checked(price: Decimal, where: str) -> Decimal:
    if not price.is_finite() or not 0 <= price <= MAX_PRICE:
        raise WrongList(f"{where}: expected a price from 0 to {MAX_PRICE}, got {str(price)[:40]}")
    return price


def _constraint(
    constraint: _Constraint | None, where: str
) -> types.StartDateConstraint | types.TimeOfDateConstraint | None:
    if constraint is None:
        return None
    if constraint.start_date is not None:
        return types.StartDateConstraint(constraint.start_date)
    if constraint.start_time is not None and constraint.end_time is not None:
        return types.TimeOfDateConstraint(constraint.start_time, constraint.end_time)
    raise WrongList(f"{where} has a constraint of a kind that is not known here")


def _match(match: _Match, where: str, depth: int = 0) -> "types.MatchLogic":
    """The rule by which a model is found. It is of exactly one kind."""
    if depth > _MAX_DEPTH:
        raise WrongList(f"{where}: the rule for its name is nested more than {_MAX_DEPTH} times")
    kinds = [name for name in _Match.__struct_fields__ if getattr(match, name) is not None]
    if len(kinds) != 1:
        raise WrongList(f"{where}: its `match` is of a kind that is not known here")
    (kind,) = kinds
    value = getattr(match, kind)
    if kind in ("or_", "and_"):
        value = [_match(each, where, depth + 1) for each in value]
    if kind == "regex":
        try:
            re.compile(value)
        except re.error as error:
            raise WrongList(f"{where}: its regex {value!r}: {error}") from error
    clause: types.MatchLogic = _CLAUSES[kind](value)
    return clause


_CLAUSES: Mapping[str, Callable[[Any], Any]] = {
    "equals": types.ClauseEquals,
    "starts_with": types.ClauseStartsWith,
    "ends_with": types.ClauseEndsWith,
    "contains": types.ClauseContains,
    "regex": types.ClauseRegex,
    "or_": types.ClauseOr,
    "and_": types.ClauseAnd,
}
