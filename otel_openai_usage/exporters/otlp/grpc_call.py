"""OTLP over gRPC: one unary call, of bytes that are encoded already."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc

from otel_openai_usage.config import Otlp
from otel_openai_usage.exporters.otlp.delivery import (
    ANSWER_LIMIT,
    Answer,
    grpc_retry_delay,
    shortened,
    taken,
)

METHOD = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
_RETRYABLE = (
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
)
"""As the OTLP specification has it. RESOURCE_EXHAUSTED is retryable only where the backend says how
long to wait: without that, the request is too large and will stay so.
"""
_DETAILS = "grpc-status-details-bin"


class GrpcTransport:
    """One channel. Proxies are those of gRPC's own variables (grpc_proxy, https_proxy, no_proxy)."""

    def __init__(self, otlp: Otlp, user_agent: str) -> None:
        endpoint = otlp.endpoint or ""
        target = urlsplit(endpoint).netloc if "://" in endpoint else endpoint
        gzip = otlp.compression == "gzip"
        compression = grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression
        options = [
            ("grpc.max_receive_message_length", ANSWER_LIMIT),
            ("grpc.primary_user_agent", user_agent),
            # By default a channel that cannot connect waits for up to two minutes, and all calls
            # fail meanwhile, although the backend may be back.
            ("grpc.initial_reconnect_backoff_ms", 500),
            ("grpc.max_reconnect_backoff_ms", 2000),
        ]
        if otlp.insecure:
            self._channel = grpc.insecure_channel(target, options, compression)
        else:
            self._channel = grpc.secure_channel(target, _credentials(otlp), options, compression)
        self._call: Any = self._channel.unary_unary(METHOD)  # no serializers: bytes both ways
        self._headers = [
            (key.lower(), value.get_secret_value()) for key, value in otlp.headers.items()
        ]

    def send(self, body: bytes, seconds: float) -> Answer:
        """One call. The deadline covers connecting, too."""
        try:
            return taken(self._call(body, timeout=max(0.0, seconds), metadata=self._headers))
        except grpc.RpcError as error:
            return _failure(error)
        except ValueError as error:  # the channel was closed meanwhile, or a header cannot be sent
            return Answer("refused", shortened(str(error)))

    def close(self) -> None:
        """Cancel the call that is on its way, and let go of the connection."""
        self._channel.close()


def _failure(error: Any) -> Answer:
    code: grpc.StatusCode = error.code()
    message = f"{code.name}: {shortened(error.details() or '')}"
    delay = _retry_delay(error.trailing_metadata() or ())
    exhausted = code is grpc.StatusCode.RESOURCE_EXHAUSTED
    if code in _RETRYABLE or (exhausted and delay is not None):
        return Answer("try again", message, delay)
    return Answer("refused", message)


def _retry_delay(trailers: Sequence[tuple[str, str | bytes]]) -> float | None:
    details = dict(trailers).get(_DETAILS)
    return grpc_retry_delay(details) if isinstance(details, bytes) else None


def _credentials(otlp: Otlp) -> grpc.ChannelCredentials:
    tls = otlp.tls
    if tls is None:
        return grpc.ssl_channel_credentials()
    return grpc.ssl_channel_credentials(
        _content(tls.ca_file), _content(tls.key_file), _content(tls.cert_file)
    )


def _content(path: Path | None) -> bytes | None:
    return path.read_bytes() if path else None
