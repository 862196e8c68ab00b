"""The gauges that are small tables made anew: cost by day, spend limits, the state of each source."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal

from otel_openai_usage.domain.legacy_day import COUNTERS, LABELS, Shown
from otel_openai_usage.domain.metered import Share
from otel_openai_usage.domain.model import Limit, Names, Rows, Width, floor
from otel_openai_usage.domain.series_marks import Attributes
from otel_openai_usage.domain.snapshot import AttributeValue, Point, Series
from otel_openai_usage.domain.source_state import SourceState, StoredSeries
from otel_openai_usage.view.series import AttributePolicy, dimensions, named, unnamed


class Table:
    """The points of one gauge. What did not change stays the same object."""

    def __init__(self) -> None:
        self._series: dict[tuple[tuple[str, AttributeValue], ...], Series] = {}
        self._points: list[Point] = []
        self._start = 0

    def update(self, rows: Iterable[tuple[Attributes, int | float]], start: int = 0) -> list[Point]:
        """The points for these rows; the list of last time if they say the same. `start` in Unix
        nanoseconds, for counters.
        """
        known = self._series if start == self._start else {}
        self._series = {}
        self._start = start
        points = []
        for attributes, value in rows:
            key = tuple(sorted(attributes.items()))
            series = self._series[key] = known.get(key) or Series(attributes, start)
            points.append(Point(series, value))
        if [(point.series, point.value) for point in points] != [
            (point.series, point.value) for point in self._points
        ]:
            self._points = points
        return self._points


def waits(
    source_state: SourceState,
    stored_series: StoredSeries | None,
    names: Names,
    policy: AttributePolicy,
    now: float,
) -> bool:
    """Whether an attribute set that is new still waits for its name, as a counter's would."""
    return (
        stored_series is not None
        and 0
        <= now - stored_series.first_seen
        < policy.name_wait  # not for days after a clock was set back
        and unnamed(dimensions(source_state, stored_series), names)
    )


def daily_cost(
    source_state: SourceState,
    days: Mapping[int, Rows],
    names: Names,
    policy: AttributePolicy,
    organization_id: str | None,
    now: float,
) -> list[tuple[Attributes, int | float]]:
    """Cost of each of the days, rows that differ only in what is dropped added up."""
    found: dict[tuple[tuple[str, AttributeValue], ...], tuple[Attributes, Decimal]] = {}
    shown = ("project_id", "line_item", "currency")
    for day in sorted(days):
        for dims, amounts in days[day].items():
            if waits(source_state, source_state.series.get(dims), names, policy, now):
                continue
            raw: Attributes = {
                "organization": source_state.organization,
                "date": f"{datetime.fromtimestamp(day, UTC):%Y-%m-%d}",
            }
            raw |= {
                key: value
                for key, value in zip(source_state.endpoint.dimensions, dims, strict=True)
                if value is not None and key in shown
            }
            if organization_id:
                raw["organization_id"] = organization_id
            attributes = policy.attributes(named(raw, names))
            key = tuple(sorted(attributes.items()))
            before = found[key][1] if key in found else Decimal(0)
            found[key] = (attributes, before + amounts[0])
    return [(attributes, float(amount)) for attributes, amount in found.values()]


LEVEL_LASTS = Width.DAY
"""Seconds that a level is shown after its last bucket, measured by the newest bucket of its source:
OpenAI says nothing more of what was deleted.
"""


def levels(
    source_state: SourceState, names: Names, policy: AttributePolicy, now: float
) -> list[tuple[Attributes, int | float]]:
    """The newest value of each attribute set of a level; those that differ only in what is dropped
    are added up.
    """
    found: dict[tuple[tuple[str, AttributeValue], ...], tuple[Attributes, int]] = {}
    for stored_series in source_state.series.values():
        if stored_series.changed >= (source_state.newest_bucket or 0) - LEVEL_LASTS and not waits(
            source_state, stored_series, names, policy, now
        ):
            attributes = policy.attributes(
                named(
                    {
                        "organization": source_state.organization,
                        **dimensions(source_state, stored_series),
                    },
                    names,
                )
            )
            key = tuple(sorted(attributes.items()))
            found[key] = (
                attributes,
                int(stored_series.shown[0]) + (found[key][1] if key in found else 0),
            )
    return list(found.values())


def spend_limits(
    organization: str, limits: Iterable[Limit], names: Names, policy: AttributePolicy
) -> tuple[list[tuple[Attributes, int | float]], list[tuple[Attributes, int | float]]]:
    """Rows of spend_limit and of spend_limit_enforcing. Where dropping makes two alike, the
    organization's stays.
    """
    amounts: dict[tuple[tuple[str, AttributeValue], ...], tuple[Attributes, int | float]] = {}
    enforcing: dict[tuple[tuple[str, AttributeValue], ...], tuple[Attributes, int | float]] = {}
    for limit in sorted(limits, key=lambda limit: limit.project_id or ""):
        raw: Attributes = {"organization": organization}
        if limit.project_id:
            raw["project_id"] = limit.project_id
        raw = named(raw, names)
        attributes = policy.attributes({**raw, "currency": limit.currency})
        amounts.setdefault(tuple(sorted(attributes.items())), (attributes, float(limit.amount)))
        attributes = policy.attributes(raw)
        enforcing.setdefault(tuple(sorted(attributes.items())), (attributes, int(limit.enforcing)))
    return list(amounts.values()), list(enforcing.values())


def of_day(
    shown: Shown, policy: AttributePolicy
) -> dict[str, list[tuple[Attributes, int | float]]]:
    """Rows of the legacy counters, by instrument; those that differ only in what is dropped added
    up.
    """
    found: dict[tuple[tuple[str, AttributeValue], ...], tuple[Attributes, list[int]]] = {}
    for labels, sums in shown.sums.items():
        attributes = policy.attributes(
            {name: value for name, value in zip(LABELS, labels, strict=True) if value}
        )
        held = found.setdefault(tuple(sorted(attributes.items())), (attributes, [0, 0, 0]))[1]
        for index, amount in enumerate(sums):
            held[index] += amount
    return {
        name: [(attributes, sums[index]) for attributes, sums in found.values()]
        for index, name in enumerate(COUNTERS)
    }


def days_shown(now: int, days: int) -> range:
    """The starts of the last `days` UTC days, today's included."""
    today = floor(now, Width.DAY)
    return range(today - (days - 1) * Width.DAY, today + 1, Width.DAY)


UNMETERED = "openai.unmetered.tokens"


COVERAGE = "openai.metered.coverage"


def coverage(
    shares: Iterable[Share], policy: AttributePolicy
) -> dict[str, list[tuple[Attributes, int | float]]]:
    """Rows of the two gauges: used minus explained, and explained as a part of used (none where
    nothing was used).
    """
    found: dict[tuple[tuple[str, AttributeValue], ...], tuple[Attributes, int, int]] = {}
    for share in shares:
        raw: Attributes = {"organization": share.organization, "token_type": share.token_type}
        attributes = policy.attributes(
            raw if share.model is None else {**raw, "model": share.model}
        )
        key = tuple(sorted(attributes.items()))
        _, used, explained = found.get(key, (attributes, 0, 0))
        found[key] = (attributes, used + share.used, explained + share.explained)
    return {
        UNMETERED: [
            (attributes, used - explained) for attributes, used, explained in found.values()
        ],
        COVERAGE: [
            (attributes, explained / used) for attributes, used, explained in found.values() if used
        ],
    }
