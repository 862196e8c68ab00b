"""Usage of single responses, as applications report it in events. Pure: no I/O."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import NamedTuple, TypeAlias

from otel_openai_usage.domain.endpoints import Endpoint, Measure
from otel_openai_usage.domain.model import Amounts, Dims, Width, floor
from otel_openai_usage.domain.reconciliation import Change, total
from otel_openai_usage.domain.source_state import SourceState, StoredSeries

_TOKENS = "openai.metered.tokens"

METERED = Endpoint(
    name="metered",
    path="events",
    object="",
    measures=(
        Measure("input", "", _TOKENS, "input"),
        Measure("output", "", _TOKENS, "output"),
        Measure("input_cached", "", _TOKENS, "input_cached"),
        Measure("reasoning", "", _TOKENS, "reasoning"),
        Measure("requests", "", "openai.metered.requests"),
    ),
    group_by=("subject", "model", "type", "estimated"),
    widths=(Width.HOUR,),
    from_zero=True,
    polled=False,
)
"""Single responses, which applications report. Nothing polls them, so they are not in ENDPOINTS."""


def metered(attributes: Iterable[str]) -> Endpoint:
    """The endpoint with the attributes that are taken from the events' data."""
    return replace(METERED, free=tuple(attributes))


class PricedBy(NamedTuple):
    """What else the price of a response depends on.

    `parts` are tokens by the names of the measures of completions: parts of input and output.
    `tier` is OpenAI's `service_tier`.
    """

    parts: Mapping[str, int]
    tier: str | None = None
    batch: bool = False


class Event(NamedTuple):
    """The usage of one response.

    `identity` is a hash of the event's source and id, `content` one of all that is counted. `time`
    is in Unix seconds, None if the event has none. `dims` and `amounts` are in the order
    of the endpoint's row. `priced_by` is None if only the amounts and the model decide the price.
    """

    identity: bytes
    content: bytes
    time: int | None
    dims: Dims
    amounts: Amounts
    organization: str | None = None
    priced_by: PricedBy | None = None


HourKey: TypeAlias = tuple[int, Dims]
"""The start of an hour, and an attribute set."""


class AddedUsage(NamedTuple):
    """What events add to one source: amounts by hour, and costs by attribute set and UTC day."""

    hours: Mapping[HourKey, Amounts]
    costs: Mapping[tuple[Dims, int], Decimal]


class Queued(NamedTuple):
    """How many events of a batch were new, repeated, or repeated with other content."""

    accepted: int
    duplicates: int
    conflicts: int


@dataclass(frozen=True, slots=True)
class EventCommit:
    """What events change in one source: the amounts that they add to hours (by start and
    dimensions), the series that they create and those that they update, and what they cost (by
    dimensions and UTC day).
    """

    source_state: SourceState
    hours: Mapping[tuple[int, Dims], Amounts]
    created: Sequence[StoredSeries]
    updated: Sequence[StoredSeries]
    costs: Mapping[tuple[Dims, int], Decimal] = field(default_factory=dict)


@dataclass(slots=True)
class Deduplicated:
    """The new events of a batch, and how many had a known identity: `duplicates` with the same
    content, `conflicts` with other content.
    """

    fresh: list[Event] = field(default_factory=list)
    duplicates: int = 0
    conflicts: int = 0


def deduplicate(events: Iterable[Event], known: Mapping[bytes, bytes]) -> Deduplicated:
    """Separate new events from known ones. `known` has the content of known identities."""
    found = Deduplicated()
    seen = dict(known)
    for event in events:
        content = seen.get(event.identity)
        if content is None:
            # The batch itself may have the event twice.
            seen[event.identity] = event.content
            found.fresh.append(event)
        elif content == event.content:
            found.duplicates += 1
        else:
            found.conflicts += 1
    return found


def hours(events: Iterable[Event], now: int) -> dict[tuple[int, Dims], Amounts]:
    """The amounts of events by hour and dimensions.

    No event counts later than `now`, because the clock that wrote its time may be ahead.
    """
    found: dict[tuple[int, Dims], Amounts] = {}
    for event in events:
        time = now if event.time is None else min(event.time, now)
        key = (floor(time, Width.HOUR), event.dims)
        before = found.get(key)
        found[key] = event.amounts if before is None else total(before, event.amounts)
    return found


def change(added: Mapping[tuple[int, Dims], Amounts]) -> Change:
    """How the totals grow. An event counts however late it comes: it was never counted before."""
    change = Change()
    for (_, dims), amounts in added.items():
        before = change.growth.get(dims)
        change.growth[dims] = amounts if before is None else total(before, amounts)
    return change


def by_organization(
    events: Sequence[Event], default: str, known: Callable[[str], bool]
) -> dict[str, list[Event]]:
    """Events by organization: the one that an event names, if it is known, else the default."""
    found: dict[str, list[Event]] = {}
    for event in events:
        name = event.organization
        if name is None or not known(name):
            name = default
        found.setdefault(name, []).append(event)
    return found


class Share(NamedTuple):
    """Tokens of a model on one day: as OpenAI reports them, and as events explain them."""

    organization: str
    model: str | None
    token_type: str
    used: int
    explained: int
