"""OTLP over gRPC: one unary call with bytes that are encoded already."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc

from otel_openai_usage.config import Otlp
from otel_openai_usage.exporters.otlp.answer import (
    MAX_ANSWER,
    Answer,
    accepted,
    grpc_retry_delay,
    shortened,
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
"""As the OTLP specification lists them.

RESOURCE_EXHAUSTED is retryable only if the backend says how long to wait. Otherwise the request is
too large, and will stay so.
"""
_DETAILS_TRAILER = "grpc-status-details-bin"


class GrpcTransport:
    """One channel. Proxies are those of gRPC's own variables (grpc_proxy, https_proxy, no_proxy)."""

    def __init__(self, otlp: Otlp, user_agent: str) -> None:
        target = _target(otlp.endpoint or "")
        options = [
            ("grpc.max_receive_message_length", MAX_ANSWER),
            ("grpc.primary_user_agent", user_agent),
            # By default a channel that cannot connect waits for up to two minutes. All calls fail
            # meanwhile, although the backend may be back.
            ("grpc.initial_reconnect_backoff_ms", 500),
            ("grpc.max_reconnect_backoff_ms", 2000),
        ]
        compression = grpc.Compression.NoCompression
        if otlp.compression == "gzip":
            compression = grpc.Compression.Gzip
        if otlp.insecure:
            self._channel = grpc.insecure_channel(target, options, compression)
        else:
            credentials = _credentials(otlp)
            self._channel = grpc.secure_channel(target, credentials, options, compression)
        # Without serializers request and answer are bytes.
        self._call: Any = self._channel.unary_unary(METHOD)
        self._metadata: list[tuple[str, str]] = []
        for key, value in otlp.headers.items():
            # gRPC refuses upper-case names.
            self._metadata.append((key.lower(), value.get_secret_value()))

    def send(self, body: bytes, seconds: float) -> Answer:
        """Make one call. The deadline includes connecting."""
        try:
            answer = self._call(body, timeout=max(0.0, seconds), metadata=self._metadata)
        except grpc.RpcError as error:
            return _failure(error)
        except ValueError as error:  # the channel is closed, or a header cannot be sent
            return Answer("refused", shortened(str(error)))
        return accepted(answer)

    def close(self) -> None:
        """Cancel the call in progress, and close the connection."""
        self._channel.close()


def _target(endpoint: str) -> str:
    """Return host and port of an endpoint, which may be a URL."""
    return urlsplit(endpoint).netloc if "://" in endpoint else endpoint


def _failure(error: Any) -> Answer:
    code: grpc.StatusCode = error.code()
    message = f"{code.name}: {shortened(error.details() or '')}"
    delay = _retry_delay(error.trailing_metadata() or ())
    is_overloaded = code is grpc.StatusCode.RESOURCE_EXHAUSTED and delay is not None
    if code in _RETRYABLE or is_overloaded:
        return Answer("retryable", message, delay)
    return Answer("refused", message)


def _retry_delay(trailers: Sequence[tuple[str, str | bytes]]) -> float | None:
    details = dict(trailers).get(_DETAILS_TRAILER)
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
