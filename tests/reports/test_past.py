import asyncio
import csv
import io
import json
import re
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from google.rpc.status_pb2 import Status

from otel_openai_usage.commands import backfill
from otel_openai_usage.commands.backfill import Asked
from otel_openai_usage.composition.stores import queries_opener
from otel_openai_usage.config import Otlp, Settings, load, state_file
from otel_openai_usage.domain.endpoints import ENDPOINTS
from otel_openai_usage.domain.model import Width, Window, floor
from otel_openai_usage.domain.spreadsheet import safe
from otel_openai_usage.engine.backfill import Call, plan
from otel_openai_usage.errors import ExporterError, StateInUse
from otel_openai_usage.exporters.otlp.exporter import exporter
from otel_openai_usage.exporters.resource import resource
from otel_openai_usage.reports import export, records
from otel_openai_usage.reports.formats import otlp
from otel_openai_usage.reports.formats.focus import COLUMNS
from otel_openai_usage.simulator import lateness
from otel_openai_usage.simulator.server import ADMIN_KEY, application, running
from otel_openai_usage.simulator.world import World
from otel_openai_usage.storage.sqlite.queries import open_queries
from otel_openai_usage.storage.sqlite.store import Store
from tests.exporters.collectors import grpc_collector, http_collector
from tests.real.collector import Collector
from tests.real.prometheus import Prometheus
from tests.real.servers import program

DAY = 86_400
HOUR = 3_600
NOW = int(datetime(2026, 11, 19, 10, 20, tzinfo=UTC).timestamp())
TODAY = floor(NOW, DAY)
SINCE = date(2026, 11, 9)
START = TODAY - 10 * DAY
COMPLETIONS = ENDPOINTS["completions"]


class Scene:
    """A simulated organization at rest, whose last ten days were read into a store."""

    def __init__(self, world: World, url: str, folder: Path) -> None:
        self.world = world
        self.env = {"OPENAI_ADMIN_KEY": ADMIN_KEY, "OPENAI_BASE_URL": f"{url}/v1"}
        self.settings: Settings = load(
            None,
            self.env,
            {
                "state.path": str(folder / "state.db"),
                "api.requests_per_minute": 60000,
                "history.hours": "4d",
            },
        )
        self.path = state_file(self.settings, self.env)
        self.calls: list[str] = []

    async def read(self, since: date = SINCE) -> int:
        """Backfill; `calls` remembers the reported calls."""

        def report(name: str, done: int, _: int) -> None:
            if done:
                self.calls.append(name)

        return await backfill.read(self.settings, self.env, Asked(since), NOW, report)

    def truth(self, start: int, end: int, name: str = "input") -> int:
        """What the world's completions really used."""
        index = [measure.name for measure in COMPLETIONS.measures].index(name)
        return sum(
            int(amounts[index])
            for amounts in self.world.totals("completions", Window(start, end), ()).values()
        )


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """The scene, already read."""
    world = World(3, projects=2, keys=3, users=3, lateness=lateness.PROMPT)
    async with running(application(world, clock=lambda: datetime.fromtimestamp(NOW, UTC))) as url:
        made = Scene(world, url, tmp_path)
        await made.read()
        yield made


async def test_the_past_is_read_to_the_token_and_no_counter_moves(scene: Scene) -> None:
    """Every day equals the world's own total; every total of the ledger is still nothing."""
    with open_queries(scene.path) as past:
        rows = [
            row
            for row in past.usage(START, TODAY, by=("operation",))
            if row.group == ("completions",)
        ]
        assert [row.input for row in rows] == [
            scene.truth(day, day + DAY) for day in range(START, TODAY, DAY)
        ]
        for hour in range(TODAY - 2 * DAY, TODAY, HOUR):
            used = {
                row.group[0]: row.output for row in past.usage(hour, hour + HOUR, by=("operation",))
            }
            assert used.get("completions", 0) == scene.truth(hour, hour + HOUR, "output")
    with open_queries(scene.path) as reader:
        stored_series_list = [
            stored_series
            for source_state in reader.source_states("default")
            for stored_series in source_state.series.values()
        ]
        assert stored_series_list
        assert all(
            not any(stored_series.total)
            and not any(stored_series.shown)
            and not stored_series.changed
            and not stored_series.estimate
            for stored_series in stored_series_list
        )


async def test_a_backfill_continues_where_it_was(scene: Scene) -> None:
    """What was read is not read again; an earlier day is read alone."""
    scene.calls.clear()
    assert await scene.read() == 0
    assert scene.calls == []
    assert await scene.read(SINCE - timedelta(1)) > 0
    assert scene.calls.count("default usage/completions") == 1


async def test_a_running_exporter_is_left_alone(scene: Scene) -> None:
    """The store has one writer; the error says to stop it."""
    store = Store(scene.path)
    try:
        with pytest.raises(StateInUse, match="Stop the exporter"):
            await scene.read()
    finally:
        store.close()


@pytest.mark.real
async def test_a_real_prometheus_answers_right_over_the_past(
    scene: Scene, tmp_path: Path, prometheus: Callable[..., Prometheus]
) -> None:
    """promtool makes blocks of the file, and `increase()` over days and hours gives the world's own
    totals.
    """
    file = tmp_path / "past.om"
    with file.open("w") as out:
        await asyncio.to_thread(
            backfill.write_openmetrics, scene.settings, scene.env, Asked(SINCE), NOW, out
        )
    command: list[str | Path] = [
        program("promtool"),
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        "--quiet",
        file,
        tmp_path / "blocks",
    ]
    done = await asyncio.to_thread(
        lambda: subprocess.run(command, capture_output=True, text=True, check=False)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    server = await asyncio.to_thread(prometheus, [], blocks=tmp_path / "blocks")
    what = 'sum(increase(openai_api_tokens_total{operation="completions",token_type="input"}[%s] @ %d))'
    stretches = (
        ("10d", 10 * DAY, TODAY),
        ("1d", DAY, TODAY - 6 * DAY),
        ("1d", DAY, TODAY),
        ("2h", 2 * HOUR, TODAY - 4 * HOUR),
    )
    for span, seconds, end in stretches:
        value = await asyncio.to_thread(server.value, what % (span, end))
        assert value == pytest.approx(scene.truth(end - seconds, end), rel=1e-6), (span, end)
    with open_queries(scene.path) as past:
        billed = sum(spent.cost for spent in past.costs(START, TODAY))
    value = await asyncio.to_thread(
        server.value, f"sum(increase(openai_api_cost_total[10d] @ {TODAY}))"
    )
    assert value == pytest.approx(float(billed), rel=1e-6)


async def test_a_refusal_names_the_backend_s_reason(scene: Scene) -> None:
    """What a backend says when it refuses the past is in the error; points that it rejects of a
    request that it takes are an error, too.
    """
    reason = Status(message="invalid temporality").SerializeToString()
    refusal = (400, {"Content-Type": "application/x-protobuf"}, reason)
    with http_collector() as received:
        where = {"otlp.endpoint": received.url, "otlp.protocol": "http/protobuf"}
        settings = load(None, scene.env, {"state.path": str(scene.path), **where})
        received.answers = [refusal]
        with pytest.raises(ExporterError, match="400: invalid temporality"):
            await asyncio.to_thread(backfill.send_otlp, settings, scene.env, Asked(SINCE), NOW)
        partial = received.response.partial_success
        partial.rejected_data_points = 2
        partial.error_message = "out of order"
        with pytest.raises(ExporterError, match=r"rejected \d+, and 0 .*; out of order"):
            await asyncio.to_thread(backfill.send_otlp, settings, scene.env, Asked(SINCE), NOW)


async def test_otlp_sends_deltas_with_their_own_times(scene: Scene) -> None:
    """The points of a day add up to the world's total; the resource says backfill, and every point
    ends before counting began.
    """
    with grpc_collector() as received:
        sender = exporter(Otlp(endpoint=received.url))
        series = backfill.series(scene.settings, scene.env, Asked(SINCE), NOW)
        sent = await asyncio.to_thread(otlp.send, series, sender, resource("one", {}))
        sender.shutdown()
    found = [(name, attributes, point) for name, attributes, point in received.points()]
    assert len(found) == sent.points
    tokens = [
        point
        for name, labels, point in found
        if name == "openai.api.tokens"
        and labels["operation"] == "completions"
        and labels["token_type"] == "input"
    ]
    assert sum(point.as_int for point in tokens) == scene.truth(START, TODAY)
    assert all(
        START <= point.start_time_unix_nano / 1e9 < point.time_unix_nano / 1e9 <= TODAY
        for point in tokens
    )
    resources = {
        attribute.key: attribute.value.bool_value
        for request in received.requests
        for part in request.resource_metrics
        for attribute in part.resource.attributes
        if attribute.key == "backfill"
    }
    assert resources == {"backfill": True}
    kinds = {
        metric.sum.aggregation_temporality
        for request in received.requests
        for part in request.resource_metrics
        for scope in part.scope_metrics
        for metric in scope.metrics
        if metric.HasField("sum")
    }
    assert kinds == {1}


@pytest.mark.real
async def test_a_real_collector_takes_the_past(
    scene: Scene, collector: Callable[..., Collector]
) -> None:
    """Every point arrives as a delta with the time of its bucket, marked, and a day's points add up
    to the world's total.
    """
    shown = {
        "exporters": {"debug": {"verbosity": "detailed", "sampling_initial": 100_000}},
        "service": {
            "pipelines": {
                "metrics": {"exporters": ["debug"]},
                "metrics/delta": {"exporters": ["prometheus"]},
            }
        },
    }
    server = await asyncio.to_thread(collector, override=shown)
    settings = load(
        None, scene.env, {"state.path": str(scene.path), "otlp.endpoint": f"http://{server.grpc}"}
    )
    sent = await asyncio.to_thread(backfill.send_otlp, settings, scene.env, Asked(SINCE), NOW)
    points = re.compile(r"^NumberDataPoints #\d+$", re.MULTILINE)

    def arrived() -> bool:
        return len(points.findall(server.process.output)) >= sent

    await asyncio.to_thread(server.process.until, arrived, "all points at the Collector", 60)
    output = server.process.output
    assert "-> backfill: Bool(true)" in output
    assert set(re.findall(r"AggregationTemporality: (\w+)", output)) == {"Delta"}
    tokens = "".join(
        part for part in output.split("-> Name: ") if part.startswith("openai.api.tokens\n")
    )
    day = f"{datetime.fromtimestamp(TODAY - 6 * DAY, UTC):%Y-%m-%d}"
    marks = (
        "-> operation: Str(completions)\n",
        "-> token_type: Str(input)\n",
        f"StartTimestamp: {day}",
    )
    mine = [part for part in points.split(tokens)[1:] if all(mark in part for mark in marks)]
    assert sum(
        int(re.findall(r"^Value: (\d+)", part, re.MULTILINE)[0]) for part in mine
    ) == scene.truth(TODAY - 6 * DAY, TODAY - 5 * DAY)


def rows(path: Path, form: str) -> list[dict[str, str]]:
    """An export, parsed."""
    text = "".join(export.lines(queries_opener(path), SINCE, SINCE + timedelta(9), form))
    return (
        [json.loads(line) for line in text.splitlines()]
        if form == "json"
        else list(csv.DictReader(io.StringIO(text)))
    )


async def test_all_formats_hold_the_same_money(scene: Scene) -> None:
    """The costs of CSV, JSON lines and FOCUS are the billed cost, to the last digit; tokens are the
    world's.
    """
    with open_queries(scene.path) as past:
        billed = sum((spent.cost for spent in past.costs(START, TODAY)), Decimal(0))
    found, lines, focus = (rows(scene.path, form) for form in ("csv", "json", "focus"))
    assert sum(Decimal(row["cost"]) for row in found if row["cost"]) == billed
    assert sum(Decimal(row["cost"]) for row in lines if row["cost"]) == billed
    assert sum(Decimal(row["BilledCost"]) for row in focus) == billed
    assert sum(
        int(row["input"]) for row in found if row["operation"] == "completions"
    ) == scene.truth(START, TODAY)
    assert tuple(found[0]) == tuple(lines[0]) == records.COLUMNS
    assert tuple(focus[0]) == COLUMNS
    assert {row["project_name"] for row in found if row["project_id"]} == {
        project.name for project in scene.world.company.projects
    }


def test_a_spreadsheet_sees_no_formula() -> None:
    """Text that a spreadsheet would run is text; numbers stay numbers."""
    assert safe('=HYPERLINK("http://x")') == '\'=HYPERLINK("http://x")'
    assert [safe(text)[0] for text in ("+1", "-1", "@a", "\t=1", "\r=1")] == ["'"] * 5
    assert safe("gpt-4o, input") == "gpt-4o, input"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store that is closed afterwards."""
    opened = Store(tmp_path / "plan.db")
    yield opened
    opened.close()


def test_as_few_calls_as_possible(store: Store) -> None:
    """Days for what is old, hours for the rest, minutes only for the hour in which counting began;
    what was read is left out.
    """
    source_state = store.source_state("default", COMPLETIONS, TODAY + 2 * HOUR + 600, ())
    calls = plan(source_state, TODAY - 60 * DAY, NOW, TODAY - 5 * DAY, [])
    assert calls == [
        Call(Window(TODAY + 2 * HOUR, TODAY + 2 * HOUR + 600), Width.MINUTE),
        Call(Window(TODAY - 5 * DAY, TODAY + 2 * HOUR), Width.HOUR),
        Call(Window(TODAY - 36 * DAY, TODAY - 5 * DAY), Width.DAY),
        Call(Window(TODAY - 60 * DAY, TODAY - 36 * DAY), Width.DAY),
    ]
    assert (
        plan(source_state, TODAY - 60 * DAY, NOW, TODAY - 5 * DAY, [call.window for call in calls])
        == []
    )
    costs = store.source_state("default", ENDPOINTS["costs"], TODAY, ())
    assert plan(costs, TODAY - 60 * DAY, NOW, TODAY - 5 * DAY, []) == [
        Call(Window(TODAY - 60 * DAY, TODAY), Width.DAY)
    ]
