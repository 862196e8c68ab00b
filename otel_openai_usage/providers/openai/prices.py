"""A PriceList from the list prices of genai-prices, and the prices of `prices.overrides`.

Works offline: the list comes with the package, or from a file.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from pathlib import Path

from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.model import Width, utc
from otel_openai_usage.domain.pricing import Rates, Reason
from otel_openai_usage.errors import ConfigError
from otel_openai_usage.providers.openai import price_list
from otel_openai_usage.providers.openai.price_list import PriceList, WrongList
from otel_openai_usage.watched_file import WatchedFiles

log = logging.getLogger(__name__)

EVERY_MODEL = "*"
OLD_AFTER_DAYS = 90
"""Days after which a list is old: OpenAI has new models about every month."""
MILLION = Decimal(1_000_000)
_HALF = Decimal("0.5")

MAX_PRICE = 10**9
"""The highest price of a unit that an override may say."""
_WHOLE = {
    "input_cached": "input",
    "input_cache_write": "input",
    "input_text": "input",
    "input_audio": "input",
    "input_image": "input",
    "output_text": "output",
    "output_audio": "output",
    "output_image": "output",
    "input_cached_text": "input_cached",
    "input_cached_audio": "input_cached",
    "input_cached_image": "input_cached",
    "input_cache_write_30m": "input_cache_write",
    "input_cache_write_12h": "input_cache_write",
}
"""The measures that are parts of another. A part without a price of its own has the price of the
whole.
"""
PER = {
    "input": MILLION,
    "output": MILLION,
    **dict.fromkeys(_WHOLE, MILLION),
    "characters": MILLION,
    "audio": Decimal(60),
    "images": Decimal(1),
    "sessions": Decimal(1),
    "searches": Decimal(1000),
}
"""The measures that can be priced, and the amount that a price is for: a million tokens or
characters, a minute, a thousand searches.
"""

_LISTED = {
    "input": "input_mtok",
    "output": "output_mtok",
    "input_cached": "cache_read_mtok",
    "input_cache_write": "cache_write_mtok",
    "input_text": "input_text_mtok",
    "input_audio": "input_audio_mtok",
    "input_image": "input_image_mtok",
    "output_text": "output_text_mtok",
    "output_audio": "output_audio_mtok",
    "output_image": "output_image_mtok",
    "input_cached_text": "cache_text_read_mtok",
    "input_cached_audio": "cache_audio_read_mtok",
    "input_cached_image": "cache_image_read_mtok",
    "input_cache_write_30m": "cache_write_30m_mtok",
    "input_cache_write_12h": "cache_write_12h_mtok",
    "characters": "input_mchars",
    "searches": "web_searches_kcount",
}
"""The measures as the list calls them. It has other lifetimes of cache writes today."""
# File searches name no model; every model that has a price for them has the same.
_FILE_SEARCH = ("gpt-4o", "storage_searches_kcount")

OwnPrices = Mapping[str, Decimal]
"""Prices of one model from `prices.overrides`: by measure, and `discount` and `batch`."""


class Prices:
    """The prices of OpenAI. Implements PriceList.

    `overrides` is by organization, then by model, operation (for what has no model) or `*` for all:
    prices by the names of `PER`, or a `discount` (0.1 is a tenth off the list), or `batch` (what a
    batch costs of it; 0.5 if not said). Raises ConfigError with every problem.

    `file` is genai-prices' data file. It is read when it changes. While it cannot be used, the last
    good list stays: at first that is the one of the package.
    """

    def __init__(
        self,
        overrides: Mapping[str, Mapping[str, object]] | None = None,
        *,
        file: Path | None = None,
    ) -> None:
        self._own = _parsed(overrides or {})
        self._file = file
        self._watched = WatchedFiles([file] if file else [])
        self._problem = ""
        self._told_age_of: PriceList | None = None
        self._use(price_list.packaged())

    def _use(self, listed: PriceList) -> None:
        self._list = listed
        self._find = lru_cache(4096)(listed.provider.find_model)
        self._rates = lru_cache(8192)(self._look_up)

    @property
    def dated(self) -> float:
        """How new the list is, in Unix seconds."""
        return self._list.dated

    def age_days(self, now: float) -> int:
        """How old the list is, in whole days."""
        return int(max(0.0, now - self.dated) // Width.DAY)

    def is_old(self, now: float) -> bool:
        """Whether the list is so old that it lacks models."""
        return self.age_days(now) > OLD_AFTER_DAYS

    @property
    def problem(self) -> str:
        """What is wrong with the file, empty if nothing."""
        return self._problem

    def refresh(self, now: float) -> None:
        """Read the file if it changed, and warn of an old list. Call it in the recorder's thread.

        New prices are for what is recorded from then on.
        """
        if self._file is not None and self._watched.changed():
            self._read(self._file)
        age = self.age_days(now)
        if self.is_old(now) and self._told_age_of is not self._list:
            self._told_age_of = self._list
            log.warning(
                "the price list is %d days old, so newer models have no price; upgrade the package"
                " genai-prices, or set prices.file",
                age,
                extra={"event": "price_list_old", "days": age},
            )

    def _read(self, file: Path) -> None:
        try:
            listed = price_list.from_file(file)
        except OSError as error:
            # Nothing was read: try again at the next call.
            self._watched.forget()
            self._tell(file, error.strerror or str(error))
        except WrongList as error:
            self._tell(file, str(error))
        else:
            self._problem = ""
            self._use(listed)
            models = len(listed.provider.models)
            log.info(
                "read the prices of %d models",
                models,
                extra={"event": "price_file_read", "path": str(file), "models": models},
            )

    def _tell(self, file: Path, problem: str) -> None:
        """Log what is wrong with the file, unless that was logged before."""
        if problem != self._problem:
            log.warning(
                "prices.file cannot be used; the last good list stays: %s: %s",
                file,
                problem,
                extra={"event": "price_file_wrong", "path": str(file), "reason": problem},
            )
        self._problem = problem

    def rates(
        self, organization: str, endpoint: Endpoint, dims: Mapping[str, str], time: int
    ) -> Rates | None:
        """The prices of an attribute set at a Unix time; None if they are not known."""
        tier = dims.get("service_tier", "")
        # Prices change at whole hours at the earliest.
        return self._rates(
            organization,
            endpoint,
            dims.get("model", ""),
            dims.get("batch") == "true" or tier == "batch",
            tier,
            time // 3600,
        )

    def unpriced_reason(
        self, organization: str, endpoint: Endpoint, dims: Mapping[str, str]
    ) -> Reason:
        """Why usage of this attribute set has no price."""
        model = dims.get("model", "")
        if not model:
            return "no_model"
        own = self._own_prices(organization, model)
        is_known = self._find(model) is not None or not PER.keys().isdisjoint(own)
        return "no_price" if is_known else "unknown_model"

    def _look_up(
        self, organization: str, endpoint: Endpoint, model: str, batch: bool, tier: str, hour: int
    ) -> Rates | None:
        own = self._own_prices(organization, model or endpoint.name)
        prices = (
            dict(self._listed(endpoint, model, batch, tier, hour))
            if model or endpoint.name in _WITHOUT_MODEL
            else {}
        )
        off = 1 - own.get("discount", Decimal(0))
        prices = {name: price * off for name, price in prices.items()}
        share = own.get("batch", _HALF) if batch else Decimal(1)
        prices |= {name: price / PER[name] * share for name, price in own.items() if name in PER}
        return _differences(endpoint, prices)

    def _own_prices(self, organization: str, model: str) -> OwnPrices:
        known = self._own.get(organization, {})
        return {**known.get(EVERY_MODEL, {}), **known.get(model, {})}

    def _listed(
        self, endpoint: Endpoint, model: str, batch: bool, tier: str, hour: int
    ) -> Mapping[str, Decimal]:
        """Prices of one unit by measure, as the list has them."""
        if endpoint.name == "moderations":
            return {"input": Decimal(0)}  # free of charge, whatever the model
        reference, search = (model, "") if endpoint.name != "file_search_calls" else _FILE_SEARCH
        found = self._find(reference)
        if found is None:
            return {}
        time = utc(hour * 3600)
        context = {"service_tier": tier} if tier else {}
        standard = found.get_prices(time, context)
        special = found.get_prices(time, {**context, "processing": "batch"}) if batch else standard
        is_half = batch and not _knows_batches(found, time, context)
        prices = {}
        for name, column in _LISTED.items():
            if (price := _price(special, search or column)) is not None:
                if is_half and name in ("input", "output"):
                    # From before the list knew of batches; OpenAI has always taken half for them.
                    price *= _HALF
                prices[name] = price / PER[name]
        if (
            hours := _price(standard, "input_audio_hours") or _price(standard, "audio_hours")
        ) is not None:
            prices["audio"] = hours / 3600
        return prices


_WITHOUT_MODEL = ("moderations", "file_search_calls")


def _price(prices: ModelPrice, column: str) -> Decimal | None:
    """A price; of one that depends on the length of a request, the one for short ones: usage does
    not say how long each was.
    """
    price = getattr(prices, column, None)
    return price.base if isinstance(price, TieredPrices) else price


def _knows_batches(model: ModelInfo, time: datetime, context: Mapping[str, str]) -> bool:
    """Whether the list says what a batch costs at a time."""
    asked = {**context, "processing": "batch"}
    for variant in model.price_variants or ():
        is_asked = variant.when.items() <= asked.items()
        is_valid = variant.constraint is None or variant.constraint.active(time)
        if "processing" in variant.when and is_asked and is_valid:
            return True
    return False


def _differences(endpoint: Endpoint, prices: Mapping[str, Decimal]) -> Rates | None:
    """The rates of an endpoint; None if nothing of it has a price."""
    rates: list[Decimal | None] = []
    has_price = False
    for measure in endpoint.measures:
        name = measure.name
        if name in _WHOLE:
            whole = _price_of(_WHOLE[name], prices) or Decimal(0)
            part = _price_of(name, prices) or Decimal(0)
            rates.append(part - whole)
        elif name in ("requests", "input_uncached"):
            # A request has no price of its own, and uncached tokens are priced as input.
            rates.append(Decimal(0))
        else:
            rates.append(prices.get(name))
            has_price = has_price or name in prices
    return tuple(rates) if has_price else None


def _price_of(name: str, prices: Mapping[str, Decimal]) -> Decimal | None:
    """The price of a measure: its own, or that of what it is a part of."""
    if name in prices:
        return prices[name]
    whole = _WHOLE.get(name)
    if whole is None:
        return None
    modality = name.removeprefix("input_cached_")
    if whole == "input_cached" and whole not in prices and f"input_{modality}" in prices:
        # A list without prices of cached tokens: cached audio is audio.
        return prices[f"input_{modality}"]
    return _price_of(whole, prices)


def _parsed(overrides: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, OwnPrices]]:
    problems: list[str] = []
    found: dict[str, dict[str, OwnPrices]] = {}
    for organization, models in overrides.items():
        for model, prices in models.items():
            path = f"prices.overrides.{organization}.{model}"
            if not isinstance(prices, Mapping):
                problems.append(
                    f"{path}: expected prices such as {{input: 1.25, output: 10}}, got {prices!r}"
                )
                continue
            numbers = {
                str(name): _number(f"{path}.{name}", str(name), given, problems)
                for name, given in prices.items()
            }
            found.setdefault(organization, {})[model] = {
                name: number for name, number in numbers.items() if number is not None
            }
    if problems:
        raise ConfigError(problems)
    return found


def _number(path: str, name: str, given: object, problems: list[str]) -> Decimal | None:
    known: Sequence[str] = (*PER, "discount", "batch")
    if name not in known:
        problems.append(f"{path}: not known; known are {', '.join(known)}")
        return None
    try:
        number = Decimal(str(given))
    except InvalidOperation:
        number = Decimal(-1)
    if (
        not number.is_finite()
        or not 0 <= number <= MAX_PRICE
        or (name == "discount" and number > 1)
        or isinstance(given, bool)
    ):
        problems.append(
            f"{path}: expected a number from 0 to {1 if name == 'discount' else MAX_PRICE}, got {given!r}"
        )
        return None
    return number
