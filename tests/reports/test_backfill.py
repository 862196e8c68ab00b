"""Where the past ends, what fails on the way, and what is said before anything is read."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from otel_openai_usage.commands import backfill
from otel_openai_usage.commands.backfill import Asked
from otel_openai_usage.config import Settings, load
from otel_openai_usage.domain.endpoints import COSTS, ENDPOINTS, Endpoint
from otel_openai_usage.domain.instruments import INSTRUMENTS
from otel_openai_usage.domain.model import Rows, Width, Window
from otel_openai_usage.domain.readings import Reading
from otel_openai_usage.engine import recording
from otel_openai_usage.engine.backfill import Call, plan, read
from otel_openai_usage.errors import ConfigError, LookbackExceeded, SourceError
from otel_openai_usage.reports.past import PastSeries
from otel_openai_usage.simulator import lateness
from otel_openai_usage.simulator.faults import Fault, Faults
from otel_openai_usage.simulator.server import ADMIN_KEY, application, running
from otel_openai_usage.simulator.world import World
from otel_openai_usage.storage.sqlite.file import open_read_only
from otel_openai_usage.storage.sqlite.queries import SqliteQueries, open_queries
from otel_openai_usage.storage.sqlite.store import Store
from tests.domain.shelf import DAY, HOUR, MIDNIGHT, bucket

NOW = MIDNIGHT + 10 * HOUR
COMPLETIONS = ENDPOINTS["completions"]


class Reports:
    """Implements ports.Source: something on every bucket, no further back than `since`."""

    def __init__(self, endpoint: Endpoint, since: int) -> None:
        self.endpoint = endpoint
        self.since = since
        self.asked: list[Window] = []

    async def read(
        self,
        window: Window,
        width: Width,
        group_by: Sequence[str],
        known_fingerprints: Mapping[int, bytes],
    ) -> Reading:
        self.asked.append(window)
        if window.start < self.since:
            raise LookbackExceeded(
                "GET usage: 400; that lies further back than OpenAI reports", status=400
            )
        dims = (None,) * len(self.endpoint.dimensions)
        rows: Rows = {dims: (1,) * len(self.endpoint.measures)}
        starts = range(window.start, window.end, width)
        return Reading([bucket(start, rows) for start in starts], organization_id="org-reported")


@pytest.mark.parametrize("endpoint", [COMPLETIONS, COSTS], ids=lambda endpoint: endpoint.name)
@pytest.mark.parametrize("reach", [1, 17, 100])
async def test_everything_that_openai_still_reports_is_read(
    tmp_path: Path, endpoint: Endpoint, reach: int
) -> None:
    """Where a window reaches beyond what OpenAI reports, its newer days are read all the same, to
    the day.
    """
    store = Store(tmp_path / "state.db")
    source_state = store.source_state("default", endpoint, MIDNIGHT, ())
    source = Reports(endpoint, MIDNIGHT - reach * DAY)
    calls = plan(source_state, MIDNIGHT - 400 * DAY, NOW, MIDNIGHT, [])
    done = list[Call]()
    rows = await read(store, source_state, source, calls, NOW, done.append, None)
    assert rows == reach
    assert store.backfilled(source_state)[0].start == MIDNIGHT - reach * DAY
    assert done == calls  # the progress bar reaches its end
    assert len(source.asked) <= len(calls) + 16
    with open_queries(tmp_path / "state.db") as past:
        assert past.span() == (MIDNIGHT - reach * DAY, MIDNIGHT - DAY)
        assert past.sources()[0].organization_id == "org-reported"
    store.close()


@pytest.mark.parametrize(
    ("kind", "expected"), [("counter", [3, 0, 0, 1]), ("gauge", [3, -5, 2, 4])]
)
def test_the_past_of_a_counter_never_falls(kind: str, expected: list[int]) -> None:
    """A credit that is billed after costs is overtaken first: promtool and a monotonic sum are
    given nothing that falls.
    """
    instrument = next(item for item in INSTRUMENTS.values() if item.kind == kind)
    past = PastSeries(instrument, {}, MIDNIGHT)
    for day, amount in enumerate((3, -5, 2, 4)):
        past.add(MIDNIGHT - (4 - day) * DAY, DAY, Decimal(amount))
    assert [(start, amount) for start, _, amount in past.parts()] == [
        (MIDNIGHT - (4 - day) * DAY, amount) for day, amount in enumerate(expected)
    ]


class Scene:
    """Two organizations of one simulated server; nothing was read yet."""

    def __init__(self, url: str, folder: Path, **more: object) -> None:
        self.env = {"OPENAI_ADMIN_KEY": ADMIN_KEY}
        self.settings: Settings = load(
            None,
            self.env,
            {
                "state.path": str(folder / "state.db"),
                "api.requests_per_minute": 60000,
                "api.retries": 0,
                "names.enabled": False,
                "usage.endpoints": ["completions", "images"],
                **more,
                "organizations": [
                    {"name": name, "base_url": f"{url}/v1", "admin_key": ADMIN_KEY}
                    for name in ("one", "two")
                ],
            },
        )
        self.path = folder / "state.db"

    async def read(self, since: date, until: date | None = None) -> int:
        """Backfill."""
        return await backfill.read(
            self.settings, self.env, Asked(since, until), NOW, lambda *_: None
        )


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[tuple[Scene, Faults]]:
    """The scene, and what goes wrong in it."""
    faults = Faults()
    world = World(3, projects=2, keys=3, users=3, lateness=lateness.PROMPT)
    async with running(
        application(world, faults=faults, clock=lambda: datetime.fromtimestamp(NOW, UTC))
    ) as url:
        yield Scene(url, tmp_path), faults


async def test_a_source_that_fails_does_not_stop_the_others(
    scene: tuple[Scene, Faults], caplog: pytest.LogCaptureFixture
) -> None:
    """What else can be read is read, of every organization; the failure is reported, and the next run
    reads only what is missing.
    """
    scene_, faults = scene
    faults.add(Fault("error", "usage/completions", status=500))
    with pytest.raises(
        SourceError, match=r"usage/completions: 500.*run the same again to read the rest"
    ):
        await scene_.read(date(2026, 10, 30))
    assert [
        record.organization  # type: ignore[attr-defined]
        for record in caplog.records
        if record.message.startswith("the past of a source")
    ] == ["one", "two"]
    with open_queries(scene_.path) as past:
        assert {origin.organization for origin in past.sources()} == {"one", "two"}
        assert {spent.group for spent in past.costs(0, NOW, by=("organization",))} == {
            ("one",),
            ("two",),
        }
        assert ("completions",) not in {
            used.group for used in past.usage(0, NOW, by=("operation",))
        }
    faults.clear()
    assert await scene_.read(date(2026, 10, 30)) > 0
    with open_queries(scene_.path) as past:
        assert ("completions",) in {used.group for used in past.usage(0, NOW, by=("operation",))}
    assert await scene_.read(date(2026, 10, 30)) == 0


BY_KEY = ["project_id", "line_item", "api_key_id"]
REFUSED_BEFORE = date(2025, 12, 6)


async def test_a_grouping_that_is_refused_before_a_date(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Days on which OpenAI refuses a dimension of `costs.group_by` are read without it, the others
    with it; that is reported once, with the date, and every day's sum is OpenAI's.
    """
    refused = Fault("refused_group", "costs", group="api_key_id", before=str(REFUSED_BEFORE))
    faults = Faults([refused])
    world = World(3, projects=2, keys=3, users=3, lateness=lateness.PROMPT)
    async with running(
        application(world, faults=faults, clock=lambda: datetime.fromtimestamp(NOW, UTC))
    ) as url:
        settings = {"usage.enabled": False, "costs.group_by": BY_KEY}
        scene_ = Scene(url, tmp_path, **settings)
        assert await scene_.read(date(2025, 10, 1)) > 0
        assert await scene_.read(date(2025, 10, 1)) == 0
    facts = [
        (record.organization, record.source, record.dimensions, record.before)  # type: ignore[attr-defined]
        for record in caplog.records
        if getattr(record, "event", "") == "grouping_refused"
    ]
    assert facts == [
        ("one", "costs", "api_key_id", "2025-12-06"),
        ("two", "costs", "api_key_id", "2025-12-06"),
    ]
    first = int(datetime(2025, 10, 1, tzinfo=UTC).timestamp())
    border = int(datetime(2025, 12, 6, tzinfo=UTC).timestamp())
    store = Store(scene_.path)
    source_state = store.source_state("one", COSTS, MIDNIGHT, ())
    for day in range(first, MIDNIGHT, DAY):
        grouping = tuple(BY_KEY) if day >= border else ("project_id", "line_item")
        assert source_state.groupings.at(day) == grouping
        rows = {
            row.dims: row.amounts for row in store.rows_within(source_state, Width, day, day + DAY)
        }
        assert rows == world.totals("costs", Window(day, day + DAY), grouping)
    store.close()


@pytest.mark.parametrize(("kind", "sources"), [("wrong_key", 1), ("missing_scope", 3)])
async def test_a_key_that_is_refused_is_tried_once(
    scene: tuple[Scene, Faults], caplog: pytest.LogCaptureFixture, kind: str, sources: int
) -> None:
    """Where only a scope is missing, what needs another is tried; each organization is."""
    scene_, faults = scene
    faults.add(Fault(kind))
    with pytest.raises(SourceError, match="run the same again to read the rest"):
        await scene_.read(date(2026, 10, 30))
    failed = [
        record.organization  # type: ignore[attr-defined]
        for record in caplog.records
        if record.message.startswith("the past of a source")
    ]
    assert failed == ["one"] * sources + ["two"] * sources


async def test_impossible_days_are_refused_before_anything_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Days that were counted, an order that is none, and a state that keeps nothing are refused;
    days that are not kept are warned of.
    """
    scene_ = Scene("http://127.0.0.1:9", tmp_path)
    today = date(2026, 11, 2)
    with pytest.raises(
        ConfigError,
        match=r"--from 2026-11-02: expected a day before counting began, which was 2026-11-02 00:00 UTC",
    ):
        await scene_.read(today)
    for since, until in (
        (today + timedelta(1), None),
        (today - timedelta(1), today - timedelta(2)),
    ):
        with pytest.raises(ConfigError, match="expected a day before --to and before today"):
            await scene_.read(since, until)
    with pytest.raises(ConfigError, match="got :memory:"):
        await Scene("http://127.0.0.1:9", tmp_path, **{"state.path": ":memory:"}).read(
            today - timedelta(1)
        )
    assert "older than history.days" not in caplog.text
    with pytest.raises(SourceError):
        await scene_.read(today - timedelta(1101))
    assert "what is older than history.days is let go when the exporter runs" in caplog.text


def command(folder: Path, *arguments: str, pipe: str = "") -> tuple[int, str, str]:
    """What the command does, in a process of its own: exit code, stdout, stderr. `pipe` is a
    shell's redirection.
    """
    env = {
        "PATH": os.environ["PATH"],
        "OPENAI_ADMIN_KEY": "x",
        "XDG_STATE_HOME": str(folder),
        "OPENAI_BASE_URL": "http://127.0.0.1:9",
    }
    line = f'set -o pipefail; "$0" -m otel_openai_usage "$@" {pipe}'
    command = ["bash", "-c", line, sys.executable, *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--otlp"], 2, "--otlp: no collector is known"),
        (
            ["--openmetrics", "no/such/past.om"],
            1,
            "looked for the folder of no/such/past.om: there is none",
        ),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_read(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    """Hours of reading are not followed by an error that was known at the start: not even the
    state is made.
    """
    done = command(tmp_path, "backfill", "--from", "2026-01-01", *arguments)
    assert (done[0], said in done[2], list(tmp_path.rglob("*.db"))) == (code, True, [])


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """The folder of a state with more than a pipe holds."""
    store = Store(tmp_path / "otel-openai-usage" / "state.db")
    source_state = store.source_state("default", COSTS, MIDNIGHT, COSTS.group_by)
    items: Rows = {
        (None, f"item {n}", None, None, None, "usd"): (Decimal(n), Decimal(0)) for n in range(3000)
    }
    read_day = Window(MIDNIGHT - DAY, MIDNIGHT)
    recording.record_range(store, source_state, read_day, Width.DAY, {read_day.start: items}, NOW)
    store.close()
    return tmp_path


def test_the_span_is_looked_up(full: Path) -> None:
    """Where the history begins and ends is known without reading it."""
    path = full / "otel-openai-usage" / "state.db"
    steps = list[int]()
    with open_read_only(path) as db:
        db.set_progress_handler(lambda: steps.append(1), 100)
        assert SqliteQueries(db, path).span() == (MIDNIGHT - DAY, MIDNIGHT - DAY)
    assert len(steps) < 10


ALL = ("export", "--from", "0001-01-01", "--to", "9999-12-31")


@pytest.mark.parametrize("more", [(), ("-o", "-")])
def test_a_reader_that_has_enough_is_no_error(full: Path, more: tuple[str, ...]) -> None:
    """`| head -1` gets its line; nothing is complained of. All time can be asked for; `-` is
    stdout.
    """
    code, out, errors = command(full, *ALL, *more, pipe="| head -1")
    assert (code, out[:12], out.count("\n"), errors) == (0, "record,date,", 1, "")
    assert command(full, *ALL, *more)[1].count("\n") == 3001


def test_a_reader_that_goes_away_is_reported(full: Path) -> None:
    """A file that was cut is no success, though it is a pipe; stdout goes on."""
    fifo = full / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["head", "-c", "1", fifo], stdout=subprocess.DEVNULL):
        code, _, errors = command(full, *ALL, "-o", str(fifo))
    assert (code, errors) == (
        1,
        f"otel-openai-usage: wrote {fifo}: Broken pipe; check the path and the room on that disk\n",
    )


def test_a_full_disk_is_reported(full: Path) -> None:
    """Where stdout, or the file, takes no more, that is said in a sentence, with exit code 1."""
    code, _, errors = command(full, *ALL, pipe="> /dev/full")
    assert (code, errors) == (
        1,
        "otel-openai-usage: wrote stdout: No space left on device; check the path and the room on that disk\n",
    )
    assert command(full, *ALL, "-o", "/dev/full")[0] == 1
