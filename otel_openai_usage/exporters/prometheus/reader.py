"""The Prometheus reader: the ready bytes of the snapshot, followed by our own health."""

from collections.abc import Callable, Iterator
from threading import Lock
from typing import Literal, TypeAlias

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.exposition import generate_latest as generate_text
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.samples import Sample

from otel_openai_usage.domain.snapshot import Board, Snapshot
from otel_openai_usage.exporters.prometheus.exposition import Exposition, Pages
from otel_openai_usage.exporters.prometheus.gzip_member import CompressedText
from otel_openai_usage.exporters.self_instruments import CARDINALITY, SNAPSHOT_INSTRUMENTS

Format: TypeAlias = Literal["text", "openmetrics"]


class PrometheusReader(PrometheusMetricReader):
    """Prints the snapshot, and after it the MeterProvider that it is given to.

    That one has our own health; `target_info` and `process_*` stand beside it, as the stock reader
    prints them.

    The snapshot is rendered once when it is published, never for a scrape. All methods block for
    some milliseconds and may be called from any thread. `refresh` takes longest: whoever publishes
    calls it in a worker thread, so that no scrape has to wait for it. `before_page` is called
    before a page is made for a reader; it may wait. With `created` counters have `_created` samples
    in OpenMetrics.
    """

    def __init__(self, board: Board, *, created: bool = False) -> None:
        self._health = CollectorRegistry()
        super().__init__(
            scope_info_enabled=False, registry=self._health, cardinality_limits=CARDINALITY
        )
        ProcessCollector(registry=self._health)
        self._board = board
        self.before_page: Callable[[], None] = lambda: None
        self.may_show: Callable[[], bool] = lambda: True
        """Whether an answer that leaves now may have the snapshot, or our own health only."""
        self._exposition = Exposition(SNAPSHOT_INSTRUMENTS, created=created)
        self._rendered: Snapshot | None = None
        self._pages: Pages
        self._lock = Lock()

    def refresh(self) -> Pages:
        """Return the pages of the current snapshot. Renders it if it is new."""
        with self._lock:
            snapshot = self._board.current()
            if snapshot is not self._rendered:
                self._pages = self._exposition.render(snapshot)
                self._rendered = snapshot
            return self._pages

    def page(self, form: Format = "text", *, gzip: bool = False) -> list[bytes]:
        """Return the answer to a scrape, in pieces; with `gzip` as one gzip member."""
        if not self.may_show():
            return self.health(form, gzip=gzip)
        self.before_page()
        pages = self.refresh()
        page = pages.text if form == "text" else pages.openmetrics
        health = self._health_page(form)
        if gzip:
            return page.gzip_member(health)
        return [*page.pieces, health]

    def health(self, form: Format = "text", *, gzip: bool = False) -> list[bytes]:
        """Return a page with our own health only."""
        health = self._health_page(form)
        return CompressedText.of((), ()).gzip_member(health) if gzip else [health]

    def _health_page(self, form: Format) -> bytes:
        with self._lock:  # the stock collector has an unlocked queue
            try:
                return _rendered(self._health, form)
            except UnicodeEncodeError:
                # A label that is not Unicode must not fail the scrape of all the others.
                return _rendered(_EncodableRegistry(self._health), form)


class _EncodableRegistry(CollectorRegistry):
    """A registry whose label values can be encoded: what is not Unicode in them is replaced."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the other registry, with encodable label values."""
        for metric in self._registry.collect():
            metric.samples = [_encodable(sample) for sample in metric.samples]
            yield metric


def _encodable(sample: Sample) -> Sample:
    labels = {
        name: value.encode(errors="replace").decode() for name, value in sample.labels.items()
    }
    return sample._replace(labels=labels)


def _rendered(registry: CollectorRegistry, form: Format) -> bytes:
    if form == "text":
        return generate_text(registry)
    return bytes(generate_openmetrics(registry))  # type: ignore[no-untyped-call]
