"""The OTLP sender against Collectors of all moods, over both protocols."""

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from threading import Event

import pytest
from opentelemetry.sdk.resources import Resource
from pydantic import SecretStr

from otel_openai_usage.config import Otlp
from otel_openai_usage.core.snapshot import Board
from otel_openai_usage.metrics.batches import SIZE
from otel_openai_usage.metrics.otlp import exporter
from otel_openai_usage.metrics.own import Own
from otel_openai_usage.metrics.readers import Sender
from tests.metrics.boards import HOUSE, START, board, snapshot
from tests.metrics.collectors import Received, black_hole, dead, grpc_collector, http_collector
from tests.web.certificates import Authority

PROTOCOLS = ["grpc", "http/protobuf"]
NOW = 1_763_800_000.0


class House:
    """A sender on its board, and what became of its attempts."""

    def __init__(
        self,
        url: str,
        protocol: str,
        shown: Board,
        *to_resource: str,
        interval: float = 3600,
        **settings: object,
    ) -> None:
        resource = Resource({"service.name": "test"})
        self.board = shown
        self.own = Own(shown, resource, exporters=["otlp"])
        self.attempts: list[tuple[int, bool]] = []
        self.attempted = Event()
        otlp = Otlp.model_validate({"endpoint": url, "protocol": protocol, **settings})
        self.sender = Sender(
            exporter(otlp),
            shown,
            self.own,
            resource,
            interval=interval,
            to_resource=to_resource,
            attempted=self._attempted,
            now=lambda: NOW,
        )

    def _attempted(self, version: int, ok: bool) -> None:
        self.attempts.append((version, ok))
        self.attempted.set()

    def failed(self) -> float:
        """`exports_failed`, as we tell it ourselves."""
        data = self.own.collect()
        assert data
        metrics = {
            metric.name: metric.data for metric in data.resource_metrics[0].scope_metrics[0].metrics
        }
        (point,) = metrics["otel_openai_usage.exports_failed"].data_points
        return point.value  # type: ignore[union-attr]


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    """Each protocol in turn."""
    return str(request.param)


@pytest.fixture
def collector(protocol: str) -> Iterator[Received]:
    """A Collector that speaks it."""
    serve: Callable[[], AbstractContextManager[Received]] = (
        grpc_collector if protocol == "grpc" else http_collector
    )
    with serve() as received:
        yield received


def test_what_arrives_is_what_the_board_shows(collector: Received, protocol: str) -> None:
    """Every point with its value as int or double, its own start and the time of sending; our
    health beside it.
    """
    house = House(collector.url, protocol, board(HOUSE))
    assert house.sender.flush() is True
    arrived = {
        (name, tuple(attributes.values())): point for name, attributes, point in collector.points()
    }
    tokens = arrived["openai.api.tokens", ("acme", "text-embedding-3", "embeddings", "input")]
    assert (tokens.WhichOneof("value"), tokens.as_int) == ("as_int", 0)
    cost = arrived["openai.api.cost", ("acme", "usd")]
    assert (cost.WhichOneof("value"), cost.as_double) == ("as_double", 1234567.89)
    assert (cost.start_time_unix_nano, cost.time_unix_nano) == (START, int(NOW * 1e9))
    assert len([name for name, _ in arrived if name.startswith("openai.")]) == sum(
        map(len, HOUSE.values())
    )
    assert ("otel_openai_usage.exports_failed", ("otlp",)) in arrived
    (resource,) = collector.requests[0].resource_metrics
    assert [scope.scope.name for scope in resource.scope_metrics] == [
        "otel_openai_usage",
        "otel_openai_usage.health",
    ]
    house.sender.shutdown()


def test_headers_and_compression(collector: Received, protocol: str) -> None:
    """Headers are sent; gzip and none both arrive."""
    for compression in ("gzip", "none"):
        house = House(
            collector.url,
            protocol,
            board(HOUSE),
            compression=compression,
            headers={"X-Tenant": SecretStr("me")},
        )
        assert house.sender.flush() is True
        house.sender.shutdown()
    assert [headers["x-tenant"] for headers in collector.headers] == ["me", "me"]


def test_tls(protocol: str, tmp_path: Path) -> None:
    """https:// with our CA arrives; without it nothing is sent."""
    authority = Authority(tmp_path)
    with (grpc_collector if protocol == "grpc" else http_collector)(
        authority.issue("collector")
    ) as received:
        for tls, arrives in (({"ca_file": authority.file}, True), (None, False)):
            house = House(
                received.url, protocol, board(HOUSE), tls=tls, timeout=timedelta(seconds=1)
            )
            assert house.sender.flush() is arrives
            house.sender.shutdown()
    assert len(received.requests) == 1


def test_attributes_move_to_resources(collector: Received, protocol: str) -> None:
    """With `to_resource` each organization is a resource of its own, and our health is the
    exporter's own.
    """
    shown = board(
        {"openai.api.tokens": [({"organization": name, "model": "m"}, 1) for name in ("a", "b")]}
    )
    house = House(collector.url, protocol, shown, "organization")
    assert house.sender.flush() is True
    resources = [
        {pair.key: pair.value.string_value for pair in part.resource.attributes}
        for part in collector.requests[0].resource_metrics
    ]
    assert resources == [
        {"service.name": "test", "organization": "a"},
        {"service.name": "test", "organization": "b"},
        {"service.name": "test"},
    ]
    assert [
        attributes for name, attributes, _ in collector.points() if name == "openai.api.tokens"
    ] == [{"model": "m"}, {"model": "m"}]
    house.sender.shutdown()


def test_many_points_go_in_batches(collector: Received, protocol: str) -> None:
    """23,000 long series pass a Collector that takes 4 MiB: in requests of at most 8,000 points,
    each point once.
    """
    rows = [
        (
            {
                "organization": "acme",
                "project_name": "p" * 120,
                "model": "gpt-5",
                "user_id": f"user-{number}",
            },
            number,
        )
        for number in range(23_000)
    ]
    house = House(collector.url, protocol, board({"openai.api.tokens": rows}))
    assert house.sender.flush() is True
    sizes = [sum(1 for _ in Received.points(_only(request))) for request in collector.requests]
    assert max(sizes) <= SIZE <= 8_000
    users = [
        attributes["user_id"]
        for name, attributes, _ in collector.points()
        if name == "openai.api.tokens"
    ]
    assert users == [f"user-{number}" for number in range(23_000)]
    house.sender.shutdown()


def _only(request: object) -> Received:
    one = Received()
    one.requests = [request]  # type: ignore[list-item]
    return one


def test_unchanged_data_is_sent_every_interval(collector: Received, protocol: str) -> None:
    """Each interval brings the same points again, and each attempt is told with the version that it
    showed.
    """
    house = House(collector.url, protocol, board(HOUSE), interval=0.05)
    house.sender.start()
    _until(lambda: len(house.attempts) >= 3)
    house.board.publish(snapshot(HOUSE, 2))
    _until(lambda: (2, True) in house.attempts)
    assert house.attempts[:3] == [(1, True)] * 3
    house.sender.shutdown()
    assert len(collector.requests) >= 4


def test_the_last_change_is_sent_on_shutdown(collector: Received, protocol: str) -> None:
    """What was published since the last attempt still goes out when we stop."""
    house = House(collector.url, protocol, board(HOUSE))
    house.sender.start()
    began = time.monotonic()
    house.sender.shutdown()
    assert (house.attempts, len(collector.requests)) == ([(1, True)], 1)
    assert time.monotonic() - began < 2


def test_an_outage_is_said_once(
    collector: Received, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Three refusals and a recovery are two log lines, three counted failures, and nothing from the
    SDK.
    """
    caplog.set_level(logging.INFO)
    house = House(collector.url, protocol, board(HOUSE))
    collector.refusing = True
    assert [house.sender.flush() for _ in range(3)] == [False] * 3
    collector.refusing = False
    assert [house.sender.flush() for _ in range(2)] == [True] * 2
    assert [record.message for record in caplog.records] == [
        "OTLP export did not arrive; tried again every interval",
        "OTLP export arrives again",
    ]
    assert ("PERMISSION_DENIED" if protocol == "grpc" else "403") in vars(caplog.records[0])[
        "error"
    ]
    assert house.failed() == 3
    assert house.attempts == [(1, False)] * 3 + [(1, True)] * 2
    house.sender.shutdown()


def test_a_slow_collector_holds_up_nobody(collector: Received, protocol: str) -> None:
    """While a request is on its way, publishing and reading our health take no time."""
    collector.delay = 1.0
    house = House(collector.url, protocol, board(HOUSE), interval=0.01)
    house.sender.start()
    time.sleep(0.3)
    began = time.monotonic()
    house.board.publish(snapshot(HOUSE, 2))
    assert house.failed() == 0
    assert time.monotonic() - began < 0.2
    collector.delay = 0
    house.sender.shutdown()


@pytest.mark.parametrize("mood", ["dead", "black hole"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "in flight"])
def test_shutdown_ends_in_time_without_a_collector(protocol: str, mood: str, busy: bool) -> None:
    """Whether an attempt is on its way or not, shutdown returns within its time, though the
    exporter would wait 10 s.
    """
    with black_hole() as hole:
        house = House(
            hole if mood == "black hole" else dead(),
            protocol,
            board(HOUSE),
            interval=0.05 if busy else 3600,
        )
        house.sender.start()
        if busy:
            time.sleep(0.3)
        began = time.monotonic()
        house.sender.shutdown(0.8)
        assert time.monotonic() - began < 1.3


def test_a_process_ends_with_a_request_on_its_way(protocol: str) -> None:
    """A black hole does not keep the interpreter from ending."""
    program = f"""
import time
from tests.metrics.test_readers import House, HOUSE, board
house = House({{url!r}}, {protocol!r}, board(HOUSE), interval=0.05)
house.sender.start()
time.sleep(0.3)
print(time.monotonic())
house.sender.shutdown(1.0)
"""
    with black_hole() as hole:
        done = subprocess.run(
            [sys.executable, "-c", program.format(url=hole)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    ended = time.monotonic()
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert ended - float(done.stdout) < 8  # the request would wait for 10 s


def test_a_time_out_is_ours(protocol: str) -> None:
    """A black hole costs an attempt `timeout`, whatever OTEL_EXPORTER_OTLP_TIMEOUT says."""
    with black_hole() as hole:
        house = House(hole, protocol, board(HOUSE), timeout=timedelta(seconds=0.5))
        began = time.monotonic()
        assert house.sender.flush() is False
        assert 0.4 < time.monotonic() - began < 3
        house.sender.shutdown()


def _until(true: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)
