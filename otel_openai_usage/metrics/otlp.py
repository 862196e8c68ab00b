"""The official OTLP exporters, made from our settings and kept from talking over us.

How a request is encoded is ours (encoding.py); connections, retries and time-outs are theirs.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import get_ident
from typing import Any

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData

from otel_openai_usage.config import Otlp

_LOUD = (
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
)


def exporter(otlp: Otlp) -> MetricExporter:
    """The exporter of the wanted protocol. Does not connect. `otlp.endpoint` is complete, for HTTP
    with its path.
    """
    return _grpc(otlp) if otlp.protocol == "grpc" else _http(otlp)


# All that matters is passed, not left to the environment: the SDK reads OTEL_EXPORTER_OTLP_TIMEOUT
# as seconds (it means milliseconds), and its gRPC exporter cannot be made with
# OTEL_EXPORTER_OTLP_COMPRESSION=none.


def _grpc(otlp: Otlp) -> MetricExporter:
    from grpc import Compression, ssl_channel_credentials
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

    from otel_openai_usage.metrics.encoding import Encoder

    class Quick(OTLPMetricExporter):
        """Encodes with our encoder."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self._translate_data = Encoder()  # type: ignore[method-assign]

    tls = otlp.tls
    credentials = None
    if not otlp.insecure:
        files = (tls.ca_file, tls.key_file, tls.cert_file) if tls else (None, None, None)
        credentials = ssl_channel_credentials(*map(_content, files))
    return Quick(
        endpoint=otlp.endpoint,
        insecure=otlp.insecure,
        credentials=credentials,
        headers={key.lower(): value.get_secret_value() for key, value in otlp.headers.items()},
        timeout=otlp.timeout.total_seconds(),
        compression=Compression.Gzip if otlp.compression == "gzip" else Compression.NoCompression,
    )


def _http(otlp: Otlp) -> MetricExporter:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from requests import Session

    from otel_openai_usage.metrics.encoding import Encoder

    class Quick(OTLPMetricExporter):
        """Encodes with our encoder."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self._encode = Encoder()

        def export(
            self, metrics_data: MetricsData, timeout_millis: float | None = 10_000, **_: Any
        ) -> MetricExportResult:
            return (
                MetricExportResult.FAILURE
                if self._shutdown
                else self._export_batch(self._encode(metrics_data))
            )

    class OwnAuthority(Session):
        """A session whose `verify` counts: requests lets REQUESTS_CA_BUNDLE beat it."""

        def merge_environment_settings(
            self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
        ) -> Any:
            return super().merge_environment_settings(
                url, proxies, stream, self.verify if verify is None else verify, cert
            )

    tls = otlp.tls
    return Quick(
        session=OwnAuthority(),
        endpoint=otlp.endpoint,
        certificate_file=str(tls.ca_file) if tls and tls.ca_file else None,
        client_certificate_file=str(tls.cert_file) if tls and tls.cert_file else None,
        client_key_file=str(tls.key_file) if tls and tls.key_file else None,
        headers={key: value.get_secret_value() for key, value in otlp.headers.items()},
        timeout=otlp.timeout.total_seconds(),
        compression=Compression.Gzip if otlp.compression == "gzip" else Compression.NoCompression,
    )


def _content(path: Path | None) -> bytes | None:
    return path.read_bytes() if path else None


@contextmanager
def overheard() -> Iterator[list[str]]:
    """What the exporters would log in this thread, as a list instead: they log every attempt, we
    one line per outage.
    """
    said: list[str] = []
    thread = get_ident()

    def listen(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True
        said.append(record.getMessage())
        return False

    loggers = [logging.getLogger(name) for name in _LOUD]
    for logger in loggers:
        logger.filters.insert(
            0, listen
        )  # before the SDK's own filter, which drops what was said within the last minute
    try:
        yield said
    finally:
        for logger in loggers:
            logger.removeFilter(listen)
