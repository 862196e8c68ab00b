"""The OTLP sender against Collectors that work, refuse, are slow or dead, over both protocols."""

import gzip
import logging
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from threading import Event

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from pydantic import SecretStr

from otel_openai_usage import __version__
from otel_openai_usage.config import Otlp
from otel_openai_usage.domain.snapshot import Board
from otel_openai_usage.exporters.otlp.exporter import exporter
from otel_openai_usage.exporters.otlp.request import MAX_POINTS
from otel_openai_usage.exporters.otlp.sender import Sender
from otel_openai_usage.exporters.self_metrics import SelfMetrics
from tests.exporters.boards import ORGANIZATION, START, Rows, board, snapshot
from tests.exporters.collectors import (
    Received,
    dead,
    endless,
    grpc_collector,
    http_collector,
    silent_server,
)
from tests.http.certificates import Authority

PROTOCOLS = ["grpc", "http/protobuf"]
NOW = 1_763_800_000.0


class Setup:
    """A sender with its board, and the results of its attempts."""

    def __init__(
        self,
        url: str,
        protocol: str,
        shown: Board,
        *to_resource: str,
        interval: float = 3600,
        **settings: object,
    ) -> None:
        who = Resource({"service.name": "test"})
        self.board = shown
        self.self_metrics = SelfMetrics(shown, who, exporters=["otlp"])
        self.attempts: list[tuple[int, bool]] = []
        self.attempted = Event()
        self.monotonic = 0.0
        otlp = Otlp.model_validate({"endpoint": url, "protocol": protocol, **settings})
        self.sender = Sender(
            exporter(otlp),
            shown,
            self.self_metrics,
            who,
            interval=interval,
            to_resource=to_resource,
            attempted=self._attempted,
            now=lambda: NOW,
            monotonic=lambda: self.monotonic,
        )

    def _attempted(self, version: int, ok: bool) -> None:
        self.attempts.append((version, ok))
        self.attempted.set()

    def failed(self) -> float:
        """Return our own metric `exports_failed`."""
        return self.own_counter("exports_failed")

    def own_counter(self, name: str) -> float:
        """Return one of our own counters of exports."""
        data = self.self_metrics.collect()
        assert data
        metrics = {
            metric.name: metric.data for metric in data.resource_metrics[0].scope_metrics[0].metrics
        }
        (point,) = metrics[f"otel_openai_usage.{name}"].data_points
        return point.value  # type: ignore[union-attr]


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    """Return each protocol in turn."""
    return str(request.param)


@pytest.fixture
def collector(protocol: str) -> Iterator[Received]:
    """Start a Collector with this protocol."""
    serve: Callable[[], AbstractContextManager[Received]] = (
        grpc_collector if protocol == "grpc" else http_collector
    )
    with serve() as received:
        yield received


def test_the_collector_receives_the_snapshot(collector: Received, protocol: str) -> None:
    """Every point arrives with its type, its start and the time of the export; so does our health."""
    setup = Setup(collector.url, protocol, board(ORGANIZATION))
    assert setup.sender.flush() is True
    arrived = {
        (name, tuple(attributes.values())): point for name, attributes, point in collector.points()
    }
    tokens = arrived["openai.api.tokens", ("acme", "text-embedding-3", "embeddings", "input")]
    assert (tokens.WhichOneof("value"), tokens.as_int) == ("as_int", 0)
    cost = arrived["openai.api.cost", ("acme", "usd")]
    assert (cost.WhichOneof("value"), cost.as_double) == ("as_double", 1234567.89)
    assert (cost.start_time_unix_nano, cost.time_unix_nano) == (START, int(NOW * 1e9))
    assert len([name for name, _ in arrived if name.startswith("openai.")]) == sum(
        map(len, ORGANIZATION.values())
    )
    assert ("otel_openai_usage.exports_failed", ("otlp",)) in arrived
    (only,) = collector.requests[0].resource_metrics
    assert [scope.scope.name for scope in only.scope_metrics] == [
        "otel_openai_usage",
        "otel_openai_usage.health",
    ]
    setup.sender.shutdown()


def test_headers_and_compression(collector: Received, protocol: str) -> None:
    """Headers are sent, and an export arrives with gzip and without."""
    for compression in ("gzip", "none"):
        setup = Setup(
            collector.url,
            protocol,
            board(ORGANIZATION),
            compression=compression,
            headers={"X-Tenant": SecretStr("me")},
        )
        assert setup.sender.flush() is True
        setup.sender.shutdown()
    assert [headers["x-tenant"] for headers in collector.headers] == ["me", "me"]


def test_tls(protocol: str, tmp_path: Path) -> None:
    """An export over https:// arrives if the CA is configured; else nothing is sent."""
    authority = Authority(tmp_path)
    with (grpc_collector if protocol == "grpc" else http_collector)(
        authority.issue("collector")
    ) as received:
        for tls, arrives in (({"ca_file": authority.file}, True), (None, False)):
            setup = Setup(
                received.url, protocol, board(ORGANIZATION), tls=tls, timeout=timedelta(seconds=1)
            )
            assert setup.sender.flush() is arrives
            setup.sender.shutdown()
    assert len(received.requests) == 1


def test_attributes_move_to_resources(collector: Received, protocol: str) -> None:
    """With `to_resource` each organization is a resource, and our health has another one."""
    shown = board(
        {"openai.api.tokens": [({"organization": name, "model": "m"}, 1) for name in ("a", "b")]}
    )
    setup = Setup(collector.url, protocol, shown, "organization")
    assert setup.sender.flush() is True
    resources = [
        {pair.key: pair.value.string_value for pair in part.resource.attributes}
        for part in collector.requests[0].resource_metrics
    ]
    ids = [attributes.pop("service.instance.id", None) for attributes in resources]
    assert resources == [
        {"service.name": "test", "organization": "a"},
        {"service.name": "test", "organization": "b"},
        {"service.name": "test"},
    ]
    assert (len(set(ids)), ids[2]) == (3, None)
    assert [
        attributes for name, attributes, _ in collector.points() if name == "openai.api.tokens"
    ] == [{"model": "m"}, {"model": "m"}]
    setup.sender.shutdown()


def test_many_points_go_in_batches(collector: Received, protocol: str) -> None:
    """23,000 long series reach a Collector with a limit of 4 MiB, each point once."""
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
    setup = Setup(collector.url, protocol, board({"openai.api.tokens": rows}))
    assert setup.sender.flush() is True
    sizes = [sum(1 for _ in Received.points(_only(request))) for request in collector.requests]
    assert max(sizes) <= MAX_POINTS <= 8_000
    users = [
        attributes["user_id"]
        for name, attributes, _ in collector.points()
        if name == "openai.api.tokens"
    ]
    assert users == [f"user-{number}" for number in range(23_000)]
    setup.sender.shutdown()


def _only(request: object) -> Received:
    one = Received()
    one.requests = [request]  # type: ignore[list-item]
    return one


def test_unchanged_data_is_sent_every_interval(collector: Received, protocol: str) -> None:
    """Each interval sends all points, and each attempt is reported with the snapshot's version."""
    setup = Setup(collector.url, protocol, board(ORGANIZATION), interval=0.05)
    setup.sender.start()
    _until(lambda: len(setup.attempts) >= 3)
    setup.board.publish(snapshot(ORGANIZATION, 2))
    _until(lambda: (2, True) in setup.attempts)
    assert setup.attempts[:3] == [(1, True)] * 3
    setup.sender.shutdown()
    assert len(collector.requests) >= 4


def test_the_last_change_is_sent_on_shutdown(collector: Received, protocol: str) -> None:
    """A snapshot published since the last attempt is sent at shutdown."""
    setup = Setup(collector.url, protocol, board(ORGANIZATION))
    setup.sender.start()
    began = time.monotonic()
    setup.sender.shutdown()
    assert (setup.attempts, len(collector.requests)) == ([(1, True)], 1)
    assert time.monotonic() - began < 2


def test_an_outage_is_logged_once(
    collector: Received, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Three refusals and a recovery are two log lines and three counted failures."""
    caplog.set_level(logging.INFO)
    setup = Setup(collector.url, protocol, board(ORGANIZATION))
    collector.refusing = True
    assert [setup.sender.flush() for _ in range(3)] == [False] * 3
    collector.refusing = False
    assert [setup.sender.flush() for _ in range(2)] == [True] * 2
    assert [record.message for record in caplog.records] == [
        "OTLP export failed; it is repeated every interval",
        "OTLP export works again",
    ]
    assert ("PERMISSION_DENIED" if protocol == "grpc" else "403") in vars(caplog.records[0])[
        "error"
    ]
    assert setup.failed() == 3
    assert setup.attempts == [(1, False)] * 3 + [(1, True)] * 2
    setup.sender.shutdown()


def test_a_collector_that_comes_and_goes_does_not_fill_the_log(
    collector: Received, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Alternating failures and recoveries are logged once a minute, and all are counted."""
    caplog.set_level(logging.INFO)
    setup = Setup(collector.url, protocol, board(ORGANIZATION))
    for second in range(80):
        setup.monotonic = float(second)
        collector.refusing = second % 2 == 0
        setup.sender.flush()
    events = [vars(record)["event"] for record in caplog.records]
    assert events == ["otlp_failed", "otlp_recovered"] * 2
    assert setup.failed() == 40
    setup.sender.shutdown()


def test_a_slow_collector_delays_nothing_else(collector: Received, protocol: str) -> None:
    """During a request, publishing and reading our health take no time."""
    collector.delay = 1.0
    setup = Setup(collector.url, protocol, board(ORGANIZATION), interval=0.01)
    setup.sender.start()
    time.sleep(0.3)
    began = time.monotonic()
    setup.board.publish(snapshot(ORGANIZATION, 2))
    assert setup.failed() == 0
    assert time.monotonic() - began < 0.2
    collector.delay = 0
    setup.sender.shutdown()


@pytest.mark.parametrize("state", ["dead", "silent"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "in flight"])
def test_shutdown_ends_in_time_without_a_collector(protocol: str, state: str, busy: bool) -> None:
    """Shutdown returns within its time, though the exporter would wait for 10 s."""
    with silent_server() as silent:
        setup = Setup(
            silent if state == "silent" else dead(),
            protocol,
            board(ORGANIZATION),
            interval=0.05 if busy else 3600,
        )
        setup.sender.start()
        if busy:
            time.sleep(0.3)
        began = time.monotonic()
        setup.sender.shutdown(0.8)
        assert time.monotonic() - began < 1.3


def test_a_process_ends_during_a_request(protocol: str) -> None:
    """A server that never answers does not keep the interpreter from ending."""
    program = f"""
import time
from tests.exporters.otlp.test_sender import Setup, ORGANIZATION, board
setup = Setup({{url!r}}, {protocol!r}, board(ORGANIZATION), interval=0.05)
setup.sender.start()
time.sleep(0.3)
print(time.monotonic())
setup.sender.shutdown(1.0)
"""
    with silent_server() as silent:
        done = subprocess.run(
            [sys.executable, "-c", program.format(url=silent)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    ended = time.monotonic()
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert ended - float(done.stdout) < 8  # the request would wait for 10 s


def test_the_timeout_is_that_of_our_settings(protocol: str) -> None:
    """An attempt at a server that never answers takes `timeout`."""
    with silent_server() as silent:
        setup = Setup(silent, protocol, board(ORGANIZATION), timeout=timedelta(seconds=0.5))
        began = time.monotonic()
        assert setup.sender.flush() is False
        assert 0.4 < time.monotonic() - began < 3
        setup.sender.shutdown()


def _partly(rejected: int, message: str) -> ExportMetricsServiceResponse:
    return ExportMetricsServiceResponse(
        partial_success=ExportMetricsPartialSuccess(
            rejected_data_points=rejected, error_message=message
        )
    )


def test_a_partial_success_is_counted_and_logged_once(
    collector: Received, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Rejected points are counted each time, logged the first time, and not sent again."""
    setup = Setup(collector.url, protocol, board(ORGANIZATION))
    collector.response = _partly(3, "too old")
    assert [setup.sender.flush() for _ in range(2)] == [True, True]
    collector.response = ExportMetricsServiceResponse()
    assert setup.sender.flush() is True
    assert len(collector.requests) == 3
    assert (setup.own_counter("points_rejected"), setup.failed()) == (6, 0)
    (record,) = caplog.records
    facts = vars(record)
    assert (facts["event"], facts["points"]) == ("otlp_points_rejected", 3)
    assert facts["backend_says"] == "too old"
    setup.sender.shutdown()


def test_a_message_of_a_backend_is_logged(
    collector: Received, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A partial success without rejected points is a warning of the backend, and logged once."""
    setup = Setup(collector.url, protocol, board(ORGANIZATION))
    collector.response = _partly(0, "use another endpoint")
    assert [setup.sender.flush() for _ in range(2)] == [True, True]
    (record,) = caplog.records
    assert vars(record)["backend_says"] == "use another endpoint"
    assert setup.own_counter("points_rejected") == 0
    setup.sender.shutdown()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 304])
def test_a_redirect_is_a_failure(status: int, caplog: pytest.LogCaptureFixture) -> None:
    """It is not followed, the request is not sent again, and the log has its target."""
    with http_collector() as collector:
        setup = Setup(collector.url, "http/protobuf", board(ORGANIZATION))
        collector.answers = [(status, {"Location": "/elsewhere?key=hush"}, b"")]
        assert setup.sender.flush() is False
        assert collector.paths == ["/v1/metrics"]
        assert setup.failed() == 1
        error = vars(caplog.records[0])["error"]
        assert error.startswith(f"{status}: redirects to /elsewhere,")
        assert "hush" not in error
        setup.sender.shutdown()


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_every_2xx_is_a_success(status: int) -> None:
    """200, 201, 202 and 204 are successes, with a body or without."""
    with http_collector() as collector:
        setup = Setup(collector.url, "http/protobuf", board(ORGANIZATION))
        collector.answers = [(status, {}, b"" if status == 204 else b"ok")]
        assert setup.sender.flush() is True
        setup.sender.shutdown()


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_retryable_status_is_retried_after_retry_after(status: int) -> None:
    """The retryable statuses of the OTLP specification are retried within the timeout."""
    with http_collector() as collector:
        setup = Setup(collector.url, "http/protobuf", board(ORGANIZATION))
        collector.answers = [(status, {"Retry-After": "0"}, b"")] * 2
        assert setup.sender.flush() is True
        assert len(collector.paths) == 3
        setup.sender.shutdown()


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500, 501])
def test_other_statuses_are_not_retried(status: int, caplog: pytest.LogCaptureFixture) -> None:
    """Another status is a failure at once, and the backend's message is in the log."""
    with http_collector() as collector:
        setup = Setup(collector.url, "http/protobuf", board(ORGANIZATION))
        words = Status(message="no such\ntenant").SerializeToString()
        collector.answers = [(status, {"Content-Type": "application/x-protobuf"}, words)]
        assert setup.sender.flush() is False
        assert len(collector.paths) == 1
        assert vars(caplog.records[0])["error"] == f"{status}: no such tenant"
        setup.sender.shutdown()


def test_a_long_retry_after_ends_the_attempt() -> None:
    """If the backend asks to wait beyond the timeout, the next interval tries again."""
    with http_collector() as collector:
        setup = Setup(collector.url, "http/protobuf", board(ORGANIZATION))
        collector.answers = [(503, {"Retry-After": "86400"}, b"")]
        began = time.monotonic()
        assert setup.sender.flush() is False
        assert time.monotonic() - began < 5  # the time-out would be 10 s
        assert len(collector.paths) == 1
        assert setup.sender.flush() is True
        setup.sender.shutdown()


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "a body in great pieces": (CHUNKED, b"10000\r\n" + b"x" * 65536 + b"\r\n", 0),
    "a body that drips": (CHUNKED, b"1\r\nx\r\n", 0.02),
    "a body until the end of the connection": (HEAD + b"\r\n", b"x" * 65536, 0),
    "a head that drips": (HEAD + b"X-A: ", b"x", 0.02),
    "head after head": (b"", b"HTTP/1.1 102 Processing\r\n\r\n", 0.02),
    "an error's body": (
        CHUNKED.replace(b"200 OK", b"400 No"),
        b"10000\r\n" + b"x" * 65536 + b"\r\n",
        0,
    ),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_answer_that_never_ends_is_a_failure(kind: str) -> None:
    """The attempt ends at the timeout or the limit of size, and uses little memory."""
    with endless(*ENDLESS[kind]) as url:
        setup = Setup(url, "http/protobuf", board(ORGANIZATION), timeout=timedelta(seconds=0.5))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for attempt in range(2):
            assert setup.sender.flush() is False
            assert setup.failed() == attempt + 1
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 20 * 1024  # KiB
        setup.sender.shutdown()


def test_a_compressed_answer_is_not_decompressed() -> None:
    """An answer of 200 MB, compressed although we accept no compression, uses no memory."""
    bomb = gzip.compress(bytes(200_000_000), 1)
    with http_collector() as collector:
        collector.answers = [(200, {"Content-Encoding": "gzip"}, bomb)]
        setup = Setup(collector.url, "http/protobuf", board(ORGANIZATION))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        setup.sender.flush()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024  # KiB
        setup.sender.shutdown()


def test_a_point_that_cannot_be_encoded_stops_no_other(
    collector: Received, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A total above 2^63 is left out of each export, counted each time and logged once."""
    rows: Rows = {"openai.api.tokens": [({"model": "a"}, 2**63), ({"model": "b"}, 1)]}
    setup = Setup(collector.url, protocol, board(rows))
    assert [setup.sender.flush() for _ in range(2)] == [True, True]
    sent = [attributes for name, attributes, _ in collector.points() if name == "openai.api.tokens"]
    assert sent == [{"model": "b"}] * 2
    assert setup.own_counter("points_left_out") == 2
    assert [vars(record)["event"] for record in caplog.records] == ["otlp_points_left_out"]
    setup.sender.shutdown()


def test_a_connection_that_the_backend_closed_is_not_used(
    collector: Received, protocol: str
) -> None:
    """Exports arrive at the first attempt although the backend closes the connection after each."""
    setup = Setup(collector.url, protocol, board(ORGANIZATION), timeout=timedelta(milliseconds=700))
    assert [setup.sender.flush() for _ in range(3)] == [True] * 3
    assert len(collector.requests) == 3
    setup.sender.shutdown()


def test_user_agent(collector: Received, protocol: str) -> None:
    """User-Agent is our name and version."""
    setup = Setup(collector.url, protocol, board(ORGANIZATION))
    setup.sender.flush()
    assert collector.headers[0]["user-agent"].startswith(f"otel-openai-usage/{__version__}")
    setup.sender.shutdown()


def test_the_sdks_exporters_are_not_needed(protocol: str) -> None:
    """Exports arrive without the SDK's OTLP exporters, and so without their private members."""
    program = f"""
import sys
for name in ("grpc.exporter", "grpc.metric_exporter", "http.metric_exporter", "grpc", "http"):
    sys.modules["opentelemetry.exporter.otlp.proto." + name] = None
from tests.exporters.otlp.test_sender import Setup, ORGANIZATION, board
setup = Setup({{url!r}}, {protocol!r}, board(ORGANIZATION))
print(setup.sender.flush())
setup.sender.shutdown()
"""
    with (grpc_collector if protocol == "grpc" else http_collector)() as collector:
        done = subprocess.run(
            [sys.executable, "-c", program.format(url=collector.url)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST"])
def test_the_endpoint_may_be_a_name(host: str, collector: Received, protocol: str) -> None:
    """A host name is looked up, in upper or lower case."""
    url = collector.url.replace("http", "HTTP", 1).replace("127.0.0.1", host)
    setup = Setup(url, protocol, board(ORGANIZATION))
    assert setup.sender.flush() is True
    setup.sender.shutdown()


def test_both_sides_show_certificates(protocol: str, tmp_path: Path) -> None:
    """A Collector that verifies clients receives an export only with our certificate."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("exporter")
    ours = {"ca_file": authority.file, "cert_file": cert, "key_file": key}
    serve = grpc_collector if protocol == "grpc" else http_collector
    with serve(authority.issue("collector"), clients=authority.file) as received:
        for tls, arrives in ((ours, True), ({"ca_file": authority.file}, False)):
            setup = Setup(
                received.url, protocol, board(ORGANIZATION), tls=tls, timeout=timedelta(seconds=1)
            )
            assert setup.sender.flush() is arrives
            setup.sender.shutdown()
    assert len(received.requests) == 1


def test_a_certificate_that_is_none_is_a_failed_export(protocol: str, tmp_path: Path) -> None:
    """Without a certificate in the file every export fails, and the sender goes on."""
    (tmp_path / "ca").write_text("nothing")
    setup = Setup(
        "https://127.0.0.1:1/v1/metrics",
        protocol,
        board(ORGANIZATION),
        tls={"ca_file": tmp_path / "ca"},
        timeout=timedelta(seconds=0.5),
    )
    assert [setup.sender.flush() for _ in range(2)] == [False] * 2
    assert setup.failed() == 2
    setup.sender.shutdown()


@pytest.mark.parametrize(
    ("settings", "variable"),
    [
        (["ca_file"], "OTEL_EXPORTER_OTLP_CERTIFICATE"),
        (["cert_file", "key_file"], "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"),
    ],
)
def test_a_file_that_is_no_pem_is_named(
    settings: list[str], variable: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the variable and the file that OpenSSL cannot read."""
    file = tmp_path / "passwd"
    file.write_text("nothing")
    url = "https://127.0.0.1:1/v1/metrics"
    tls = dict.fromkeys(settings, file)
    setup = Setup(
        url, "http/protobuf", board(ORGANIZATION), tls=tls, timeout=timedelta(seconds=0.5)
    )
    assert not setup.sender.flush()
    setup.sender.shutdown()
    error = next(record.__dict__["error"] for record in caplog.records if "error" in vars(record))
    assert variable in error
    assert str(file) in error


@pytest.mark.parametrize("host", ["api..example", "x" * 70 + ".example", "[::1]", "%zz.example"])
def test_a_host_that_no_name_can_be_is_a_failed_export(host: str, protocol: str) -> None:
    """With a name that cannot be looked up every export fails, and the sender goes on."""
    url = f"http://{host}:1/v1/metrics"
    setup = Setup(url, protocol, board(ORGANIZATION), timeout=timedelta(seconds=0.5))
    assert [setup.sender.flush() for _ in range(2)] == [False] * 2
    assert setup.failed() == 2
    setup.sender.shutdown()


def test_grpc_retries_retryable_codes() -> None:
    """UNAVAILABLE is retried; RESOURCE_EXHAUSTED only if the backend says how long to wait."""
    wait = any_pb2.Any()
    wait.Pack(RetryInfo(retry_delay=Duration(nanos=1000)))
    info = Status(details=[wait]).SerializeToString()
    with grpc_collector() as collector:
        setup = Setup(collector.url, "grpc", board(ORGANIZATION))
        collector.failures = [
            (grpc.StatusCode.UNAVAILABLE, info),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, info),
        ]
        assert setup.sender.flush() is True
        collector.failures = [(grpc.StatusCode.RESOURCE_EXHAUSTED, b"")]
        assert setup.sender.flush() is False
        assert (collector.failures, len(collector.requests)) == ([], 1)
        setup.sender.shutdown()


def test_an_answer_of_many_megabytes_is_a_failure() -> None:
    """A gRPC answer above the limit is refused, compressed or not."""
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        with grpc_collector(compression=compression) as collector:
            collector.response = _partly(1, "x" * 60_000_000)
            setup = Setup(collector.url, "grpc", board(ORGANIZATION), timeout=timedelta(seconds=5))
            assert setup.sender.flush() is False
            setup.sender.shutdown()


def test_a_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """With http_proxy the proxy receives the request, with the full URL and our login."""
    with http_collector() as proxy:
        address = proxy.url.removesuffix("/v1/metrics").removeprefix("http://")
        monkeypatch.setenv("http_proxy", f"me:hush@{address}")
        monkeypatch.setenv("no_proxy", "")
        proxy.answers = [(200, {}, b"")]
        setup = Setup(
            "http://collector.invalid:4318/v1/metrics", "http/protobuf", board(ORGANIZATION)
        )
        assert setup.sender.flush() is True
        assert proxy.paths == ["http://collector.invalid:4318/v1/metrics"]
        assert proxy.headers[0]["proxy-authorization"] == "Basic bWU6aHVzaA=="
        setup.sender.shutdown()


@pytest.mark.parametrize("proxy", ["http://p:99999", "socks5://me:hush@p:1", "http://", "[::1"])
def test_a_proxy_that_cannot_be_used_is_named(
    proxy: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The export fails with the variable's name, and does not bypass the proxy."""
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    with http_collector() as collector:
        setup = Setup(collector.url, "http/protobuf", board(ORGANIZATION))
        assert setup.sender.flush() is False
        assert "http_proxy" in vars(caplog.records[0])["error"]
        assert "hush" not in str(vars(caplog.records[0]))
        assert collector.paths == []
        setup.sender.shutdown()


def _until(true: Callable[[], bool], seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)
