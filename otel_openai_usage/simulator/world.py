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
from otel_openai_usage.simulator.traffic import Flow, Traffic, measures, plus
from otel_openai_usage.simulator.workloads import Stream, streams

Reading: TypeAlias = tuple[int, list[tuple[Dims, Flow]]]
"""A bucket's start and its rows, in which one key may stand twice."""
CostReading: TypeAlias = tuple[int, list[CostRow]]

_NO_FILTERS: Filters = {}


@dataclass(frozen=True)
class _View:
    """The streams that a question is about, each with the dimensions it is reported under."""

    endpoint: Endpoint
    grouped: tuple[bool, ...]
    """Whether the question groups by a dimension, in the order of `Dims`."""
    members: tuple[tuple[Stream, Dims], ...]


def _shown(dims: Dims, grouped: tuple[bool, ...]) -> Dims:
    """`dims` with null for those not grouped by, as in OpenAI's rows."""
    return tuple(value if is_in else None for value, is_in in zip(dims, grouped, strict=True))


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
        smallest = min(projects, keys, users, 1 if models is None else models)
        if smallest < 1 or activity < 0:
            raise ValueError(
                "a world has at least one project, key, user and model, and no negative activity"
            )
        self.seed = seed
        self.company = found(seed, projects, keys, users)
        self.streams = streams(self.company, seed, models, activity)
        self.traffic = Traffic(self.streams)
        self._costs = Costs(seed, self.streams, self.traffic)
        self.lateness = lateness
        # 80 hours for each stream: more than the 48 hours that the latest usage takes to settle.
        luck_size = max(1000, len(self.streams) * 80)
        self._luck = lru_cache(luck_size)(self._draw_luck)
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
        used = self._truth(view, _minute(window.start), _minute_after(window.end))
        return _trimmed(view, used)

    def cost_totals(
        self, window: Window, group_by: Sequence[str] = (), filters: Filters = _NO_FILTERS
    ) -> dict[Dims, Amounts]:
        """What the UTC days that a window touches really cost: (cost in US dollars, quantity)."""
        sums: dict[Dims, Amounts] = {}
        for day in _days(window):
            rows = self._costs.day(day, day // 60 + 1440, group_by, filters)
            for dims, (cost, quantity) in summed(rows).items():
                cost_before, quantity_before = sums.get(dims, (Decimal(0), Decimal(0)))
                sums[dims] = (cost_before + cost, quantity_before + quantity)
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
            days = self.cost_readings(window, group_by, now, filters)
            return {start: summed(rows) for start, rows in days}
        view = self._view(endpoint, group_by, filters)
        buckets = self.readings(endpoint, window, width, group_by, now, filters)
        return {start: _trimmed(view, _summed(rows)) for start, rows in buckets}

    def readings(
        self,
        endpoint: str,
        window: Window,
        width: Width,
        group_by: Sequence[str],
        now: datetime,
        filters: Filters = _NO_FILTERS,
    ) -> list[Reading]:
        """As `visible`, but as the API says it: rows of one key may come as two, and are flows."""
        view = self._view(endpoint, group_by, filters)
        time = now.timestamp()
        found: dict[int, dict[Dims, Flow]] = {start: {} for start in _starts(window, width)}
        first = _minute(window.start)
        last = _minute_after(window.end)
        settled = int(time - self._delays.settles) // 60
        final = min(max(settled, first), last)
        if view.endpoint.level:
            self._show_levels(view, window, width, time, found)
        elif width is Width.MINUTE:
            self._show_minutes(view, first, last, final, time, width, found)
        else:
            # The settled part of a bucket is one difference of running totals; only the minutes
            # that can still change have to be read one by one.
            for start in found:
                until = min(floor(start, width) + width, final * 60)
                if until > start:
                    found[start] = self._truth(view, _minute(start), until // 60)
            self._show_minutes(view, final, last, final, time, width, found)
        name = view.endpoint.name
        return [(start, self._split(name, start, rows)) for start, rows in found.items()]

    def cost_readings(
        self, window: Window, group_by: Sequence[str], now: datetime, filters: Filters = _NO_FILTERS
    ) -> list[CostReading]:
        """What the costs endpoint shows at `now` of each UTC day that a window touches."""
        time = now.timestamp()
        late = self.lateness
        known = int(time - late.costs_delay.total_seconds()) // 60
        corrected_after = late.restated_after[1].total_seconds()
        found = []
        for day in _days(window):
            end = day + Width.DAY
            is_corrected = time >= end + corrected_after
            excess = 0.0 if is_corrected else late.costs_restated
            rows = self._costs.day(day, min(known, end // 60), group_by, filters, excess)
            found.append((day, rows))
        return found

    def spent(self, project_id: str | None, now: datetime) -> Decimal:
        """What the organization, or one of its projects, has visibly spent in the UTC month of
        `now`.
        """
        first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        window = Window(int(first.timestamp()), int(now.timestamp()) + 1)
        filters = {"project_id": (project_id,)} if project_id else _NO_FILTERS
        spent = Decimal(0)
        for _, rows in self.cost_readings(window, (), now, filters):
            for row in rows:
                spent += row.cost
        return spent

    # --- inside

    def _view(self, endpoint: str, group_by: Sequence[str], filters: Filters) -> _View:
        # The cache of views needs a hashable key, and one order for equal filters.
        wanted = sorted((name, tuple(values)) for name, values in filters.items())
        return self._views(endpoint, tuple(group_by), tuple(wanted))

    def _build_view(
        self, name: str, group_by: tuple[str, ...], filters: tuple[tuple[str, tuple[str, ...]], ...]
    ) -> _View:
        endpoint = ENDPOINTS[name]
        unknown = [dimension for dimension in group_by if dimension not in endpoint.group_by]
        if unknown:
            raise ValueError(f"{name} cannot be grouped by {', '.join(unknown)}")
        wanted = [(endpoint.dimensions.index(dimension), values) for dimension, values in filters]
        grouped = tuple(dimension in group_by for dimension in endpoint.dimensions)
        members = []
        for stream in self.streams:
            if stream.work.endpoint != name:
                continue
            if all(stream.dims[place] in values for place, values in wanted):
                members.append((stream, _shown(stream.dims, grouped)))
        return _View(endpoint, grouped, tuple(members))

    def _truth(self, view: _View, first: int, last: int) -> dict[Dims, Flow]:
        sums: dict[Dims, Flow] = {}
        for stream, dims in view.members:
            if view.endpoint.level:
                _add(sums, dims, (self.traffic.level(stream, last - 1),))
                continue
            used = self.traffic.between(stream, first, last)
            if used is not None:
                _add(sums, dims, used)
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
        """Add the minutes from `first` up to `last` to the buckets in `found`; those before `final`
        are settled.
        """
        # OpenAI reports nothing of a minute that has not ended.
        last = min(last, int(time // 60))
        # The first bucket begins inside its width where the question does.
        origin = min(found, default=0)
        hour_after = -(-last // 60)
        for stream, dims in view.members:
            for hour in range(first // 60, hour_after):
                flows = self.traffic.hour(stream.index, hour)
                # A settled hour shows the truth, so its chance need not be drawn.
                is_settled = (hour + 1) * 60 <= final
                luck = b"" if is_settled else self._luck(stream.index, hour)
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
                    start = max(floor(minute * 60, width), origin)
                    _add(found[start], at, seen)

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
        if part.num != part.den:
            return dims, tuple(amount * part.num // part.den for amount in flow)
        if part.fate is Fate.PLAIN:
            return dims, flow
        elsewhere = self._elsewhere(view, stream, part.fate, minute)
        return _shown(elsewhere, view.grouped), flow

    def _elsewhere(self, view: _View, stream: Stream, fate: Fate, minute: int) -> Dims:
        """Where a minute that is not yet put to the right key stands."""
        names = view.endpoint.dimensions
        others = [other for other, _ in view.members if other is not stream]
        elsewhere: Dims = (None,) * len(names)
        lost = {"api_key_id", "user_id"}
        # With no other stream to move to, the usage is shown without a key instead.
        if others and fate is Fate.MOVED:
            place = spread(len(others), stream.seed, "moved", minute)
            elsewhere = others[place].dims
            # A key belongs to one project, so the project moves with it.
            lost.add("project_id")
        dims = []
        for name, own, other in zip(names, stream.dims, elsewhere, strict=True):
            dims.append(other if name in lost else own)
        return tuple(dims)

    def _show_levels(
        self,
        view: _View,
        window: Window,
        width: Width,
        time: float,
        found: dict[int, dict[Dims, Flow]],
    ) -> None:
        # A level is no sum of minutes: it has no part that could come later, only a delay.
        delay = self.lateness.delay[1].total_seconds()
        known = int(time - delay) // 60
        for start, rows in found.items():
            end = min(floor(start, width) + width, window.end)
            last = min(_minute_after(end), known)
            first = _minute(start)
            if last > first:
                rows.update(self._truth(view, first, last))

    def _split(self, endpoint: str, start: int, rows: dict[Dims, Flow]) -> list[tuple[Dims, Flow]]:
        share = round(self.lateness.split * 1024)
        if not share:
            return list(rows.items())
        found = []
        for dims, flow in rows.items():
            part = tuple(amount // 3 for amount in flow)
            is_split = any(part) and spread(1024, self.seed, endpoint, start, dims) < share
            if not is_split:
                found.append((dims, flow))
                continue
            rest = tuple(map(sub, flow, part))
            found.append((dims, part))
            found.append((dims, rest))
        return found

    def _draw_luck(self, index: int, hour: int) -> bytes:
        stream = self.streams[index]
        return self._delays.luck(stream.seed, hour)


def _minute(unix: int) -> int:
    return unix // 60


def _minute_after(unix: int) -> int:
    """The first minute that begins at `unix` or later."""
    return -(-unix // 60)


def _days(window: Window) -> range:
    """The starts of the UTC days that a window touches."""
    return range(floor(window.start, Width.DAY), window.end, Width.DAY)


def _add(rows: dict[Dims, Flow], dims: Dims, flow: Flow) -> None:
    if dims in rows:
        flow = plus(rows[dims], flow)
    rows[dims] = flow


def _starts(window: Window, width: Width) -> list[int]:
    """Bucket starts: the window's own, floored to the minute, then the edges of the width."""
    first = floor(window.start, 60)
    edge = floor(first, width) + width
    return [first, *range(edge, window.end, width)]


def _summed(rows: list[tuple[Dims, Flow]]) -> dict[Dims, Flow]:
    sums: dict[Dims, Flow] = {}
    for dims, flow in rows:
        _add(sums, dims, flow)
    return sums


def _trimmed(view: _View, rows: dict[Dims, Flow]) -> dict[Dims, Amounts]:
    name = view.endpoint.name
    return {dims: measures(name, flow) for dims, flow in rows.items()}
