"""Small Collectors that remember what they receive, and can be slow, refuse, or be dead."""

import contextlib
import gzip
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import NumberDataPoint


class Received:
    """What a Collector received, and how it behaves."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[ExportMetricsServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.refusing = False
        self.delay = 0.0
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        """Over HTTP, the answers to the next requests; after these, and over gRPC, 200."""
        self.response = ExportMetricsServiceResponse()
        """The answer to an accepted request."""
        self.failures: list[tuple[grpc.StatusCode, bytes]] = []
        """Over gRPC, how the next calls fail: the code, and the details in the trailer."""
        self.paths: list[str] = []
        """Over HTTP, the paths of the requests."""

    def take(self, request: ExportMetricsServiceRequest, headers: dict[str, str]) -> bool:
        """Remember the request after `delay` seconds. Return False to refuse it."""
        time.sleep(self.delay)
        if not self.refusing:
            self.requests.append(request)
            self.headers.append(headers)
        return not self.refusing

    def points(self) -> list[tuple[str, dict[str, str], NumberDataPoint]]:
        """All number points of all requests: metric, attributes (as text), point."""
        return [
            (metric.name, {pair.key: pair.value.string_value for pair in point.attributes}, point)
            for request in self.requests
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in (*metric.sum.data_points, *metric.gauge.data_points)
        ]


@contextmanager
def grpc_collector(
    certificate: tuple[Path, Path] | None = None,
    clients: Path | None = None,
    compression: grpc.Compression = grpc.Compression.NoCompression,
) -> Iterator[Received]:
    """A gRPC Collector with the default limit of 4 MiB; with TLS if it is given a certificate and
    key, and for known clients only if it is given their authority.
    """
    received = Received()

    class Service(MetricsServiceServicer):
        def Export(  # noqa: N802
            self, request: ExportMetricsServiceRequest, context: Any
        ) -> ExportMetricsServiceResponse:
            if received.failures:
                code, details = received.failures.pop(0)
                context.set_trailing_metadata([("grpc-status-details-bin", details)])
                context.abort(code, "not now")
            headers = {str(key): str(value) for key, value in context.invocation_metadata()}
            if not received.take(request, headers):
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")
            return received.response

    server = grpc.server(futures.ThreadPoolExecutor(4), compression=compression)
    add_MetricsServiceServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]
    if certificate:
        chain, key = (path.read_bytes() for path in certificate)
        known = clients.read_bytes() if clients else None
        credentials = grpc.ssl_server_credentials([(key, chain)], known, clients is not None)
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    received.url = f"{'https' if certificate else 'http'}://127.0.0.1:{port}"
    server.start()
    try:
        yield received
    finally:
        server.stop(None).wait()


@contextmanager
def http_collector(
    certificate: tuple[Path, Path] | None = None, clients: Path | None = None
) -> Iterator[Received]:
    """An HTTP Collector at /v1/metrics; with TLS if it is given a certificate and key, and for known
    clients only if it is given their authority.
    """
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            headers = {key.lower(): value for key, value in self.headers.items()}
            received.paths.append(self.path)
            if received.answers:
                status, more, content = received.answers.pop(0)
                received.headers.append(headers)
                self.send_response(status)
                for key, value in {"Content-Length": str(len(content)), **more}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(content)
                return
            ok = self.path == "/v1/metrics" and received.take(
                ExportMetricsServiceRequest.FromString(body), headers
            )
            self.send_response(200 if ok else 403)
            content = received.response.SerializeToString()
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        if clients:
            context.load_verify_locations(clients)
            context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(server.socket, server_side=True)
    received.url = (
        f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}/v1/metrics"
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def silent_server() -> Iterator[str]:
    """The URL of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def dead() -> str:
    """Return a URL where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def endless(start: bytes, piece: bytes, pause: float) -> Iterator[str]:
    """The URL of an HTTP server that begins every answer with `start` and then sends `piece` after
    `piece` for ever.
    """
    ending = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            with contextlib.suppress(OSError):
                self.request.sendall(start)
                while not ending.wait(pause):
                    self.request.sendall(piece)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1/metrics"
        finally:
            ending.set()
            server.shutdown()
            thread.join()
