"""What applications tell of single responses: the kind, the event, and what a batch of events
changes. Decides; touches nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

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
)
"""Single responses. No kind of OpenAI's: nothing polls it, so it is not among `KINDS`."""


def metered(attributes: Iterable[str]) -> Endpoint:
    """The kind, with the attributes that are taken from the events' data."""
    return replace(METERED, free=tuple(attributes))


class Event(NamedTuple):
    """One response's usage.

    `identity` stands for (source, id), `content` for all that is counted of it; `time` in Unix
    seconds, None where the event does not say. `dims` and `amounts` are in the kind's order.
    """

    identity: bytes
    content: bytes
    time: int | None
    dims: Dims
    amounts: Amounts
    organization: str | None = None


@dataclass(frozen=True, slots=True)
class EventCommit:
    """What events change in one source: the amounts that they add to hours (by start and
    dimensions), the series that they create and those that they update.
    """

    source_state: SourceState
    hours: Mapping[tuple[int, Dims], Amounts]
    created: Sequence[StoredSeries]
    updated: Sequence[StoredSeries]


@dataclass(slots=True)
class Deduplicated:
    """What of a batch is new, and what was known: with the same content, or with another."""

    fresh: list[Event] = field(default_factory=list)
    duplicates: int = 0
    conflicts: int = 0


def deduplicate(events: Iterable[Event], known: Mapping[bytes, bytes]) -> Deduplicated:
    """Part new events from known ones. `known` has the content of every identity that was booked
    before.
    """
    found = Deduplicated()
    seen = dict(known)
    for event in events:
        content = seen.get(event.identity)
        if content is None:
            seen[event.identity] = event.content
            found.fresh.append(event)
        elif content == event.content:
            found.duplicates += 1
        else:
            found.conflicts += 1
    return found


def hours(events: Iterable[Event], now: int) -> dict[tuple[int, Dims], Amounts]:
    """What events add to the hours that they happened in: none later than now, whatever a clock
    elsewhere says.
    """
    found: dict[tuple[int, Dims], list[Amounts]] = {}
    for event in events:
        found.setdefault(
            (floor(now if event.time is None else min(event.time, now), Width.HOUR), event.dims), []
        ).append(event.amounts)
    return {key: tuple(map(sum, zip(*amounts, strict=True))) for key, amounts in found.items()}


def change(added: Mapping[tuple[int, Dims], Amounts]) -> Change:
    """How the totals move. Every event counts, however late: its like was never counted before."""
    moved = Change()
    for (_, dims), amounts in added.items():
        before = moved.growth.get(dims)
        moved.growth[dims] = amounts if before is None else total(before, amounts)
    return moved


def by_organization(
    events: Sequence[Event], default: str, known: Callable[[str], bool]
) -> dict[str, list[Event]]:
    """Events by whose usage they are: the organization that they name, if it is a known one, else
    the default.
    """
    found: dict[str, list[Event]] = {}
    for event in events:
        name = event.organization
        found.setdefault(name if name is not None and known(name) else default, []).append(event)
    return found


class Share(NamedTuple):
    """Tokens of one day: what OpenAI says an organization used of a model, and what events explain
    of it.
    """

    organization: str
    model: str | None
    token_type: str
    used: int
    explained: int
