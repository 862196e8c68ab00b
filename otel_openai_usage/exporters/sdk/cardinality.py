"""Folds series to the SDK's cardinality limit, before the SDK does it.

The SDK's own overflow point has no attributes, and for a gauge it has any one of the values. Ours
keeps what sums need.
"""

import logging
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Any, TypeAlias

from opentelemetry.metrics import MeterProvider
from opentelemetry.sdk import metrics as sdk

from otel_openai_usage.domain.instruments import Instrument
from otel_openai_usage.domain.snapshot import AttributeValue, Point, Series

log = logging.getLogger(__name__)

DEFAULT_LIMIT = 2000
"""Attribute sets of an instrument that the SDK keeps apart unless a reader or a View says other."""
OVERFLOW = "otel.metric.overflow"
"""The attribute that OpenTelemetry defines for an overflow series."""

_KEPT = ("organization", "operation", "token_type", "currency")
_SUMMABLE = (
    "openai.api.vector_store.usage",
    "openai.api.daily_cost",
    "openai.api.cost_month",
    "openai.api.cost_last_month",
    "otel_openai_usage.restated_pending",
)
"""Gauges whose series may be added up."""

_Key: TypeAlias = frozenset[tuple[str, AttributeValue]]


class LimitReader:
    """Tells how many attribute sets the readers of a MeterProvider keep apart.

    The SDK has no public way to ask. Where its private members are not what we know, `fallback`
    counts, which is logged once.
    """

    def __init__(self, meter_provider: MeterProvider, fallback: int | None) -> None:
        self._provider: Any = meter_provider
        self._fallback = fallback
        self._logged = False

    def limit(self, kind: str) -> int | None:
        """Return the lowest limit for counters or gauges; None if nobody reads."""
        if self._fallback is not None:
            return self._fallback
        if not isinstance(self._provider, sdk.MeterProvider):
            return DEFAULT_LIMIT
        instrument_class = sdk.ObservableCounter if kind == "counter" else sdk.ObservableGauge
        try:
            return min(self._limits(instrument_class), default=None)
        except (AttributeError, TypeError, ValueError) as error:
            if not self._logged:
                self._logged = True
                log.warning(
                    "the SDK does not tell its cardinality limits; series are folded to its default,"
                    " or to the argument cardinality_limit",
                    extra={
                        "event": "sdk_limits_unknown",
                        "limit": DEFAULT_LIMIT,
                        "error": repr(error),
                    },
                )
            return DEFAULT_LIMIT

    def _limits(self, instrument_class: type) -> Iterator[int]:
        consumer = self._provider._measurement_consumer
        for reader in list(consumer._reader_storages):
            of_reader = reader._instrument_class_cardinality_limit
            yield next(
                int(limit)
                for known, limit in of_reader.items()
                if issubclass(known, instrument_class)
            )
        for view in self._provider._sdk_config.views:
            of_view = view._aggregation_cardinality_limit
            if of_view is not None:
                yield int(of_view)


class CardinalityFold:
    """Folds the points of one instrument. Safe in any thread.

    The first series stay. A series that was folded once stays folded, so that no sum falls. The SDK
    never forgets an attribute set, so neither may we: series that are gone count, too. Gauges that
    can't be added are left out.
    """

    def __init__(self, row: Instrument, limits: LimitReader) -> None:
        self._name = row.name
        self._kind = row.kind
        self._is_summable = row.kind == "counter" or row.name in _SUMMABLE
        self._limits = limits
        self._lock = Lock()
        self._own: set[_Key] = set()
        """Attribute sets that stand for themselves."""
        self._overflow: dict[_Key, Series] = {}
        self._folded: set[_Key] = set()

    def points(self, points: Sequence[Point]) -> Sequence[Point]:
        """Return the points, at most as many attribute sets as the readers keep apart."""
        with self._lock:
            return self._points(points)

    def _points(self, points: Sequence[Point]) -> Sequence[Point]:
        limit = self._limits.limit(self._kind)
        if limit is None:
            return points
        reserve = self._reserve(points, limit)
        own = []
        sums: dict[_Key, int | float] = {}
        for point in points:
            key = frozenset(point.series.attributes.items())
            if self._stays(key, limit - reserve):
                own.append(point)
            elif self._is_summable:
                overflow_key = self._overflow_key(point, limit)
                sums[overflow_key] = sums.get(overflow_key, 0) + point.value
        return [*own, *(Point(self._overflow[key], value) for key, value in sums.items())]

    def _reserve(self, points: Sequence[Point], limit: int) -> int:
        """Return how many attribute sets are kept for overflow series.

        The SDK's own overflow point, which has no other attribute, is in addition to its limit.
        """
        if not self._is_summable or len(points) + len(self._own) < limit // 2:
            return 0
        needed = {_kept(point) for point in points}
        return min(len(needed), limit // 2)

    def _stays(self, key: _Key, room: int) -> bool:
        if key in self._own:
            return True
        if key not in self._folded and len(self._own) < room:
            self._own.add(key)
            return True
        if not self._folded:
            self._say_once(room)
        self._folded.add(key)
        return False

    def _overflow_key(self, point: Point, limit: int) -> _Key:
        key = _kept(point)
        if key not in self._overflow and len(self._own) + len(self._overflow) >= limit:
            # There is no room for another set: this one joins the SDK's own overflow point.
            key = frozenset()
        self._overflow.setdefault(key, Series({**dict(key), OVERFLOW: True}, point.series.start))
        return key

    def _say_once(self, room: int) -> None:
        how = "folded into series with otel.metric.overflow" if self._is_summable else "left out"
        log.warning(
            "the OpenTelemetry SDK keeps too few series apart, so some are %s; give its readers higher"
            " cardinality_limits",
            how,
            extra={"event": "sdk_cardinality_limit", "instrument": self._name, "kept": room},
        )


def _kept(point: Point) -> _Key:
    """Return the attributes of a point that its overflow series keeps."""
    attributes = point.series.attributes
    return frozenset((name, attributes[name]) for name in _KEPT if name in attributes)
