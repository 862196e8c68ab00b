"""The simulated organization: what it used, and what OpenAI shows of that by a given time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from operator import sub
from typing import Self, TypeAlias

from otel_openai_usage.domain.endpoints import COSTS, ENDPOINTS, Endpoint
from otel_openai_usage.domain.model import Amounts, Dims, Rows, Width, Window, floor
from otel_openai_usage.simulator.chance import spread
from otel_openai_usage.simulator.company import found
from otel_openai_usage.simulator.costs import CostRow, Costs, Filters, summed
from otel_openai_usage.simulator.lateness import DEMO, Delays, Fate, Lateness
from otel_openai_usage.simulator.traffic import WIDE, Flow, Traffic, plus
from otel_openai_usage.simulator.workloads import Stream, streams

Reading: TypeAlias = tuple[int, list[tuple[Dims, Flow]]]
"""A bucket's start and its rows, in which one key may stand twice."""
CostReading: TypeAlias = tuple[int, list[CostRow]]

_NO_FILTERS: Filters = {}


@dataclass(frozen=True)
class _View:
    """The streams that a question is about, each with the dimensions it is reported under."""

    endpoint: Endpoint
    kept: tuple[bool, ...]
    members: tuple[tuple[Stream, Dims], ...]

    def shown(self, dims: Dims) -> Dims:
        """`dims` with those not grouped by left out."""
        return tuple(value if keep else None for value, keep in zip(dims, self.kept, strict=True))


class World:
    """A company and its usage, a pure function of the seed and the minute.

    `projects`, `keys`, `users` and `models` (of chats; None: those of the price table) make it
    small or big, `activity` scales its requests. `lateness` is what is visible when, and may be
    exchanged at any time. The start of a window is floored to the minute and its end raised. Safe
    to ask in any order; keeps only a bounded part of what it worked out.
    """

    def __init__(
        self,
        seed: int = 1,
        *,
        projects: int = 5,
        keys: int = 12,
        users: int = 10,
        models: int | None = None,
        activity: float = 1.0,
        lateness: Lateness = DEMO,
    ) -> None:
        if min(projects, keys, users) < 1 or (models is not None and models < 1) or activity < 0:
            raise ValueError(
                "a world has at least one project, key, user and model, and no negative activity"
            )
        self.seed = seed
        self.company = found(seed, projects, keys, users)
        self.streams = streams(self.company, seed, models, activity)
        self.traffic = Traffic(self.streams)
        self._costs = Costs(seed, self.streams, self.traffic)
        self.lateness = lateness
        self._luck = lru_cache(max(1000, len(self.streams) * 80))(self._draw_luck)
        self._views = lru_cache(256)(self._build_view)

    @classmethod
    def tiny(cls, seed: int = 1, *, lateness: Lateness = DEMO, activity: float = 1.0) -> Self:
        """Two projects, two keys and two users that still use every endpoint."""
        return cls(
            seed, projects=2, keys=2, users=2, models=4, activity=activity, lateness=lateness
        )

    @property
    def lateness(self) -> Lateness:
        """What is visible when."""
        return self._delays.lateness

    @lateness.setter
    def lateness(self, lateness: Lateness) -> None:
        self._delays = Delays(lateness)

    @property
    def settles_after(self) -> timedelta:
        """So long after a bucket's end what is visible of it is the truth."""
        return self.lateness.settles_after

    # --- the truth

    def totals(
        self,
        endpoint: str,
        window: Window,
        group_by: Sequence[str] = (),
        filters: Filters = _NO_FILTERS,
    ) -> dict[Dims, Amounts]:
        """What was really used in a window, by the dimensions grouped by; of a level, its value in
        the last minute.
        """
        if endpoint == COSTS.name:
            return self.cost_totals(window, group_by, filters)
        view = self._view(endpoint, group_by, filters)
        return _trimmed(view, self._truth(view, _minute(window.start), -(-window.end // 60)))

    def cost_totals(
        self, window: Window, group_by: Sequence[str] = (), filters: Filters = _NO_FILTERS
    ) -> dict[Dims, Amounts]:
        """What the UTC days that a window touches really cost: (cost in US dollars, quantity)."""
        sums: dict[Dims, Amounts] = {}
        for day in range(floor(window.start, Width.DAY), window.end, Width.DAY):
            for dims, (cost, quantity) in summed(
                self._costs.day(day, day // 60 + 1440, group_by, filters)
            ).items():
                before = sums.get(dims, (Decimal(0), Decimal(0)))
                sums[dims] = (before[0] + cost, before[1] + quantity)
        return sums

    # --- what is visible

    def visible(
        self,
        endpoint: str,
        window: Window,
        width: Width,
        group_by: Sequence[str],
        now: datetime,
        filters: Filters = _NO_FILTERS,
    ) -> dict[int, Rows]:
        """What the API shows of a window at `now`, by bucket start; rows of one key are summed.
        Buckets without rows are there, empty.
        """
        if endpoint == COSTS.name:
            return {
                start: summed(rows)
                for start, rows in self.cost_readings(window, group_by, now, filters)
            }
        view = self._view(endpoint, group_by, filters)
        return {
            start: _trimmed(view, _summed(rows))
            for start, rows in self.readings(endpoint, window, width, group_by, now, filters)
        }

    def readings(
        self,
        endpoint: str,
        window: Window,
        width: Width,
        group_by: Sequence[str],
        now: datetime,
        filters: Filters = _NO_FILTERS,
    ) -> list[Reading]:
        """As `visible`, but as the API says it: rows of one key may come as two, and token rows
        have image tokens after the measures.
        """
        view = self._view(endpoint, group_by, filters)
        time = now.timestamp()
        found: dict[int, dict[Dims, Flow]] = {start: {} for start in _starts(window, width)}
        final = min(
            max(int(time - self._delays.settles) // 60, _minute(window.start)), -(-window.end // 60)
        )
        if view.endpoint.level:
            self._show_levels(view, window, width, time, found)
        elif width is Width.MINUTE:
            self._show_minutes(
                view, _minute(window.start), -(-window.end // 60), final, time, width, found
            )
        else:
            # The settled part is had in one piece; only what is still moving is looked at minute by
            # minute.
            for start in found:
                until = min(floor(start, width) + width, floor(final * 60, 60))
                if until > start:
                    found[start] = self._truth(view, _minute(start), until // 60)
            self._show_minutes(view, final, -(-window.end // 60), final, time, width, found)
        return [
            (start, self._split(view.endpoint.name, start, rows)) for start, rows in found.items()
        ]

    def cost_readings(
        self, window: Window, group_by: Sequence[str], now: datetime, filters: Filters = _NO_FILTERS
    ) -> list[CostReading]:
        """What the costs endpoint shows at `now` of each UTC day that a window touches."""
        time = now.timestamp()
        late = self.lateness
        known = int(time - late.costs_delay.total_seconds()) // 60

        def excess(day: int) -> float:
            return (
                late.costs_restated
                if time < day + Width.DAY + late.restated_after[1].total_seconds()
                else 0.0
            )

        return [
            (
                day,
                self._costs.day(day, min(known, day // 60 + 1440), group_by, filters, excess(day)),
            )
            for day in range(floor(window.start, Width.DAY), window.end, Width.DAY)
        ]

    def spent(self, project_id: str | None, now: datetime) -> Decimal:
        """What the organization, or one of its projects, has visibly spent in the UTC month of
        `now`.
        """
        first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        window = Window(int(first.timestamp()), int(now.timestamp()) + 1)
        filters = {"project_id": (project_id,)} if project_id else _NO_FILTERS
        return sum(
            (row.cost for _, rows in self.cost_readings(window, (), now, filters) for row in rows),
            Decimal(0),
        )

    # --- inside

    def _view(self, endpoint: str, group_by: Sequence[str], filters: Filters) -> _View:
        return self._views(
            endpoint,
            tuple(group_by),
            tuple(sorted((name, tuple(values)) for name, values in filters.items())),
        )

    def _build_view(
        self, name: str, group_by: tuple[str, ...], filters: tuple[tuple[str, tuple[str, ...]], ...]
    ) -> _View:
        endpoint = ENDPOINTS[name]
        if strangers := [dimension for dimension in group_by if dimension not in endpoint.group_by]:
            raise ValueError(f"{name} cannot be grouped by {', '.join(strangers)}")
        wanted = [(endpoint.dimensions.index(dimension), values) for dimension, values in filters]
        shell = _View(
            endpoint, tuple(dimension in group_by for dimension in endpoint.dimensions), ()
        )
        members = (stream for stream in self.streams if stream.work.endpoint == name)
        chosen = (
            stream
            for stream in members
            if all(stream.dims[place] in values for place, values in wanted)
        )
        return _View(
            endpoint, shell.kept, tuple((stream, shell.shown(stream.dims)) for stream in chosen)
        )

    def _truth(self, view: _View, first: int, last: int) -> dict[Dims, Flow]:
        sums: dict[Dims, Flow] = {}
        for stream, dims in view.members:
            used = (
                (self.traffic.level(stream, last - 1),)
                if view.endpoint.level
                else self.traffic.between(stream, first, last)
            )
            if used:
                sums[dims] = plus(sums[dims], used) if dims in sums else used
        return sums

    def _show_minutes(
        self,
        view: _View,
        first: int,
        last: int,
        final: int,
        time: float,
        width: Width,
        found: dict[int, dict[Dims, Flow]],
    ) -> None:
        last = min(last, int(time // 60))  # nothing is known of a minute that has not ended
        origin = min(found, default=0)
        for stream, dims in view.members:
            for hour in range(first // 60, -(-last // 60)):
                flows = self.traffic.hour(stream.index, hour)
                luck = self._luck(stream.index, hour) if (hour + 1) * 60 > final else b""
                for minute in range(max(first, hour * 60), min(last, hour * 60 + 60)):
                    flow = flows[minute - hour * 60]
                    if flow is None:
                        continue
                    at = dims
                    seen = flow
                    if minute >= final:
                        at, seen = self._seen(view, stream, dims, flow, luck, minute, time)
                        if not any(seen):
                            continue
                    rows = found[max(floor(minute * 60, width), origin)]
                    rows[at] = plus(rows[at], seen) if at in rows else seen

    def _seen(
        self,
        view: _View,
        stream: Stream,
        dims: Dims,
        flow: Flow,
        luck: bytes,
        minute: int,
        time: float,
    ) -> tuple[Dims, Flow]:
        part = self._delays.part(luck, minute % 60, time - minute * 60 - 60)
        if part.num == part.den:
            return (
                dims
                if part.fate is Fate.PLAIN
                else view.shown(self._elsewhere(view, stream, part.fate, minute))
            ), flow
        return dims, tuple(amount * part.num // part.den for amount in flow)

    def _elsewhere(self, view: _View, stream: Stream, fate: Fate, minute: int) -> Dims:
        """Where a minute that is not yet put to the right key stands."""
        names = view.endpoint.dimensions
        others = [other for other, _ in view.members if other is not stream]
        stranger = (
            others[spread(len(others), stream.seed, "moved", minute)]
            if others and fate is Fate.MOVED
            else None
        )
        lost = (
            {"api_key_id", "user_id"}
            if fate is Fate.NAMELESS or stranger is None
            else {"api_key_id", "user_id", "project_id"}
        )
        elsewhere = stranger.dims if stranger else (None,) * len(names)
        return tuple(
            elsewhere[place] if name in lost else stream.dims[place]
            for place, name in enumerate(names)
        )

    def _show_levels(
        self,
        view: _View,
        window: Window,
        width: Width,
        time: float,
        found: dict[int, dict[Dims, Flow]],
    ) -> None:
        known = int(time - self.lateness.delay[1].total_seconds()) // 60
        for start, rows in found.items():
            last = min(-(-min(floor(start, width) + width, window.end) // 60), known)
            if last > _minute(start):
                rows.update(self._truth(view, _minute(start), last))

    def _split(self, endpoint: str, start: int, rows: dict[Dims, Flow]) -> list[tuple[Dims, Flow]]:
        share = round(self.lateness.split * 1024)
        if not share:
            return list(rows.items())
        found = []
        for dims, flow in rows.items():
            part = tuple(amount // 3 for amount in flow)
            if any(part) and spread(1024, self.seed, endpoint, start, dims) < share:
                found += [(dims, part), (dims, tuple(map(sub, flow, part)))]
            else:
                found.append((dims, flow))
        return found

    def _draw_luck(self, index: int, hour: int) -> bytes:
        return self._delays.luck(self.streams[index].seed, hour)


def _minute(unix: int) -> int:
    return unix // 60


def _starts(window: Window, width: Width) -> list[int]:
    """Bucket starts: the window's own, floored to the minute, then the edges of the width."""
    first = floor(window.start, 60)
    return [first, *range(floor(first, width) + width, window.end, width)]


def _summed(rows: list[tuple[Dims, Flow]]) -> dict[Dims, Flow]:
    sums: dict[Dims, Flow] = {}
    for dims, flow in rows:
        sums[dims] = plus(sums[dims], flow) if dims in sums else flow
    return sums


def _trimmed(view: _View, rows: dict[Dims, Flow]) -> dict[Dims, Amounts]:
    extra = WIDE.get(view.endpoint.name, 0)
    return {dims: flow[: len(flow) - extra] for dims, flow in rows.items()}
