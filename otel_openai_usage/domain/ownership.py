"""Which replica owns what, when several share one state. Pure: no I/O, no clock.

A scope (an organization, the legacy source) has a lease: a row with its owner and a token that only
grows. A replica renews all its leases at once, by a row of its own whose count it raises (a beat).
Another replica takes a scope over only after it has itself seen the owner's count unchanged for the
length of the lease, by its own clock: no clock of another machine is compared. It then deletes the
row of that replica, whose next beat fails, so that it drops everything. An owner counts the same
length from before its last beat, so it stops first.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from otel_openai_usage.domain.endpoints import LEGACY, Endpoint

MARGIN = 0.05
"""Part of a lease that its owner does not use: two clocks may run at slightly different rates."""
STUCK_AFTER = 2.0
"""After so many lengths of a lease a free scope may be taken beyond the fair share: whoever should
take it does not.
"""


LEGACY_SCOPE = "legacy"
"""The legacy source, whichever organization it reads."""
BUDGETS_SCOPE = "budgets"
"""The budgets that may be about several organizations."""
NOBODYS = ""
"""What any replica may write."""


def organization_scope(organization: str) -> str:
    """The scope of everything that is read of an organization."""
    return f"organization {organization}"


def scope_of(organization: str, endpoint: Endpoint) -> str:
    """The scope to which a source belongs."""
    if endpoint.name == LEGACY.name:
        return LEGACY_SCOPE
    return organization_scope(organization)


@dataclass(frozen=True, slots=True)
class Lease:
    """The row of one scope. `owner` is empty if nobody has it."""

    scope: str
    owner: str
    token: int


@dataclass(frozen=True, slots=True)
class Beat:
    """A replica that may own scopes, and how often it has said that it lives."""

    replica: str
    beats: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease to take, as it was seen. `dead` is its owner's last beat, None if it has none."""

    lease: Lease
    dead: Beat | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a replica should do now: take these leases, give these scopes away."""

    claim: Sequence[Claim] = ()
    release: Sequence[str] = ()


_Row = TypeVar("_Row")


@dataclass(slots=True)
class _Seen(Generic[_Row]):
    """A row as it was last seen to change, and when that was, by one's own clock."""

    row: _Row
    since: float


@dataclass(slots=True)
class Observer:
    """What one replica has itself seen of the rows. `seconds` is the length of a lease.

    `clock` is in seconds, of a clock that never steps and goes on while the machine sleeps.
    """

    seconds: float
    _leases: dict[str, _Seen[Lease]] = field(default_factory=dict)
    _beats: dict[str, _Seen[Beat]] = field(default_factory=dict)

    def saw(self, leases: Iterable[Lease], beats: Iterable[Beat], clock: float) -> None:
        """Note all rows as they were read. `clock` is from after they were read: the owner may have
        renewed a row until then.
        """
        _note(self._leases, {lease.scope: lease for lease in leases}, clock)
        _note(self._beats, {beat.replica: beat for beat in beats}, clock)

    def claim(self, lease: Lease, clock: float) -> Claim | None:
        """How the lease can be taken; None while its owner may be alive."""
        seen = self._beats.get(lease.owner)
        if not lease.owner or seen is None:
            return Claim(lease)
        if clock - seen.since < self.seconds:
            return None
        return Claim(lease, seen.row)

    def unchanged_for(self, lease: Lease, clock: float) -> float:
        """Seconds for which the row was seen exactly like this."""
        seen = self._leases.get(lease.scope)
        return clock - seen.since if seen is not None and seen.row == lease else 0.0

    def live(self, clock: float) -> set[str]:
        """The replicas that were seen to live within the length of a lease."""
        return {
            replica for replica, seen in self._beats.items() if clock - seen.since < self.seconds
        }


def _note(known: dict[str, _Seen[_Row]], rows: Mapping[str, _Row], clock: float) -> None:
    for key in known.keys() - rows.keys():
        del known[key]
    for key, row in rows.items():
        seen = known.get(key)
        if seen is None or seen.row != row:
            known[key] = _Seen(row, clock)


def valid_until(asked: float, seconds: float) -> float:
    """Until when an owner may show and send, if its last beat was asked for at `asked`."""
    return asked + seconds * (1 - MARGIN)


def plan(
    me: str, scopes: Collection[str], leases: Iterable[Lease], observer: Observer, clock: float
) -> Plan:
    """What replica `me` should do so that the scopes are shared out evenly among the live replicas.

    All replicas come to the same shares from the same rows. A replica gives away what is beyond its
    share, and takes what is free up to it.
    """
    by_scope = {lease.scope: lease for lease in leases if lease.scope in scopes}
    live = observer.live(clock) | {me}
    owned: dict[str, list[str]] = {replica: [] for replica in live}
    claimable: list[Claim] = []
    for scope in sorted(scopes):
        lease = by_scope.get(scope, Lease(scope, "", 0))
        claim = None if lease.owner == me else observer.claim(lease, clock)
        if claim is not None:
            claimable.append(claim)
        elif lease.owner in owned:
            owned[lease.owner].append(scope)
    share = _shares({replica: len(names) for replica, names in owned.items()}, len(scopes))[me]
    mine = owned[me]
    if len(mine) > share:
        return Plan(release=tuple(mine[share:]))
    free = share - len(mine)
    stuck = [
        claim
        for claim in claimable[free:]
        if observer.unchanged_for(claim.lease, clock) >= observer.seconds * (1 + STUCK_AFTER)
    ]
    return Plan(claim=(*claimable[:free], *stuck))


def _shares(owned: Mapping[str, int], total: int) -> dict[str, int]:
    """How many scopes each replica should have. Who has more already keeps the odd ones."""
    order = sorted(owned, key=lambda replica: (-owned[replica], replica))
    share = total // len(order)
    odd = total % len(order)
    return {replica: share + (place < odd) for place, replica in enumerate(order)}


def tick(seconds: float) -> float:
    """Seconds between two looks at the rows: a hand-over is seen within a second."""
    return min(1.0, math.ceil(seconds * 100 / 8) / 100)
