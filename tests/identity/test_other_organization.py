"""Data of another organization than the state's is not counted; a changed key of the same one is."""

import json
import logging
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from otel_openai_usage.commands import check
from otel_openai_usage.commands.verify import Refused, verdicts
from otel_openai_usage.composition import app
from otel_openai_usage.config import Settings, load_mapping
from otel_openai_usage.engine.recorder import Clock as RunClock
from otel_openai_usage.simulator.faults import Fault
from otel_openai_usage.simulator.lateness import PROMPT
from otel_openai_usage.simulator.server import (
    MANAGEMENT,
    SIMULATION,
    USAGE,
    Simulation,
    application,
    running,
)
from otel_openai_usage.simulator.world import World
from otel_openai_usage.testing import Harness

MIDNIGHT = int(datetime(2026, 11, 4, tzinfo=UTC).timestamp())
HOUR = 3600
DAY = 86400
BOTH = frozenset({USAGE, MANAGEMENT})


@dataclass
class Clock:
    """A clock that moves when the test says so."""

    time: float = MIDNIGHT + 12 * HOUR + 30

    def now(self) -> float:
        """Unix time."""
        return self.time

    def monotonic(self) -> float:
        """The same."""
        return self.time


@dataclass
class Place:
    """An organization behind a base URL. `header` is what its answers say of themselves."""

    url: str
    simulation: Simulation
    header: list[str]


@dataclass
class Stage:
    """One clock, one state, and organizations to read."""

    clock: Clock
    folder: Path
    stack: AsyncExitStack
    settings: dict[str, object] = field(default_factory=dict)

    async def organization(self, seed: int, *keys: str, says_id: bool = True) -> Place:
        """Serve a small organization that accepts these keys."""
        world = World.tiny(seed, lateness=PROMPT)
        if not says_id:
            world.company = replace(world.company, id="")
        app = application(world, clock=lambda: datetime.fromtimestamp(self.clock.time, UTC))
        header: list[str] = []

        async def say(_: web.Request, response: web.StreamResponse) -> None:
            if header:
                response.headers["openai-organization"] = header[-1]

        app.on_response_prepare.append(say)
        url = await self.stack.enter_async_context(running(app))
        simulation = app[SIMULATION]
        simulation.keys = dict.fromkeys(keys, BOTH)
        return Place(url, simulation, header)

    async def in_front_of(self, *places: Place) -> str:
        """One base URL for several organizations: the key says which is meant, as at OpenAI."""
        session = await self.stack.enter_async_context(aiohttp.ClientSession())

        async def forward(request: web.Request) -> web.Response:
            key = request.headers["Authorization"].removeprefix("Bearer ")
            url = next(place.url for place in places if key in place.simulation.keys)
            headers = {"Authorization": request.headers["Authorization"]}
            async with session.get(f"{url}{request.raw_path}", headers=headers) as answer:
                body = await answer.read()
                return web.Response(
                    body=body, status=answer.status, content_type="application/json"
                )

        front = web.Application()
        front.router.add_get("/{path:.*}", forward)
        return await self.stack.enter_async_context(running(front))

    def mapping(self, place: Place, key: str, **changes: object) -> dict[str, object]:
        """Settings that read an organization with a key."""
        return {
            "organizations": [{"admin_key": key, "base_url": f"{place.url}/v1"}],
            "api": {"requests_per_minute": 100_000, "retries": 0},
            "state": {"path": str(self.folder / "state.db")},
            "prometheus": {"enabled": False},
            **self.settings,
            **changes,
        }

    async def page(self, place: Place, key: str, **changes: object) -> bytes:
        """The page after a life in which everything was polled; an hour passes afterwards."""
        harness = Harness(self.mapping(place, key, **changes), self.clock)
        await harness.start()
        page = await polled(self.clock, harness)
        await harness.close()
        self.clock.time += HOUR
        return page


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A stage without organizations."""
    async with AsyncExitStack() as stack:
        yield Stage(Clock(), tmp_path, stack)


async def polled(clock: Clock, harness: Harness) -> bytes:
    """The page after a poll, when new series were shown as 0 for long enough."""
    await harness.poll()
    harness.page()
    clock.time += 61
    return harness.page()


def counters(page: bytes) -> dict[str, float]:
    """Every usage and cost series."""
    lines = re.findall(r"^(openai_api_\w+_total\{.*\}) (\S+)$", page.decode(), re.MULTILINE)
    return {series: float(value) for series, value in lines}


def up(page: bytes) -> set[float]:
    """The values of `openai_api_up`."""
    return {
        float(value) for value in re.findall(rb"^openai_api_up\{.*\} (\S+)$", page, re.MULTILINE)
    }


def projects(page: bytes) -> set[str]:
    """The projects that usage and costs speak of."""
    return set(re.findall(r'_total\{[^}]*project_id="([^"]+)"', page.decode()))


def rows(path: Path) -> list[tuple[object, ...]]:
    """What is stored of usage, costs and names."""
    with sqlite3.connect(path) as db:
        found = [
            *db.execute("SELECT * FROM readings ORDER BY 1, 2, 3, 4"),
            *db.execute("SELECT id, key, total, shown FROM dims ORDER BY id"),
            *db.execute("SELECT * FROM names ORDER BY 1, 2, 3"),
            *db.execute("SELECT * FROM limits ORDER BY 1, 2"),
        ]
    db.close()
    return found


SILENT = {
    "ids in costs": True,
    "no id anywhere": False,
}


@pytest.mark.parametrize("says_id", SILENT.values(), ids=SILENT)
async def test_another_organization_is_not_booked(stage: Stage, says_id: bool) -> None:
    """With the key and base URL of another organization the stored values stay, every source is
    down, and nothing of it is stored; the former key goes on exactly.
    """
    first = await stage.organization(1, "sk-admin-1", says_id=says_id)
    other = await stage.organization(2, "sk-admin-2", says_id=says_id)
    before = await stage.page(first, "sk-admin-1")
    assert up(before) == {1.0}
    stored = rows(stage.folder / "state.db")
    page = await stage.page(other, "sk-admin-2")
    assert counters(page) == counters(before)
    assert up(page) == {0.0}
    assert projects(page) == projects(before)
    assert rows(stage.folder / "state.db") == stored
    again = await stage.page(first, "sk-admin-1")
    assert up(again) == {1.0}
    assert projects(again) == projects(before)
    assert sum(counters(again).values()) > sum(counters(before).values())


async def test_it_is_said_once_with_what_to_do(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """One log line for all sources names the event, both organizations and the way out."""
    first = await stage.organization(1, "sk-admin-1")
    other = await stage.organization(2, "sk-admin-2")
    await stage.page(first, "sk-admin-1")
    with caplog.at_level(logging.INFO):
        await stage.page(other, "sk-admin-2")
    said = [
        record for record in caplog.records if vars(record).get("event") == "organization_other"
    ]
    assert len(said) == 1
    text = str(vars(said[0])["error"])
    for part in (
        first.simulation.world.company.id,
        other.simulation.world.company.id,
        "set state.path to a new file, or give this organization another name",
    ):
        assert part in text
    assert "sk-admin" not in text


@pytest.mark.parametrize("says_id", SILENT.values(), ids=SILENT)
async def test_a_rotated_key_goes_on(stage: Stage, says_id: bool) -> None:
    """Another key of the same organization counts on, at once and exactly, and so does another base
    URL of it.
    """
    place = await stage.organization(1, "sk-admin-1", "sk-admin-new", says_id=says_id)
    mirror = await stage.organization(1, "sk-admin-1", says_id=says_id)
    one = await stage.page(place, "sk-admin-1")
    two = await stage.page(place, "sk-admin-new")
    three = await stage.page(mirror, "sk-admin-1")
    assert up(one) == up(two) == up(three) == {1.0}
    assert sum(counters(one).values()) < sum(counters(two).values()) < sum(counters(three).values())
    assert projects(one) == projects(three)


async def test_an_unchanged_key_costs_no_request(stage: Stage) -> None:
    """A restart with the same key and base URL asks nothing for the sake of the comparison."""
    place = await stage.organization(1, "sk-admin-1", "sk-admin-2")
    await stage.page(place, "sk-admin-1")
    counts = []
    for key in ("sk-admin-1", "sk-admin-2", "sk-admin-1"):
        place.simulation.requests.clear()
        await stage.page(place, key)
        counts.append(len(place.simulation.requests))
    assert counts[0] == counts[2] < counts[1] <= counts[0] + 3


async def test_a_key_file_that_changes_while_running(stage: Stage, tmp_path: Path) -> None:
    """A rotated key file goes on within the organization; one with another organization's key stops
    the sources in the same process, and the right one starts them again.
    """
    place = await stage.organization(1, "sk-admin-1", "sk-admin-2", says_id=False)
    stranger = await stage.organization(2, "sk-admin-3", says_id=False)
    url = await stage.in_front_of(place, stranger)
    file = tmp_path / "key"
    file.write_text("sk-admin-1")
    mapping = stage.mapping(place, "")
    mapping["organizations"] = [{"admin_key_file": str(file), "base_url": f"{url}/v1"}]
    harness = Harness(mapping, stage.clock)
    await harness.start()
    pages: list[bytes] = []
    for key, expected in (
        ("sk-admin-1", 1.0),
        ("sk-admin-2", 1.0),
        ("sk-admin-3", 0.0),
        ("sk-admin-2", 1.0),
    ):
        file.write_text(f"{key}{' ' * len(pages)}")
        pages.append(await polled(stage.clock, harness))
        assert up(pages[-1]) == {expected}
        stage.clock.time += HOUR
    await harness.close()
    first, second, refused, last = (counters(page) for page in pages)
    assert sum(first.values()) < sum(second.values()) < sum(last.values())
    assert refused == second
    assert projects(pages[-1]) == projects(pages[0])


async def test_the_header_says_whose_it_is(stage: Stage) -> None:
    """Where answers carry `openai-organization`, it decides; also under an unchanged key, and also
    before the organization has any usage.
    """
    place = await stage.organization(1, "sk-admin-1", says_id=False)
    place.simulation.world = World.tiny(1, lateness=PROMPT, activity=0)
    place.header.append("org-1")
    assert up(await stage.page(place, "sk-admin-1")) == {1.0}
    stored = rows(stage.folder / "state.db")
    place.simulation.world = World.tiny(2, lateness=PROMPT)
    place.header.append("org-2")
    assert up(await stage.page(place, "sk-admin-1")) == {0.0}
    assert rows(stage.folder / "state.db") == stored


async def test_a_renamed_organization_goes_on(stage: Stage) -> None:
    """A header that is a name, not an id, may change: what is in common decides."""
    place = await stage.organization(1, "sk-admin-1", "sk-admin-2", says_id=False)
    place.header.append("old-name")
    await stage.page(place, "sk-admin-1")
    place.header.append("new-name")
    assert up(await stage.page(place, "sk-admin-1")) == {1.0}
    assert up(await stage.page(place, "sk-admin-2")) == {1.0}
    place.header.append("newer-name")
    assert up(await stage.page(place, "sk-admin-2")) == {1.0}


async def test_an_organization_without_usage_yet(stage: Stage) -> None:
    """A state that has no data takes any key: there is nothing that it could be mixed with."""
    empty = await stage.organization(1, "sk-admin-1", says_id=False)
    empty.simulation.world = World.tiny(1, lateness=PROMPT, activity=0)
    empty.simulation.world.company = replace(empty.simulation.world.company, id="")
    off = {"costs": {"enabled": False}}
    for name in ("vector_stores",):
        empty.simulation.faults.faults.append(Fault("not_found", f"usage/{name}"))
    assert up(await stage.page(empty, "sk-admin-1", **off)) <= {0.0, 1.0}
    full = await stage.organization(2, "sk-admin-2", says_id=False)
    page = await stage.page(full, "sk-admin-2", **off)
    assert up(page) == {1.0}
    assert counters(page)


NARROW = {
    "usage only": ({USAGE}, {"names": {"enabled": False}, "limits": {"enabled": False}}, ()),
    "no costs": (BOTH, {"costs": {"enabled": False}}, ("costs",)),
    "no projects": (BOTH, {}, ("projects", "users")),
}


@pytest.mark.parametrize(("scopes", "changes", "missing"), NARROW.values(), ids=NARROW)
async def test_little_is_enough_to_tell(
    stage: Stage, scopes: frozenset[str], changes: dict[str, object], missing: tuple[str, ...]
) -> None:
    """Also where the key may read little, or an endpoint is not offered, a rotated key goes on and
    another organization is refused.
    """
    place = await stage.organization(1, says_id=False)
    other = await stage.organization(2, says_id=False)
    for each in (place, other):
        each.simulation.keys = dict.fromkeys(("sk-admin-1", "sk-admin-2"), frozenset(scopes))
        each.simulation.faults.faults[:] = [Fault("not_found", path) for path in missing]
    before = await stage.page(place, "sk-admin-1", **changes)
    rotated = await stage.page(place, "sk-admin-2", **changes)
    assert sum(counters(rotated).values()) > sum(counters(before).values())
    refused = await stage.page(other, "sk-admin-2", **changes)
    assert up(refused) == {0.0}
    assert counters(refused) == counters(rotated)


async def test_archived_projects_and_late_ids(stage: Stage) -> None:
    """When all projects were archived, and only new ones have usage since, a rotated key of the
    organization is still known.
    """
    place = await stage.organization(1, "sk-admin-1", "sk-admin-2", says_id=False)
    before = await stage.page(place, "sk-admin-1")
    stage.clock.time += 60 * DAY
    world = World.tiny(2, lateness=PROMPT)
    company = place.simulation.world.company
    old = tuple(replace(project, archived_at=MIDNIGHT + DAY) for project in company.projects)
    world.company = replace(world.company, id="", projects=(*world.company.projects, *old))
    app = application(world, clock=lambda: datetime.fromtimestamp(stage.clock.time, UTC))
    app[SIMULATION].keys = {"sk-admin-2": BOTH}
    url = await stage.stack.enter_async_context(running(app))
    page = await stage.page(Place(url, app[SIMULATION], []), "sk-admin-2")
    assert up(page) == {1.0}
    assert projects(page) - projects(before)


async def test_nothing_is_booked_while_it_cannot_be_told(stage: Stage) -> None:
    """While the API fails a new key counts nothing; when it answers, the key goes on or is refused."""
    place = await stage.organization(1, "sk-admin-1", "sk-admin-2")
    other = await stage.organization(2, "sk-admin-2")
    before = await stage.page(place, "sk-admin-1")
    stored = rows(stage.folder / "state.db")
    for each, expected in ((other, 0.0), (place, 1.0)):
        each.simulation.faults.faults[:] = [
            Fault("error", path, status=503) for path in ("costs", "projects")
        ]
        harness = Harness(stage.mapping(each, "sk-admin-2"), stage.clock)
        await harness.start()
        page = await polled(stage.clock, harness)
        if expected == 0.0:
            assert up(page) == {0.0}
            assert rows(stage.folder / "state.db") == stored
        each.simulation.faults.faults.clear()
        assert up(await polled(stage.clock, harness)) == {expected}
        await harness.close()
    assert counters(before)


async def test_two_organizations_whose_keys_are_swapped(stage: Stage) -> None:
    """Each entry is compared with its own data; another entry goes on."""
    one = await stage.organization(1, "sk-admin-1")
    two = await stage.organization(2, "sk-admin-2")
    three = await stage.organization(3, "sk-admin-3")

    def entries(*places: Place) -> list[dict[str, str]]:
        keys = {id(one): "sk-admin-1", id(two): "sk-admin-2", id(three): "sk-admin-3"}
        return [
            {"name": name, "admin_key": keys[id(place)], "base_url": f"{place.url}/v1"}
            for name, place in zip("abc", places, strict=True)
        ]

    before = await stage.page(one, "", organizations=entries(one, two, three))
    page = await stage.page(one, "", organizations=entries(two, one, three))
    states = re.findall(
        r'^openai_api_up\{organization="(.)",.*\} (\S+)$', page.decode(), re.MULTILINE
    )
    assert set(states) == {("a", "0.0"), ("b", "0.0"), ("c", "1.0")}
    for name in "ab":
        mine = [
            {series: value for series, value in counters(each).items() if f'"{name}"' in series}
            for each in (before, page)
        ]
        assert mine[0] == mine[1]


async def test_check_verify_and_once_end_with_1(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`check` fails in one line, `verify` says that nothing was compared, and `run --once` ends with
    1; each with the way out.
    """
    place = await stage.organization(1, "sk-admin-1", "sk-admin-2")
    other = await stage.organization(2, "sk-admin-3")
    await stage.page(place, "sk-admin-1")
    way_out = "set state.path to a new file"
    for key, at, good in (
        ("sk-admin-1", place, True),
        ("sk-admin-2", place, True),
        ("sk-admin-3", other, False),
    ):
        settings = load_mapping(stage.mapping(at, key), {})
        found = [
            finding
            for finding in await check._asked(
                settings, settings.organizations[0], False, stage.folder / "state.db"
            )
            if "state" in finding.told
        ]
        assert [finding.level for finding in found] == ["ok" if good else "fail"]
        assert good or way_out in found[0].told
        refused = [
            verdict
            async for verdict in verdicts(settings, {}, int(stage.clock.time), None, None)
            if isinstance(verdict, Refused)
        ]
        assert bool(refused) is not good
        assert all(way_out in str(verdict) for verdict in refused)
        assert (await once(settings, stage.clock) == 0) is good
    capsys.readouterr()


async def once(settings: Settings, clock: Clock) -> int:
    """The exit code of `run --once`."""
    async with AsyncExitStack() as stack:
        run_clock = RunClock(clock.now, clock.monotonic)
        exporter = await app.wire(settings, stack, clock=run_clock, env={}, once=True)
        return await app._once(exporter, lambda page: None)


@pytest.mark.parametrize("version", [1, 3, 5])
async def test_a_state_of_an_older_release(stage: Stage, version: int) -> None:
    """A state that knows no key yet is compared at its first start: its own organization goes on,
    another one is refused.
    """
    place = await stage.organization(1, "sk-admin-1")
    other = await stage.organization(2, "sk-admin-2")
    before = await stage.page(place, "sk-admin-1")
    with sqlite3.connect(stage.folder / "state.db") as db:
        db.execute("DELETE FROM meta WHERE key LIKE 'owner:%'")
        if version < 5:
            db.execute("UPDATE sources SET organization_id = NULL")
    db.close()
    page = await stage.page(other, "sk-admin-2")
    assert up(page) == {0.0}
    assert counters(page) == counters(before)
    assert up(await stage.page(place, "sk-admin-1")) == {1.0}


def test_nothing_of_a_key_is_stored(tmp_path: Path) -> None:
    """The state holds marks of keys, from which no key can be found."""
    from otel_openai_usage.domain.identity import Identity, mark
    from otel_openai_usage.storage.sqlite.store import Store

    store = Store(tmp_path / "state.db")
    made = mark(store.instance_id, "https://api.example/v1", "sk-admin-secret")
    for number in range(40):
        store.set_owner("default", Identity(frozenset({"org-1"})), (f"{number}", made))
    found = store.owner("default")
    assert found.marks == ("39", made)
    assert found.identity.ids == {"org-1"}
    store.set_owner("default", Identity(), tuple(map(str, range(100))))
    assert len(store.owner("default").marks) == 32
    assert "sk-admin" not in json.dumps(store.note("owner:default"))
    store.close()
