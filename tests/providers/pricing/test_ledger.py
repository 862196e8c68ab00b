import random
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest

from otel_openai_usage.domain.commits import Delta
from otel_openai_usage.domain.endpoints import ENDPOINTS, Endpoint
from otel_openai_usage.domain.model import NO_NAMES, Dims, Width, Window
from otel_openai_usage.domain.pricing import Rates, Reason, Unpriced
from otel_openai_usage.domain.readings import Bucket
from otel_openai_usage.domain.retention import Retention
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.domain.windows import Step
from otel_openai_usage.engine import maintenance, polling, recording
from otel_openai_usage.storage.sqlite.queries import open_queries
from otel_openai_usage.storage.sqlite.store import Store
from otel_openai_usage.view.attributes import AttributePolicy
from otel_openai_usage.view.snapshot_builder import SnapshotBuilder

DAY = 86_400
HOUR = 3_600
MINUTE = 60
MIDNIGHT = 1_793_577_600
EMBEDDINGS = ENDPOINTS["embeddings"]
COST = "openai.api.estimated_cost"


class Tariff:
    """Implements PriceBook: one price for every token, none for the model `unknown`."""

    def __init__(self, price: str = "0.5") -> None:
        self.price = Decimal(price)

    def rates(
        self, organization: str, endpoint: Endpoint, dims: Mapping[str, str], time: int
    ) -> Rates | None:
        return None if dims.get("model") == "unknown" else (self.price, Decimal(0))

    def refresh(self, now: float) -> None: ...

    def unpriced_reason(
        self, organization: str, endpoint: Endpoint, dims: Mapping[str, str]
    ) -> Reason:
        return "unknown_model"


def who(user: str, model: str = "m") -> Dims:
    """Of one project, so many users."""
    return ("p", user, None, model)


class Bench:
    """A store, a source in it, and its snapshots: what happens between readings."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tariff = Tariff()
        self.readings = 0
        self.now = MIDNIGHT + 2 * HOUR
        self.start()

    def start(self) -> None:
        """As after a restart."""
        self.store = Store(self.path)
        self.source_state: SourceState = self.store.source_state(
            "acme", EMBEDDINGS, MIDNIGHT, ("project_id", "user_id", "model")
        )
        recording.price(self.source_state, self.tariff, self.now)
        self.snapshot_builder = SnapshotBuilder(AttributePolicy(zero_hold=0, name_wait=0))
        self.snapshot_builder.series_index.page_served = False
        self.snapshot_builder.load([self.source_state], {"acme": NO_NAMES}, self.now)

    def stop(self) -> None:
        """The process ends."""
        self.store.close()

    def read(
        self,
        start: int,
        tokens: Mapping[Dims, int],
        width: Width = Width.MINUTE,
        *,
        coarse: bool = False,
    ) -> recording.Recorded:
        """A reading of one bucket."""
        self.readings += 1
        rows = {dims: (count, 1) for dims, count in tokens.items()}
        fingerprint = f"{self.readings}".encode()
        absorbed = recording.record_reading(
            self.store,
            self.source_state,
            Step(Window(start, start + width), width, coarse=coarse),
            [Bucket(start, fingerprint, rows)],
            self.now,
            fine_from=MIDNIGHT,
            prices=self.tariff,
        )
        first = polling.finish(self.store, self.source_state, self.now)
        series = list(self.source_state.series.values()) if first else absorbed.delta.series
        self.snapshot_builder.apply(Delta(self.source_state, series), self.now)
        return absorbed

    def shown(self) -> dict[str, float]:
        """Estimated cost on the Board, by model."""
        self.snapshot_builder.series_index.release(
            self.snapshot_builder.series_index.releasable(self.now + 1000, None)
        )
        self.snapshot_builder.snapshot(self.now, self.now)
        points = self.snapshot_builder.series_index.points(self.now, 1).get(COST, [])
        shown = {"organization", "operation", "project_id", "project_name", "model", "currency"}
        assert all(set(point.series.attributes) == shown for point in points)
        return {str(point.series.attributes["model"]): point.value for point in points}


def test_users_are_summed_and_an_unknown_model_has_no_series(tmp_path: Path) -> None:
    """Estimated cost has no user; a model without a price is reported, and is no series of 0."""
    bench = Bench(tmp_path / "s.db")
    absorbed = bench.read(MIDNIGHT, {who("a"): 10, who("b"): 4, who("a", "unknown"): 9})
    assert bench.shown() == {"m": 7.0}
    assert absorbed.unpriced == {Unpriced("unknown", "tokens", "unknown_model"): 9}
    bench.stop()


def test_it_never_falls_and_survives_restarts(tmp_path: Path) -> None:
    """What OpenAI takes back lowers the total, not what is shown, across a restart; growth shows
    once it overtakes.
    """
    bench = Bench(tmp_path / "s.db")
    bench.read(MIDNIGHT, {who("a"): 10})
    bench.read(MIDNIGHT, {who("a"): 6})
    assert bench.shown() == {"m": 5.0}
    assert bench.snapshot_builder.series_index.restated_pending()[COST][0][1] == 2.0
    bench.stop()
    bench.start()
    assert bench.shown() == {"m": 5.0}
    bench.read(MIDNIGHT + MINUTE, {who("a"): 8})
    assert bench.shown() == {"m": 7.0}
    bench.stop()


def test_it_is_priced_once_when_booked(tmp_path: Path) -> None:
    """A new price is for usage that is recorded from then on, whatever is read again."""
    bench = Bench(tmp_path / "s.db")
    bench.read(MIDNIGHT, {who("a"): 10})
    bench.tariff.price = Decimal(100)
    bench.read(MIDNIGHT, {who("a"): 10})
    assert bench.shown() == {"m": 5.0}
    bench.read(MIDNIGHT, {who("a"): 11})
    assert bench.shown() == {"m": 105.0}
    bench.read(
        MIDNIGHT, {who("a"): 11}, Width.HOUR
    )  # the same in a coarser row: what leaves the minutes enters the hour
    assert bench.shown() == {"m": 105.0}
    bench.stop()


def test_the_estimate_of_a_day_is_kept_and_compared(tmp_path: Path) -> None:
    """The history has the estimate by day, and what was billed beside it."""
    bench = Bench(tmp_path / "s.db")
    bench.read(MIDNIGHT, {who("a"): 10, who("a", "unknown"): 9})
    costs = ENDPOINTS["costs"]
    source_state = bench.store.source_state("acme", costs, MIDNIGHT, ("project_id", "line_item"))
    billed = {
        tuple("usd" if name == "currency" else None for name in costs.dimensions): (
            Decimal("4.2"),
            Decimal(10),
        )
    }
    recording.record_range(
        bench.store,
        source_state,
        Window(MIDNIGHT, MIDNIGHT + DAY),
        Width.DAY,
        {MIDNIGHT: billed},
        bench.now,
    )
    assert bench.store.estimated_and_billed("acme", MIDNIGHT - DAY, MIDNIGHT + DAY) == {
        MIDNIGHT: (Decimal("5.0"), Decimal("4.2"))
    }
    with open_queries(bench.path) as past:
        (row,) = past.usage(MIDNIGHT, MIDNIGHT + DAY)
        assert (row.input, row.estimate, row.unpriced) == (19, Decimal("5.0"), 9)
        priced = past.usage(MIDNIGHT, MIDNIGHT + DAY, by=("organization", "model"))
        assert {row.group: row.unpriced for row in priced} == {
            ("acme", "m"): 0,
            ("acme", "unknown"): 9,
        }
        assert [spent.cost for spent in past.costs(MIDNIGHT, MIDNIGHT + DAY)] == [Decimal("4.2")]
    bench.stop()


def test_rows_grow_coarser_and_go_but_no_total_moves(tmp_path: Path) -> None:
    """Old hours become days, older days go: sums of what is left, totals and what is shown stay."""
    bench = Bench(tmp_path / "s.db")
    for hour in range(6):
        bench.read(MIDNIGHT + hour * HOUR, {who("a"): 10, who("b"): hour}, Width.HOUR)
        bench.read(MIDNIGHT + DAY + hour * HOUR, {who("a"): 1}, Width.HOUR)
    totals = {
        dims: (stored_series.total, stored_series.shown, stored_series.estimate)
        for dims, stored_series in bench.source_state.series.items()
    }
    while maintenance.maintain(
        bench.store, bench.source_state, Retention(hours=MIDNIGHT + 2 * DAY, days=MIDNIGHT)
    ):
        pass
    assert {
        row.width
        for row in bench.store.rows_within(
            bench.source_state, tuple(Width), MIDNIGHT, MIDNIGHT + 2 * DAY
        )
    } == {DAY}
    with open_queries(bench.path) as past:
        assert [row.input for row in past.usage(MIDNIGHT, MIDNIGHT + 2 * DAY)] == [75, 6]
    while maintenance.maintain(
        bench.store, bench.source_state, Retention(hours=MIDNIGHT + 2 * DAY, days=MIDNIGHT + DAY)
    ):
        pass
    with open_queries(bench.path) as past:
        assert [(row.start, row.input) for row in past.usage(MIDNIGHT, MIDNIGHT + 2 * DAY)] == [
            (MIDNIGHT + DAY, 6)
        ]
    bench.stop()
    bench.start()
    assert {
        dims: (stored_series.total, stored_series.shown, stored_series.estimate)
        for dims, stored_series in bench.source_state.series.items()
    } == totals
    bench.stop()


def test_retention_keeps_what_is_still_read_again() -> None:
    """Whatever is configured, a day more than `reconcile` stays as it is."""
    now = MIDNIGHT + 100 * DAY + 5
    assert Retention.at(now, hours=90 * DAY, days=1100 * DAY, reconcile=7 * DAY) == Retention(
        MIDNIGHT + 10 * DAY, MIDNIGHT - 1000 * DAY
    )
    assert Retention.at(now, hours=60, days=60, reconcile=7 * DAY) == Retention(
        MIDNIGHT + 92 * DAY, MIDNIGHT + 92 * DAY
    )


@pytest.mark.parametrize("seed", range(5))
def test_with_one_price_the_estimate_is_that_price_of_the_total(tmp_path: Path, seed: int) -> None:
    """Whatever is read, in whatever order and width, through restarts: tokens by the price, in
    ledger and history.
    """
    chance = random.Random(seed)
    bench = Bench(tmp_path / "s.db")
    for _ in range(60):
        bench.now += chance.choice((60, HOUR))
        width = chance.choice((Width.MINUTE, Width.HOUR, Width.HOUR))
        start = MIDNIGHT + chance.randrange(2 * DAY // width) * width
        users = chance.sample("abc", chance.randrange(4))
        coarse = width == Width.HOUR and chance.random() < 0.7
        bench.read(
            start, {who(user): chance.randrange(100) for user in users}, width, coarse=coarse
        )
        if chance.random() < 0.1:
            bench.stop()
            bench.start()
    stored_series_list = bench.source_state.series.values()
    assert [stored_series.estimate for stored_series in stored_series_list] == [
        stored_series.total[0] * bench.tariff.price for stored_series in stored_series_list
    ]
    assert all(
        (stored_series.estimate_shown or 0) >= (stored_series.estimate or 0) >= 0
        for stored_series in stored_series_list
    )
    with open_queries(bench.path) as past:
        assert [
            (row.estimate, row.unpriced) for row in past.usage(MIDNIGHT, MIDNIGHT + 2 * DAY)
        ] == [
            (row.input * bench.tariff.price, 0) for row in past.usage(MIDNIGHT, MIDNIGHT + 2 * DAY)
        ]
    bench.stop()
