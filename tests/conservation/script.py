"""A random script against a scripted organization: the exporter lives through late usage, kills,
changed settings and wrong clocks, and is then compared with what was used.

One seed is one script. `Machine(seed, directory).play()` raises AssertionError with the steps.
"""

import random
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from unittest import mock

from otel_openai_usage.domain.endpoints import ENDPOINTS, Endpoint
from otel_openai_usage.domain.model import Width
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.providers.openai import provider
from otel_openai_usage.simulator.server import running
from otel_openai_usage.testing import Harness
from otel_openai_usage.view.attributes import AttributePolicy
from tests.conservation.organization import Organization, UsageRow, at, fake_client, server

MINUTE = 60
HOUR = 3600
DAY = 86400
BEGIN = at("2026-11-02 09:17")
_LINE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_NAMES = {"project_name", "api_key_name"}

Labels = frozenset[tuple[str, str]]
Series = dict[tuple[str, Labels], Decimal]


class ScriptClock:
    """The time of a script. `wrong` is how far the machine's clock is off."""

    def __init__(self, true: float) -> None:
        self.true = true
        self.wrong = 0.0
        self._monotonic = 1000.0

    def now(self) -> float:
        """What the machine believes."""
        return self.true + self.wrong

    def monotonic(self) -> float:
        """Never steps."""
        return self._monotonic

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self.true += seconds
        self._monotonic += seconds


@dataclass
class Machine:
    """Plays the script of a seed. `steps` says what was done."""

    seed: int
    directory: Path
    over_http: bool = False
    steps: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.clock = ScriptClock(BEGIN + self.rng.randrange(DAY))
        self.organization = Organization(self.seed)
        self.settings = self._first_settings()
        self.taken_back = self.rng.random() < 0.3
        self.refuses = self.rng.random() < 0.3
        self.first_grouping: dict[tuple[str, int], tuple[str, ...]] = {}
        self.seen: Series = {}
        self.harness: Harness | None = None
        self.begun = self.clock.true

    def _first_settings(self) -> dict[str, object]:
        rng = self.rng
        return {
            "bucket_width": rng.choice(["1m", "1m", "1m", "1h", "1d"]),
            "settle": rng.choice(["0s", "5m", "30m", "3h", "3h", "12h", "30h"]),
            "reconcile": rng.choice(["2d", "7d", "7d", "14d"]),
            "reconcile_interval": rng.choice(["15m", "15m", "1h", "1s"]),
            "group_by": rng.choice(GROUPINGS),
            "start": rng.choice(["today", "today", "now", "2d"]),
            "hours": rng.choice(["90d", "90d", "1d"]),
            "cost_days": rng.choice(["7d", "3d"]),
            "cost_group_by": rng.choice(COST_GROUPINGS),
        }

    async def play(self, steps: int = 60) -> None:
        """Play it. Raises AssertionError with everything that was done."""
        async with self._wired():
            try:
                self._backdated()
                await self._start()
                for _ in range(steps):
                    await self._step()
                await self._settle()
                self._compare()
            except AssertionError as error:
                raise AssertionError(
                    f"seed {self.seed}: {error}\n" + "\n".join(self.steps)
                ) from error
            finally:
                if self.harness is not None:
                    await self.harness.close()

    @asynccontextmanager
    async def _wired(self) -> AsyncIterator[None]:
        """The organization is there to be asked, by HTTP or in the place of it."""
        self.base_url = "http://127.0.0.1:9/v1"
        if self.over_http:
            async with running(server(self.organization, lambda: self.clock.true)) as url:
                self.base_url = f"{url}/v1"
                yield
            return
        made = fake_client(self.organization, lambda: self.clock.true)
        with mock.patch.object(provider, "openai_client", return_value=made):
            yield

    # --- the steps

    async def _step(self) -> None:
        choices = {
            self._use: 6,
            self._use_late: 4,
            self._wait: 8,
            self._restart: 2,
            self._change: 2,
            self._step_clock: 2,
            self._right_clock: 2,
            self._upkeep: 2,
            self._weather: 1,
        }
        if self.taken_back:
            choices[self._use_in_vain] = 2
        if self.refuses:
            choices[self._refuse] = 2
        chosen = self.rng.choices(list(choices), list(choices.values()))[0]
        await chosen()
        if chosen not in (self._use, self._use_late):
            await self._poll()

    def _backdated(self) -> None:
        """Usage from before the first start."""
        for _ in range(self.rng.randrange(6)):
            self._used(self.clock.true - self.rng.randrange(3 * DAY))

    def _used(
        self,
        when: float,
        known: Mapping[Width, float] | None = None,
        until: float = float("inf"),
    ) -> None:
        rng = self.rng
        endpoint = rng.choice(["completions", "completions", "completions", "embeddings", "costs"])
        number = rng.choice([1, 40, 500, 6000])
        project = rng.choice(["proj_a", "proj_b"])
        dims: dict[str, str | None] = {
            "project_id": project,
            "user_id": rng.choice(["user_a", "user_b", None]),
            "api_key_id": rng.choice([f"key_{project[-1]}1", f"key_{project[-1]}2", None]),
            "model": rng.choice(["gpt-5", "text-embedding-3-small"]),
            "batch": rng.choice(["true", "false"]),
            "service_tier": "default",
            "line_item": rng.choice(["gpt-5, input", "gpt-5, output"]),
            "currency": "usd",
        }
        counts: dict[str, tuple[int | Decimal, ...]] = {
            "completions": (number, number // 2, 0, 0, 0, 0, 1),
            "embeddings": (number, 1),
            "costs": (Decimal(number).scaleb(-4), Decimal(number)),
        }
        if endpoint == "costs" and known is not None:
            known = dict.fromkeys(Width, known[Width.DAY])
        self.organization.use(endpoint, when, dims, *counts[endpoint], known=known, until=until)

    async def _use(self) -> None:
        """Usage of the last minutes; some of it is known a little later."""
        for _ in range(self.rng.randrange(1, 4)):
            when = self.clock.true - self.rng.randrange(10 * MINUTE)
            lag = self.rng.choice([0, 0, 5 * MINUTE, HOUR])
            self._used(when, dict.fromkeys(Width, self.clock.true + lag))
        self._tell("use")

    async def _use_late(self) -> None:
        """Usage of long ago, which the widths learn of in any order."""
        rng = self.rng
        age = rng.choice([HOUR, 4 * HOUR, 10 * HOUR, DAY, 2 * DAY, 4 * DAY])
        when = self.clock.true - age * rng.uniform(0.8, 1.2)
        lags = [0.0, 0.0, rng.choice([HOUR, 6 * HOUR, 2 * DAY]) * rng.random()]
        rng.shuffle(lags)
        known = {
            width: self.clock.true + lag
            for width, lag in zip(Width, lags if rng.random() < 0.7 else [0.0] * 3, strict=True)
        }
        self._used(when, known)
        late = {width.text: int(time - self.clock.true) for width, time in known.items()}
        self._tell(f"use {int(self.clock.true - when)} s late, known after {late}")

    async def _use_in_vain(self) -> None:
        """Usage that OpenAI takes back."""
        when = self.clock.true - self.rng.choice([0, HOUR, 5 * HOUR, DAY, 3 * DAY])
        known = dict.fromkeys(Width, self.clock.true)
        self._used(when, known, until=self.clock.true + self.rng.choice([HOUR, 5 * HOUR, DAY]))
        self._tell("use in vain")

    async def _wait(self) -> None:
        seconds = self.rng.choice(
            [MINUTE, MINUTE, 5 * MINUTE, 20 * MINUTE, HOUR, 3 * HOUR, 12 * HOUR]
        )
        self.clock.pass_(seconds)
        self._tell(f"wait {seconds}")

    async def _restart(self) -> None:
        down = self.rng.choice([1, MINUTE, HOUR, 8 * HOUR, DAY])
        await self._end()
        self.clock.pass_(down)
        self._tell(f"restart after {down}")
        await self._start()

    async def _change(self) -> None:
        name = self.rng.choice(sorted(self.settings.keys() - {"start"}))
        self.settings[name] = self._first_settings()[name]
        await self._end()
        self._tell(f"restart with {name}: {self.settings[name]}")
        await self._start()

    async def _step_clock(self) -> None:
        self.clock.wrong = self.rng.choice(
            [-30 * DAY, -4 * DAY, -DAY, -HOUR, HOUR, DAY, 3 * DAY, 20 * DAY, 100 * DAY, 1200 * DAY]
        )
        self._tell(f"clock wrong by {self.clock.wrong}")
        if self.rng.random() < 0.5:
            await self._change()

    async def _right_clock(self) -> None:
        if self.clock.wrong:
            self.clock.wrong = 0.0
            self._tell("clock right")

    async def _upkeep(self) -> None:
        if self.harness is not None:
            await self.harness.upkeep()
            self._tell("upkeep")

    async def _weather(self) -> None:
        organization = self.organization
        organization.trouble = self.rng.choice([0.0, 0.0, 0.2, 0.6])
        organization.overlap = self.rng.choice([0.0, 0.5, 1.0])
        organization.page = self.rng.choice([10**6, 7, 100])
        self._tell(
            f"trouble {organization.trouble}, overlap {organization.overlap}, "
            f"page {organization.page}"
        )

    async def _refuse(self) -> None:
        """OpenAI begins or ends to refuse a dimension, on all days or before a date."""
        rng = self.rng
        place = (
            rng.choice(["completions", "embeddings", "costs"]),
            rng.choice(["api_key_id", "model", "line_item"]),
        )
        midnight = self.clock.true - self.clock.true % DAY
        before = rng.choice([0.0, float("inf"), midnight, midnight - DAY, midnight - 3 * DAY])
        self.organization.refused[place] = before
        self._tell(f"refuse {place} before {before}")

    # --- the exporter

    def _document(self) -> dict[str, object]:
        chosen = self.settings
        return {
            "organizations": [
                {"name": "default", "admin_key": "sk-admin-script", "base_url": self.base_url}
            ],
            "api": {"retries": 0, "requests_per_minute": 100000},
            "usage": {
                "endpoints": ["completions", "embeddings"],
                "bucket_width": chosen["bucket_width"],
                "settle": chosen["settle"],
                "reconcile": chosen["reconcile"],
                "reconcile_interval": chosen["reconcile_interval"],
                "group_by": chosen["group_by"],
                "start": chosen["start"],
            },
            "costs": {"reconcile": chosen["cost_days"], "group_by": chosen["cost_group_by"]},
            "limits": {"enabled": False},
            "names": {"enabled": False},
            "legacy": {"enabled": False},
            "history": {"hours": chosen["hours"]},
            "prometheus": {"port": 0},
            "otlp": {"enabled": False},
            "prices": {"enabled": False},
            "state": {"path": str(self.directory / "state.db")},
        }

    async def _start(self) -> None:
        self.harness = Harness(self._document(), self.clock)
        await self.harness.start()
        self._watch()

    async def _end(self) -> None:
        assert self.harness is not None
        if self.rng.random() < 0.5:
            self.harness.kill()
        await self.harness.close()

    def _source_states(self) -> list[SourceState]:
        assert self.harness is not None
        return self.harness._running().recorder.source_states

    async def _poll(self) -> None:
        assert self.harness is not None
        await self.harness.poll()
        self._watch()
        self._watch_groupings()

    def _tell(self, step: str) -> None:
        self.steps.append(f"{self.clock.true - self.begun:9.0f}  {step}")

    # --- the laws

    def _page(self) -> Series:
        assert self.harness is not None
        return dict(_samples(self.harness.page().decode()))

    def _watch(self) -> None:
        """No counter falls, none is lost, and none is above what was ever used."""
        now = {key: value for key, value in self._page().items() if key[0] in COUNTERS}
        for key, value in self.seen.items():
            assert now.get(key, -1) >= value, f"{key} fell from {value} to {now.get(key)}"
        self.seen = now
        if self.taken_back:
            return
        for source_state in self._source_states():
            most = self._truth(source_state, self.clock.true)
            for key, value in now.items():
                if key[0] in INSTRUMENTS_OF[source_state.endpoint.name] and _is_of(
                    source_state.endpoint, key[1]
                ):
                    assert value <= most.get(key, 0), f"{key} is {value}, used {most.get(key)}"

    def _watch_groupings(self) -> None:
        """Every bucket is read again with the grouping that it was first read with."""
        assert self.harness is not None
        store = self.harness._running().recorder.store
        for source_state in self._source_states():
            for row in store.rows_within(
                source_state, Width, source_state.progress.epoch, int(self.clock.true)
            ):
                place = (source_state.endpoint.name, row.start)
                now = source_state.groupings.at(row.start)
                first = self.first_grouping.setdefault(place, now)
                assert first == now, f"{place} was read by {first}, now by {now}"

    async def _settle(self) -> None:
        """All is well and known, and comparisons reach back to the beginning."""
        await self._end()
        self.organization.trouble = 0.0
        self.organization.refused.clear()
        self.clock.wrong = 0.0
        last = max((_final(row) for row in self.organization.rows), default=0.0)
        self.clock.pass_(max(0.0, last - self.clock.true) + 1)
        self.settings["reconcile"] = "60d"
        self.settings["cost_days"] = "60d"
        self._tell("settle")
        await self._start()
        for _ in range(14):
            self.clock.pass_(1900)
            await self._poll()

    def _truth(self, source_state: SourceState, now: float = float("inf")) -> Series:
        """What the counters of a book must show."""
        found: Series = {}
        used = self.organization.truth(
            source_state.endpoint, source_state.progress.epoch, source_state.groupings.at, now
        )
        for dims, amounts in used.items():
            labels = {
                name: value
                for name, value in zip(source_state.endpoint.dimensions, dims, strict=True)
                if value is not None
            }
            for measure, amount in zip(source_state.endpoint.measures, amounts, strict=True):
                if not AttributePolicy().shows(measure):
                    continue
                more = (
                    {"operation": source_state.endpoint.name}
                    if source_state.endpoint.name != "costs"
                    else {}
                )
                if measure.token_type:
                    more["token_type"] = measure.token_type
                key = (PROMETHEUS[measure.instrument], frozenset((labels | more).items()))
                found[key] = found.get(key, Decimal(0)) + Decimal(amount)
        return found

    def _compare(self) -> None:
        """What is shown less what is pending is what was used, for every attribute set."""
        page = self._page()
        pending: Series = {}
        for (name, labels), value in page.items():
            if name == "otel_openai_usage_restated_pending":
                of = dict(labels)
                counter = PROMETHEUS.get(of.pop("instrument"))
                if counter is not None:
                    pending[counter, frozenset(of.items())] = value
        used: Series = {}
        for source_state in self._source_states():
            used |= self._truth(source_state)
        shown = {
            key: value - pending.get(key, Decimal(0))
            for key, value in page.items()
            if key[0] in COUNTERS
        }
        for key in shown.keys() | used.keys():
            is_ = shown.get(key, Decimal(0))
            ought = used.get(key, Decimal(0))
            assert is_ == ought, f"{key}: shown less pending is {is_}, used {ought}"
        if not self.taken_back:
            assert not any(pending.values()), f"pending stays: {pending}"


GROUPINGS = [
    ["project_id", "user_id", "api_key_id", "model", "batch"],
    ["project_id", "model"],
    ["api_key_id", "model", "service_tier"],
    [],
]
COST_GROUPINGS = [
    ["project_id", "line_item"],
    ["project_id", "line_item", "api_key_id"],
    ["project_id"],
]
_SHOWN = {"openai.api.tokens", "openai.api.requests", "openai.api.cost"}
PROMETHEUS = {name: name.replace(".", "_") + "_total" for name in _SHOWN}
COUNTERS = frozenset(PROMETHEUS.values())
INSTRUMENTS_OF = {
    endpoint.name: {
        PROMETHEUS[measure.instrument]
        for measure in endpoint.measures
        if measure.instrument in PROMETHEUS
    }
    for endpoint in ENDPOINTS.values()
}


def _is_of(endpoint: Endpoint, labels: Labels) -> bool:
    return endpoint.name == "costs" or ("operation", endpoint.name) in labels


def _final(row: UsageRow) -> float:
    return max(*row.known.values(), row.until if row.until != float("inf") else 0.0)


def _samples(page: str) -> Iterator[tuple[tuple[str, Labels], Decimal]]:
    """The samples of a page by name and labels, without names of ids and the organization."""
    for line in page.splitlines():
        found = _LINE.match(line)
        if found is None or line.startswith("#"):
            continue
        labels = {
            name: value
            for name, value in _LABEL.findall(found[2] or "")
            if value and name not in _NAMES and name != "organization"
        }
        yield (found[1], frozenset(labels.items())), Decimal(found[3])
