"""MeterProviders of the OpenTelemetry SDK for exporters and readers of installed packages."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from threading import Thread
from typing import Any, Protocol

from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource

from otel_openai_usage.config.secrets import redact
from otel_openai_usage.domain.snapshot import Board
from otel_openai_usage.errors import ConfigError
from otel_openai_usage.exporters.sdk.instruments import instrument
from otel_openai_usage.exporters.self_instruments import CARDINALITY

log = logging.getLogger(__name__)

_FLUSH = 10_000
"""Milliseconds that one export of `run --once` may take."""


class Listener(Protocol):
    """Hears when the SDK collects and exports; the recorder does."""

    def before_page(self) -> None: ...
    def expect_attempts(self, exporter: str) -> None: ...
    def sent(self, version: int, ok: bool, exporter: str) -> None: ...


class Forwarding(MetricExporter):
    """Hands everything to another exporter, with cumulative temporality, and notes how it went.

    An exporter that raises is treated as one that failed: its traceback is not ours to print.
    `attempted(version, ok)` is called after each attempt.
    """

    def __init__(
        self, name: str, exporter: MetricExporter, attempted: Callable[[bool], None]
    ) -> None:
        # Without arguments every instrument is cumulative: only that survives a failed export.
        super().__init__()
        self._name = name
        self._exporter = exporter
        self._attempted = attempted
        self._is_failing = False

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        """Export through the other exporter."""
        try:
            result = self._exporter.export(metrics_data, timeout_millis, **kwargs)
            reason = "it says that the export failed"
        except Exception as error:  # noqa: BLE001 - a foreign exporter may raise anything
            result = MetricExportResult.FAILURE
            reason = f"{type(error).__name__}: {error}"
        ok = result is MetricExportResult.SUCCESS
        self._say(ok, reason)
        self._attempted(ok)
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Flush the other exporter."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Shut the other exporter down."""
        self._exporter.shutdown(timeout_millis, **kwargs)

    def _say(self, ok: bool, reason: str) -> None:
        """Log the first failure and the first success after it."""
        if ok == (not self._is_failing):
            return
        self._is_failing = not ok
        if ok:
            log.info(
                "export works again",
                extra={"event": "sdk_export_recovered", "exporter": self._name},
            )
        else:
            log.warning(
                "export failed",
                extra={
                    "event": "sdk_export_failed",
                    "exporter": self._name,
                    "error": redact(reason),
                },
            )


@dataclass(slots=True)
class SdkExporters:
    """The MeterProviders of the named exporters. They begin to export at once."""

    providers: list[MeterProvider] = field(default_factory=list)
    since_start: list[bool] = field(default_factory=list)
    """For each provider, whether its counters show only what was booked since `show`."""
    pushing: list[str] = field(default_factory=list)
    """Names of the exporters whose attempts are noted."""
    version: int = 0
    """The newest snapshot that was collected."""
    _listener: Listener | None = None

    def show(self, board: Board) -> None:
        """Show the board's instruments. Call it when the board has what was stored."""
        for provider, since_start in zip(self.providers, self.since_start, strict=True):
            instrument(
                provider,
                board,
                since_start=since_start,
                before_page=self.before_page,
                observed=self.observed,
            )

    def report_to(self, listener: Listener) -> None:
        """Report collections and exports from now on."""
        for name in self.pushing:
            listener.expect_attempts(name)
        self._listener = listener

    def before_page(self) -> None:
        """Say that a snapshot is about to be collected."""
        if self._listener is not None:
            self._listener.before_page()

    def observed(self, version: int) -> None:
        """Note which snapshot is being collected."""
        self.version = version

    def attempted(self, name: str, ok: bool) -> None:
        """Note that an exporter tried to export what was collected last."""
        if self._listener is not None:
            self._listener.sent(self.version, ok, name)

    def abandon(self) -> None:
        """Report nothing any more, as if the process were killed."""
        self._listener = None

    def flush(self) -> bool:
        """Export now, in the calling thread. Return whether every exporter took it."""
        ok = True
        for provider in self.providers:
            try:
                ok &= provider.force_flush(_FLUSH)
            except Exception as error:  # noqa: BLE001 - a foreign reader may raise anything
                log.warning(
                    "export failed", extra={"event": "sdk_export_failed", "error": str(error)}
                )
                ok = False
        return ok

    def shutdown(self, timeout: float = 5.0) -> None:
        """Make a last export, and end within `timeout` seconds whatever the exporters do."""
        # Daemons: an exporter that hangs does not keep the process.
        threads = [
            Thread(target=_shut_down, args=(provider, timeout), daemon=True)
            for provider in self.providers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout)
        self.providers.clear()


def _shut_down(provider: MeterProvider, timeout: float) -> None:
    try:
        provider.shutdown(timeout * 1000)
    except Exception as error:  # noqa: BLE001 - a foreign reader may raise anything
        log.warning(
            "ending an exporter failed", extra={"event": "sdk_shutdown", "error": str(error)}
        )


def sdk_exporters(
    chosen: Mapping[str, EntryPoint], resource: Resource, *, interval: float
) -> SdkExporters:
    """Return exporters for these entry points, which export every `interval` seconds.

    Usage is on them after `show`. Raises ConfigError for one that cannot be made.
    """
    made = SdkExporters()
    readers: dict[bool, list[MetricReader]] = {False: [], True: []}
    for name, entry_point in chosen.items():
        reader = _reader(name, entry_point, interval, made)
        is_delta = _wants_delta(reader)
        if is_delta:
            log.warning(
                "a reader wants delta temporality: it gets only what is booked from now on, and what"
                " it misses is not repeated",
                extra={"event": "sdk_reader_delta", "exporter": name},
            )
        readers[is_delta].append(reader)
    for since_start, some in readers.items():
        if some:
            provider = _provider(some, resource)
            made.providers.append(provider)
            made.since_start.append(since_start)
    return made


def _provider(readers: Sequence[MetricReader], resource: Resource) -> MeterProvider:
    # The exemplar filter is given because the SDK would read a variable, and raise for a bad one.
    return MeterProvider(
        readers, resource, exemplar_filter=AlwaysOffExemplarFilter(), shutdown_on_exit=False
    )


def _reader(
    name: str,
    entry_point: EntryPoint,
    interval: float,
    made: SdkExporters,
) -> MetricReader:
    """Return the reader that an entry point names, or one that exports through it."""
    try:
        loaded = entry_point.load()
        found = loaded()
    except Exception as error:
        problem = (
            f"OTEL_METRICS_EXPORTER: making {name!r} ({entry_point.value}) ended with"
            f" {type(error).__name__}: {redact(str(error))}; see the documentation of its package,"
            " or leave it out"
        )
        raise ConfigError([problem]) from error
    if isinstance(found, MetricReader):
        return found
    if not isinstance(found, MetricExporter):
        problem = (
            f"OTEL_METRICS_EXPORTER: {name!r} ({entry_point.value}) made a {type(found).__name__},"
            " which is neither a MetricExporter nor a MetricReader; leave it out"
        )
        raise ConfigError([problem])
    made.pushing.append(name)
    forwarding = Forwarding(name, found, lambda ok: made.attempted(name, ok))
    return PeriodicExportingMetricReader(
        forwarding, export_interval_millis=interval * 1000, cardinality_limits=CARDINALITY
    )


def _wants_delta(reader: MetricReader) -> bool:
    """Return whether a reader has delta temporality for observable counters."""
    # The SDK has no public way to ask. A reader that does not tell is taken for cumulative.
    temporality = getattr(reader, "_preferred_temporality", None) or {}
    return temporality.get(ObservableCounter) is AggregationTemporality.DELTA
