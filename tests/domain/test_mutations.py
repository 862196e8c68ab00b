"""The tests see it when exactness is broken on purpose: each mutation makes a law, or conservation,
fail.

docs/decisions/0003-broken-on-purpose.md says why each of them is here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from otel_openai_usage.domain import reconciliation
from otel_openai_usage.domain.commits import Commit, Created
from otel_openai_usage.domain.endpoints import Endpoint
from otel_openai_usage.domain.model import Amounts, Rows, Width
from otel_openai_usage.domain.reconciliation import Change, PendingDecrease, Row
from otel_openai_usage.domain.source_state import SourceState, StoredSeries
from otel_openai_usage.domain.windows import Progress
from otel_openai_usage.engine import recording
from otel_openai_usage.engine.usage_poll import UsagePoll
from otel_openai_usage.errors import ExporterError
from otel_openai_usage.simulator.world import World
from otel_openai_usage.storage.sqlite.store import Store
from otel_openai_usage.view.series import AggregatedSeries
from tests.conservation.rig import HASTE, HOUR, MINUTE, Life, Options
from tests.domain import test_laws, test_pipeline
from tests.domain.shelf import MINUTE as ONE_MINUTE
from tests.domain.shelf import source_state as new_book
from tests.domain.shelf import who
from tests.domain.test_laws import MINUTES, Noise
from tests.storage import test_store
from tests.view import test_series_index

NOTHING: dict[int, Rows] = {start: {} for start in MINUTES}
LITTLE: dict[int, Rows] = {**NOTHING, MINUTES[0]: {who("a"): (5, 1)}}
MUCH: dict[int, Rows] = {**NOTHING, MINUTES[0]: {who("a"): (9, 1)}}


def the_last_reading_counts(*said: Mapping[int, Rows]) -> None:
    """The law, for readings in minutes."""
    noise: Noise = [(ONE_MINUTE, False, each, 60) for each in said[:-1]]
    test_laws.test_the_last_reading_is_what_counts.hypothesis.inner_test(noise, said[-1])  # type: ignore[attr-defined]


async def conserves(path: Path, *, failure_log: float = 0.0, kills: float = 0.0) -> None:
    """Some hours of trouble, told exactly."""
    life = Life(
        path,
        World.tiny(3, lateness=HASTE),
        failure_log=failure_log,
        seed=7,
        options=Options(settle=30 * MINUTE),
    )
    await life.live(9 * HOUR, pauses=(300, 900, 2 * HOUR), kills=kills)
    await life.end()


async def test_nothing_is_broken_yet(tmp_path: Path) -> None:
    """Without a mutation the same checks pass, so that it is the mutation that they see."""
    await conserves(tmp_path / "state.db", failure_log=0.3, kills=0.1)


def test_first_reading_wins_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter that never revises a bucket breaks the law of the last reading (the hourly
    comparison would heal it later).
    """

    def first_wins(
        width: Width, reading: Mapping[int, Rows], stored: Iterable[Row], epoch: int, zero: Amounts
    ) -> Change:
        stored = list(stored)
        known = {row.start for row in stored if row.width == width}
        fresh = {start: rows for start, rows in reading.items() if start not in known}
        return replaced(width, fresh, [row for row in stored if row.width != width], epoch, zero)

    replaced = reconciliation.replace
    monkeypatch.setattr(reconciliation, "replace", first_wins)
    with pytest.raises(AssertionError):
        the_last_reading_counts(LITTLE, MUCH)


def test_adding_instead_of_replacing_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter that adds what it reads to what it has breaks the law that reading twice is
    reading once.
    """

    def add(
        width: Width, reading: Mapping[int, Rows], stored: Iterable[Row], epoch: int, zero: Amounts
    ) -> Change:
        return replaced(width, reading, [], epoch, zero)

    replaced = reconciliation.replace
    monkeypatch.setattr(reconciliation, "replace", add)
    with pytest.raises(AssertionError):
        test_laws.test_reading_twice_is_reading_once.hypothesis.inner_test(LITTLE, ONE_MINUTE, True)  # type: ignore[attr-defined]


async def test_moving_on_after_an_error_is_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An exporter whose window moves on though the read failed, and that never looks back, loses
    what it did not read.
    """

    async def poll(self: UsagePoll) -> None:
        self._reconciled_at = {Width.HOUR: float("inf"), Width.DAY: float("inf")}
        try:
            await polled(self)
        except ExporterError:
            self.source_state.progress = replace(
                self.source_state.progress, unread=(), complete=True
            )
            raise

    polled = UsagePoll.poll
    monkeypatch.setattr(UsagePoll, "poll", poll)
    monkeypatch.setattr(UsagePoll, "_due", lambda *_: False)
    with pytest.raises(AssertionError):
        await conserves(tmp_path / "state.db", failure_log=0.5)


async def test_totals_outside_the_transaction_are_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If totals are kept in another transaction than the rows, a crash in between is never healed,
    and seen.
    """

    class Crash(BaseException):
        """The process ends here."""

    committed = Store.commit
    left = iter(range(20))

    def commit(self: Store, source_state: SourceState, made: Commit) -> Created:
        created = committed(self, source_state, replace(made, updated=()))
        if made.updated and next(left, None) is None:
            raise Crash
        committed(self, source_state, Commit(made.progress, updated=made.updated))
        return created

    life = Life(
        tmp_path / "state.db", World.tiny(3, lateness=HASTE), options=Options(settle=30 * MINUTE)
    )
    with monkeypatch.context() as broken:
        broken.setattr(Store, "commit", commit)
        with pytest.raises(Crash):
            await life.live(9 * HOUR, pauses=(300,))
    life.restart(forget=True)
    with pytest.raises(AssertionError):
        await life.end()


def test_a_cursor_outside_the_transaction_is_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If how far was read is kept before the rows are, a commit that breaks leaves a trace."""

    def commit(self: Store, source_state: SourceState, made: Commit) -> Created:
        committed(
            self,
            source_state,
            Commit(replace(made.progress, horizon=(made.progress.horizon or 0) + 60)),
        )
        return committed(self, source_state, made)

    committed = Store.commit
    store = Store(tmp_path / "state.db")
    monkeypatch.setattr(Store, "commit", commit)
    with pytest.raises(AssertionError):
        test_store.test_a_commit_that_breaks_half_way_leaves_nothing(store, "readings")
    store.close()


def test_no_zero_first_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A series that begins with its value is seen: PromQL would miss its first increase."""
    monkeypatch.setattr(AggregatedSeries, "may_show_value", property(lambda _: True))
    with pytest.raises(AssertionError):
        test_series_index.test_a_new_series_is_zero_first(new_book())


async def test_a_counter_that_follows_openai_down_is_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A counter that shows OpenAI's total, and not the highest that it ever was, falls:
    conservation sees it at a scrape.
    """

    def grown(stored_series: StoredSeries, moved: Amounts, now: int) -> StoredSeries:
        after = reconciliation.total(stored_series.total, moved)
        return replace(stored_series, total=after, shown=after, changed=now)

    monkeypatch.setattr("otel_openai_usage.domain.commits.grown", grown)
    with pytest.raises(AssertionError, match="counters fell"):
        await conserves(tmp_path / "state.db")


def test_coarse_and_lower_at_once_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coarse reading that is believed at once when it is lower breaks the table of confirmations."""

    def believed(
        _: Change, __: object, ___: Amounts, said: Amounts, ____: PendingDecrease | None, _____: int
    ) -> Amounts:
        return said

    monkeypatch.setattr(reconciliation, "_agreed", believed)
    with pytest.raises(AssertionError):
        test_pipeline.test_a_coarse_bucket_falls_only_when_confirmed([(3, 0)], 5)


def test_coarse_and_lower_never_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coarse reading that is never believed when it is lower keeps what OpenAI took back: the law
    of coarse readings breaks.
    """

    def never(
        _: Change,
        __: object,
        have: Amounts,
        said: Amounts,
        ____: PendingDecrease | None,
        _____: int,
    ) -> Amounts:
        return reconciliation.highest(have, said)

    monkeypatch.setattr(reconciliation, "_agreed", never)
    noise: Noise = [(ONE_MINUTE, False, MUCH, 60)]
    law = test_laws.test_coarse_readings_make_everything_good_within_an_hour
    with pytest.raises(AssertionError):
        law.hypothesis.inner_test(noise, LITTLE, HOUR)  # type: ignore[attr-defined]


def test_stale_fingerprints_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fingerprints that are never forgotten skip readings that matter: the law of the last reading
    breaks.
    """

    def remember(source_state: SourceState, step: Any, fresh: Any, *_: object) -> None:
        for bucket in fresh:
            if (step.width, bucket.start) not in source_state.fingerprints:
                source_state.fingerprints.set(step.width, bucket.start, bucket.fingerprint)

    monkeypatch.setattr(recording, "_update_fingerprints", remember)
    with pytest.raises(AssertionError):
        the_last_reading_counts(LITTLE, MUCH, LITTLE)


async def test_forgetting_gaps_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An exporter that begins at `now` after every start loses its downtime."""

    def source_state(
        self: Store, organization: str, endpoint: Endpoint, epoch: int, group_by: tuple[str, ...]
    ) -> SourceState:
        found = opened(self, organization, endpoint, epoch, group_by)
        found.progress = Progress(found.progress.epoch, found.progress.complete)
        return found

    opened = Store.source_state
    monkeypatch.setattr(Store, "source_state", source_state)
    monkeypatch.setattr(UsagePoll, "_due", lambda *_: False)
    monkeypatch.setattr(
        "otel_openai_usage.domain.windows._with_new_time", lambda progress, end: progress.unread
    )
    with pytest.raises(AssertionError):
        await conserves(tmp_path / "state.db", kills=0.2)
