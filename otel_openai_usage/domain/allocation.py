"""Divides a day's bill among the customers whose events explain it. Pure.

The share of a customer in a line item is e / max(U, E). Here e are the customer's metered tokens of
the line item's model and token class, E are those of all customers, and U are the tokens that
OpenAI reports. So no customer pays for usage that no event explains, and if events say more than
OpenAI, the bill is divided among them in proportion. If U is 0 or not known, U is E.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import NamedTuple, TypeAlias

from otel_openai_usage.domain import line_item
from otel_openai_usage.domain.exact import EXACT

UNMETERED = "(unmetered)"
"""What no event explains."""
SHARED = "(shared)"
"""A line item without a single model and token class."""
OTHERS = "(other customers)"
"""Customers beyond `MAX_CUSTOMERS` of a day and organization."""
FORGOTTEN = "(forgotten)"
"""Customers that `state forget` moved here."""
MAX_CUSTOMERS = 100_000

_DATE = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{4})")
"""What follows a model's name in the name of a dated model."""

Tokens: TypeAlias = Mapping[str, int]
"""Tokens by measure: `input`, `output`, `input_cached`, `input_cache_write`, …"""


class Use(NamedTuple):
    """Tokens of a model as OpenAI reports them. `tier` is None if OpenAI does not say it."""

    project: str | None
    model: str | None
    tier: str | None
    tokens: Tokens


class Metered(NamedTuple):
    """Tokens of a customer as events report them. The model may be the one that was asked for."""

    customer: str
    project: str | None
    model: str | None
    tier: str | None
    tokens: Tokens


class Part(NamedTuple):
    """What a customer pays of an amount. `share` is `weight` of `whole`, before rounding."""

    customer: str
    amount: Decimal
    weight: int
    whole: int


class Shares(NamedTuple):
    """Whole numbers by customer, and their whole. What is missing is `rest`'s."""

    weights: Mapping[str, int]
    whole: int
    rest: str = UNMETERED


@dataclass
class Day:
    """The usage and the events of one organization on one UTC day."""

    uses: Iterable[Use] = ()
    metered: Iterable[Metered] = ()
    max_customers: int = MAX_CUSTOMERS
    _cache: dict[tuple[str | None, str | None], Shares] = field(default_factory=dict)

    def parts(self, project: str | None, text: str | None, amount: Decimal) -> list[Part]:
        """The parts of an amount that was billed to a project for a line item.

        They have the amount's decimals and its sum. Parts of 0 are left out, unless all are.
        """
        return divided(amount, self.shares(project, text))

    def shares(self, project: str | None, text: str | None) -> Shares:
        """How a line item of a project is shared. `project` is None if the bill names none."""
        key = (project, text)
        if key not in self._cache:
            self._cache[key] = self._shares(project, line_item.split(text))
        return self._cache[key]

    def _shares(self, project: str | None, item: line_item.LineItem) -> Shares:
        token_class = item.token_class
        if item.model is None or token_class is None:
            return Shares({}, 1, SHARED)
        tables = self._tables
        model = tables.dated(item.model)
        tier = (item.service_tier or _STANDARD) if tables.says_tiers(model) else None
        found = tables.tokens(model, token_class, tier)
        projects = {name for name in found.used if name is not None}
        if not projects and found.used:
            # OpenAI's usage is not known by project, so every project has the same shares.
            project = None
        if project is None:
            return _in_proportion(found.of_all(), found.used_by_all())
        spread = found.spread(project)
        return _in_proportion(spread.weights, spread.used)

    @cached_property
    def _tables(self) -> "_Tables":
        return _Tables.of(self.uses, self.metered, self.max_customers)


_STANDARD = "standard"
_STANDARD_NAMES = frozenset({"", "auto", "default", "standard"})


@dataclass(frozen=True, slots=True)
class _Spread:
    """Tokens of customers and of OpenAI, in one unit that keeps all of them whole numbers."""

    weights: Mapping[str, int]
    used: int


@dataclass(slots=True)
class _Tokens:
    """The tokens of one model and class: OpenAI's by project, the customers' by project."""

    used: dict[str | None, int] = field(default_factory=dict)
    metered: dict[str | None, dict[str, int]] = field(default_factory=dict)

    def used_by_all(self) -> int:
        """OpenAI's tokens in all projects."""
        return sum(self.used.values())

    def of_all(self) -> dict[str, int]:
        """The customers' tokens in all projects."""
        found: dict[str, int] = {}
        for by_customer in self.metered.values():
            for customer, tokens in by_customer.items():
                found[customer] = found.get(customer, 0) + tokens
        return found

    def spread(self, project: str) -> _Spread:
        """The tokens in one project.

        Events without a project are spread over the projects in proportion to OpenAI's tokens. To
        stay with whole numbers, all tokens are multiplied by those of all projects.
        """
        everywhere = sum(tokens for name, tokens in self.used.items() if name is not None)
        here = self.used.get(project, 0)
        factor, spread = (everywhere, here) if everywhere else (1, 1)
        found = {
            customer: tokens * factor for customer, tokens in self.metered.get(project, {}).items()
        }
        for customer, tokens in self.metered.get(None, {}).items():
            found[customer] = found.get(customer, 0) + tokens * spread
        return _Spread(found, here * factor)


_Who: TypeAlias = tuple[str, str | None, str | None]
"""Customer, project and tier of events."""


@dataclass(slots=True)
class _Tables:
    """The day's tokens by model, tier and project."""

    used: dict[str, list[Use]] = field(default_factory=dict)
    metered: dict[str, dict[_Who, dict[str, int]]] = field(default_factory=dict)

    @classmethod
    def of(cls, uses: Iterable[Use], metered: Iterable[Metered], max_customers: int) -> "_Tables":
        tables = cls()
        for use in uses:
            if use.model is not None:
                tables.used.setdefault(use.model, []).append(use)
        customers: set[str] = set()
        for customer, project, model, tier, tokens in metered:
            if model is None:
                continue
            shown = customer
            if customer not in customers:
                if len(customers) < max_customers:
                    customers.add(customer)
                else:
                    shown = OTHERS
            of_model = tables.metered.setdefault(tables.dated(model), {})
            summed = of_model.setdefault((shown, project, tier), {})
            for name, count in tokens.items():
                summed[name] = summed.get(name, 0) + count
        return tables

    def dated(self, model: str) -> str:
        """The model that was used for a requested one: the dated one, if there is exactly one."""
        if model in self.used:
            return model
        candidates = [used for used in self.used if is_dated(used, model)]
        return candidates[0] if len(candidates) == 1 else model

    def says_tiers(self, model: str) -> bool:
        """Whether OpenAI and the events both say the tier of all usage of a model."""
        used = self.used.get(model)
        metered = self.metered.get(model)
        if not used or not metered:
            return False
        is_used_said = all(use.tier is not None for use in used)
        return is_used_said and all(tier is not None for _, _, tier in metered)

    def tokens(self, model: str, token_class: str, tier: str | None) -> _Tokens:
        """The tokens of a model and class, of one tier or of all."""
        counted = whole_class(token_class)
        found = _Tokens()
        for use in self.used.get(model, ()):
            if tier is None or _tier(use.tier) == tier:
                tokens = line_item.billed_tokens(counted, use.tokens)
                found.used[use.project] = found.used.get(use.project, 0) + tokens
        for (customer, project, said), summed in self.metered.get(model, {}).items():
            if tier is None or _tier(said) == tier:
                tokens = line_item.billed_tokens(counted, summed)
                by_customer = found.metered.setdefault(project, {})
                by_customer[customer] = by_customer.get(customer, 0) + tokens
        return found


def is_dated(name: str, model: str) -> bool:
    """Whether a name is that of a dated model, such as `gpt-4o-2024-08-06` of `gpt-4o`."""
    return name.startswith(model) and _DATE.fullmatch(name, len(model)) is not None


def whole_class(token_class: str) -> str:
    """The class in which events count: they do not tell text, audio and images apart."""
    if token_class.startswith(("input_cached", "input_cache_write")):
        return "input_cached" if token_class.startswith("input_cached") else "input_cache_write"
    return "input" if token_class.startswith("input") else "output"


def _tier(name: str | None) -> str:
    return _STANDARD if name is None or name in _STANDARD_NAMES else name


def _in_proportion(weights: Mapping[str, int], used: int) -> Shares:
    """e / max(U, E) for each customer."""
    found = {customer: tokens for customer, tokens in weights.items() if tokens > 0}
    whole = max(used, sum(found.values()))
    return Shares(found, whole or 1)


def divided(amount: Decimal, shares: Shares) -> list[Part]:
    """An amount in parts with as many decimals, whose sum is the amount.

    Parts are rounded towards 0. What that leaves goes to the largest part, the first by name if
    two are equal. Parts of 0 are left out, unless all are.
    """
    sign, digits, exponent = amount.as_tuple()
    if not isinstance(exponent, int):
        raise ValueError(f"divided {amount!r}: expected a finite amount")
    units = int("".join(map(str, digits)) or "0") * 10 ** max(0, exponent)
    decimals = max(0, -exponent)
    weights = dict(shares.weights)
    missing = shares.whole - sum(weights.values())
    if missing:
        weights[shares.rest] = weights.get(shares.rest, 0) + missing
    parts = {name: units * weight // shares.whole for name, weight in weights.items()}
    largest = min(weights, key=lambda name: (-weights[name], name))
    parts[largest] += units - sum(parts.values())
    found = []
    for name in sorted(parts):
        if parts[name] or (not units and name == largest):
            value = Decimal(-parts[name] if sign else parts[name]).scaleb(-decimals, EXACT)
            found.append(Part(name, value, weights[name], shares.whole))
    return found
