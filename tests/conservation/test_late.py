"""Usage that comes late, in whatever width it is known first: counted once."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from otel_openai_usage.domain.endpoints import ENDPOINTS
from otel_openai_usage.domain.model import Width
from otel_openai_usage.domain.retention import Retention
from otel_openai_usage.engine import maintenance
from otel_openai_usage.engine.ports import Source
from otel_openai_usage.providers.openai.sources import UsageSource
from otel_openai_usage.simulator.world import World
from tests.conservation.organization import Organization, at, fake_client
from tests.conservation.rig import DAY, HOUR, MINUTE, MONDAY, Life, Options, counted

KEY = {"project_id": "proj_a", "api_key_id": "key_a", "model": "gpt-5"}
COMPLETIONS = ENDPOINTS["completions"]


class ScriptedLife(Life):
    """A Life that reads a scripted organization; no counter may ever be above what was used."""

    def __init__(
        self,
        path: Path,
        organization: Organization,
        *,
        endpoints: Sequence[str] = ("completions",),
        **options: object,
    ) -> None:
        self.organization = organization
        super().__init__(
            path,
            World.tiny(),
            endpoints=endpoints,
            begin=MONDAY + 9 * HOUR,
            options=Options(**options),  # type: ignore[arg-type]
        )

    def source(self, endpoint: str) -> Source:
        """The real one over the script."""
        client = fake_client(self.organization, lambda: self.time.true)
        return UsageSource(client, ENDPOINTS[endpoint])

    def calm(self) -> None:
        """All is well from now on; what is late comes all the same."""

    def watch(self) -> None:
        """Scrape."""
        super().watch()
        for source_state in self.run.source_states:
            used = self.organization.truth(
                source_state.endpoint, source_state.progress.epoch, source_state.groupings.at
            )
            for dims, stored_series in source_state.series.items():
                most = used.get(dims, source_state.endpoint.zero)
                assert all(a <= b for a, b in zip(stored_series.shown, most, strict=True)), (
                    dims,
                    most,
                )

    def compare(self) -> None:
        """Every series is what was used."""
        for source_state in self.run.source_states:
            now = self.time.true
            used = self.organization.truth(
                source_state.endpoint, source_state.progress.epoch, source_state.groupings.at, now
            )
            assert counted(source_state) == used, source_state.endpoint.name
            assert {d: x.shown for d, x in source_state.series.items() if any(x.total)} == used

    def up(self) -> bool | None:
        """Whether the last poll succeeded."""
        (source_state,) = self.run.source_states
        return source_state.status.up

    @property
    def tokens(self) -> int:
        """Input tokens (or the cost, rounded) as shown."""
        (source_state,) = self.run.source_states
        return sum(int(stored_series.shown[0]) for stored_series in source_state.series.values())

    async def step(self, seconds: int) -> int:
        """Let time pass, poll once, and say what is shown."""
        self.time.pass_(seconds)
        await self.poll()
        return self.tokens


def organization() -> Organization:
    """1,000 tokens in each of six hours of Monday, and 15 on Tuesday."""
    made = Organization(1)
    for hour in range(3, 9):
        made.use("completions", MONDAY + hour * HOUR + 7 * MINUTE, KEY, 1000, 0, 0, 0, 0, 0, 1)
    made.use("completions", MONDAY + DAY + 5 * HOUR, KEY, 15)
    return made


async def test_a_late_row_with_days_as_the_freshest_buckets(tmp_path: Path) -> None:
    """With `bucket_width: 1d`, 50 tokens that come three days late add 50, at once and for good."""
    life = ScriptedLife(tmp_path / "state.db", organization(), width=Width.DAY)
    await life.step(0)
    for _ in range(3):
        before = await life.step(DAY)
    assert before == 6015
    life.organization.use("completions", at("2026-11-02 05:20"), KEY, 50, known=life.time.true)
    assert await life.step(HOUR) == 6065
    for _ in range(10):
        assert await life.step(HOUR) == 6065
    await life.end()


@pytest.mark.parametrize("widths", [(Width.DAY, Width.MINUTE), (Width.DAY, Width.HOUR)])
async def test_a_late_row_after_a_change_of_the_width(
    tmp_path: Path, widths: tuple[Width, Width]
) -> None:
    """Days that were read as 1d rows stay exact when finer buckets are configured later."""
    life = ScriptedLife(tmp_path / "state.db", organization(), width=widths[0])
    await life.step(0)
    await life.step(DAY)
    life.restart(width=widths[1])
    assert await life.step(2 * DAY) == 6015
    life.organization.use("completions", at("2026-11-02 05:20"), KEY, 50, known=life.time.true)
    life.organization.use("completions", at("2026-11-03 00:20"), KEY, 7, known=life.time.true)
    assert await life.step(HOUR) == 6072
    for _ in range(10):
        assert await life.step(HOUR) == 6072
    await life.end()


async def test_a_late_row_in_hours_that_history_made_a_day(tmp_path: Path) -> None:
    """Hours that became a day (`history.hours: 1d`) are read again after `reconcile` was raised: a
    late row of them is counted once.
    """
    life = ScriptedLife(tmp_path / "state.db", organization(), reconcile=DAY)
    await life.step(0)
    for _ in range(4):
        await life.step(DAY)
    now = int(life.time.now)
    keep = Retention.at(now, hours=DAY, days=1100 * DAY, reconcile=DAY)
    (source_state,) = life.run.source_states
    while maintenance.maintain(life.run.store, source_state, keep):
        pass
    assert life.run.store.rows_within(source_state, (Width.DAY,), 0, now)
    life.restart(reconcile=14 * DAY)
    life.organization.use("completions", at("2026-11-02 05:20"), KEY, 50, known=life.time.true)
    assert await life.step(HOUR) == 6065
    for _ in range(10):
        assert await life.step(HOUR) == 6065
    await life.end()


@pytest.mark.parametrize("hours_after", [1, 5, 30])
async def test_hours_that_lag_behind_days(tmp_path: Path, hours_after: int) -> None:
    """OpenAI's days know of usage before its hours do: it is counted when the first says so, and
    not again when the other does.
    """
    life = ScriptedLife(tmp_path / "state.db", Organization(1))
    await life.step(0)
    await life.step(3 * DAY)

    def late(tokens: int) -> None:
        now = life.time.true
        slow = now + hours_after * HOUR
        known = {Width.DAY: now, Width.HOUR: slow, Width.MINUTE: slow}
        life.organization.use("completions", at("2026-11-02 05:20"), KEY, tokens, known=known)

    late(500)
    for _ in range(hours_after + 1):
        assert await life.step(HOUR) == 500
    late(40)
    for _ in range(40):
        assert await life.step(HOUR) == 540
    await life.end()
