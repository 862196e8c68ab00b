"""Compares what a gateway counted with what OpenAI counted and billed, by UTC day and model. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from otel_openai_usage.domain.allocation import is_dated

SAME_MONEY = Decimal("0.01")
"""A difference up to a cent is rounding."""

OTHER = "OpenAI reports nothing of this model: it is another provider's or organization's, or a name of the gateway's own"
AROUND = "the gateway knows nothing of it: it was used without the gateway"
MORE_AT_OPENAI = (
    "OpenAI counts more: requests without the gateway, or retries and streams that it did not count"
)
MORE_AT_GATEWAY = "the gateway counts more: answers from its cache, estimated streams, or another organization's key"
OTHER_PRICE = "the tokens agree, so the prices differ: the gateway's list, a discount, or cached tokens and batches at full price"
UNSETTLED = "the day is not settled: OpenAI may still add usage, and bills later"
BILLED_WITHOUT_USAGE = "OpenAI bills it and reports no usage of it"
NO_BILL = "not billed by model, so the cost is our estimate"
_PREFIX = "openai/"


@dataclass(slots=True)
class Counted:
    """Tokens and money of one model on one day. `cost` is None where nobody told it."""

    tokens: int = 0
    cost: Decimal | None = None

    def add(self, tokens: int, cost: Decimal | None) -> None:
        """Add what another row says of the same model and day."""
        self.tokens += tokens
        if cost is not None:
            self.cost = (self.cost or Decimal(0)) + cost


@dataclass(slots=True)
class AtOpenAI:
    """What OpenAI says of one model on one day, and our estimate of its cost."""

    tokens: int = 0
    is_used: bool = False
    estimate: Decimal | None = None
    billed: Decimal | None = None

    def add(self, other: "AtOpenAI") -> None:
        """Add another dated model."""
        self.tokens += other.tokens
        self.is_used |= other.is_used
        self.estimate = _sum(self.estimate, other.estimate)
        self.billed = _sum(self.billed, other.billed)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One line: a model on a UTC day. `models` are OpenAI's that the gateway's name stands for."""

    day: date
    model: str
    models: tuple[str, ...]
    gateway: Counted
    openai: AtOpenAI
    reasons: tuple[str, ...] = field(default=())

    @property
    def openai_cost(self) -> Decimal | None:
        """The bill, or where it does not name the model the estimate."""
        return self.openai.estimate if self.openai.billed is None else self.openai.billed

    @property
    def differs(self) -> bool:
        """Whether tokens or money differ."""
        return self.gateway.tokens != self.openai.tokens or self.money_differs

    @property
    def money_differs(self) -> bool:
        """Whether both tell a cost, and not the same."""
        ours = self.openai_cost
        theirs = self.gateway.cost
        return ours is not None and theirs is not None and abs(ours - theirs) > SAME_MONEY


def compare(
    gateway: Mapping[tuple[date, str], Counted],
    openai: Mapping[tuple[date, str], AtOpenAI],
    *,
    settled_until: date,
) -> list[Comparison]:
    """Return a line for each day and model that either knows, in their order.

    A name without a date (`gpt-4o`, `openai/gpt-4o`) stands for the dated models of that day that
    the gateway does not name itself. Days from `settled_until` on may still change.
    """
    lines = []
    tells_money = any(counted.cost is not None for counted in gateway.values())
    # What a gateway that tells money does not name cost nothing there.
    nothing = Counted(0, Decimal(0) if tells_money else None)
    for day in sorted({day for day, _ in (*gateway, *openai)}):
        named = _plain(day, gateway)
        used = {model: found for (of, model), found in openai.items() if of == day}
        for model, models in _matched(named, used).items():
            at_openai = AtOpenAI()
            for name in models:
                at_openai.add(used[name])
            counted = named.get(model, nothing)
            line = Comparison(day, model, models, counted, at_openai)
            reasons = tuple(_reasons(line, is_settled=day < settled_until))
            lines.append(Comparison(day, model, models, counted, at_openai, reasons))
    return lines


def _plain(day: date, gateway: Mapping[tuple[date, str], Counted]) -> dict[str, Counted]:
    """Return what the gateway counted on a day, by model without the prefix of the provider."""
    named: dict[str, Counted] = {}
    for (of, model), counted in gateway.items():
        if of == day:
            name = model.removeprefix(_PREFIX)
            named.setdefault(name, Counted()).add(counted.tokens, counted.cost)
    return named


def _matched(
    named: Mapping[str, Counted], used: Mapping[str, AtOpenAI]
) -> dict[str, tuple[str, ...]]:
    """Return the models of OpenAI by the name of the gateway; each is in one line only."""
    found: dict[str, tuple[str, ...]] = {}
    taken: set[str] = set()
    for name in sorted(named):
        if name in used:
            found[name] = (name,)
            taken.add(name)
    # The longest names first: gpt-4o-mini is not a dated gpt-4o.
    for name in sorted(named.keys() - found.keys(), key=len, reverse=True):
        dated = tuple(sorted(one for one in used if one not in taken and is_dated(one, name)))
        found[name] = dated
        taken.update(dated)
    for name in used:
        if name not in taken:
            found[name] = (name,)
    return dict(sorted(found.items()))


def _reasons(line: Comparison, *, is_settled: bool) -> Iterable[str]:
    if not line.differs:
        return
    if not is_settled:
        yield UNSETTLED
    if not line.models:
        yield OTHER
        return
    if not line.openai.is_used:
        yield BILLED_WITHOUT_USAGE
    if not (line.gateway.tokens or line.gateway.cost):
        yield AROUND
    elif line.gateway.tokens == line.openai.tokens:
        yield OTHER_PRICE
    elif line.gateway.tokens < line.openai.tokens:
        yield MORE_AT_OPENAI
    else:
        yield MORE_AT_GATEWAY
    if line.openai.billed is None:
        yield NO_BILL


def _sum(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other
