"""The Prometheus reader: the Board's ready bytes, and after them our own health as the stock reader
prints it.
"""

from collections.abc import Callable
from threading import Lock
from typing import Literal, TypeAlias

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import generate_latest as generate_text
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from otel_openai_usage.domain.snapshot import Board, Snapshot
from otel_openai_usage.exporters.prometheus.deflate import crc, member, segment
from otel_openai_usage.exporters.prometheus.exposition import Exposition, Page, Pages
from otel_openai_usage.exporters.self_metrics import CARDINALITY, SHOWN

Format: TypeAlias = Literal["text", "openmetrics"]


class PrometheusReader(PrometheusMetricReader):
    """Prints the MeterProvider that it is given to (our own health, with `target_info` and
    `process_*`) after the Board.

    The Board's part is rendered once per published snapshot, never per scrape. All methods block
    for some milliseconds and may be called from any thread; `refresh` takes longest, so whoever
    publishes calls it in a worker thread, and no scrape has to wait for it. `before_page` is called
    before a page is made that somebody will see; it may wait.
    """

    def __init__(self, board: Board) -> None:
        self._health = CollectorRegistry()
        super().__init__(
            scope_info_enabled=False, registry=self._health, cardinality_limits=CARDINALITY
        )
        ProcessCollector(registry=self._health)
        self._board = board
        self.before_page: Callable[[], None] = lambda: None
        self._exposition = Exposition(SHOWN)
        self._shown: Snapshot | None = None
        self._pages: Pages
        self._lock = Lock()

    def refresh(self) -> Pages:
        """Render what the Board shows, unless that was done."""
        with self._lock:
            snapshot = self._board.current()
            if snapshot is not self._shown:
                self._pages = self._exposition.render(snapshot)
                self._shown = snapshot
            return self._pages

    def page(self, form: Format = "text", *, gzip: bool = False) -> list[bytes]:
        """A whole scrape, in pieces that are to be sent one after the other; as one gzip member if
        `gzip`.
        """
        self.before_page()
        pages = self.refresh()
        page = pages.text if form == "text" else pages.openmetrics
        with self._lock:  # the stock collector keeps what it collects in an unlocked queue
            health = generate_text(self._health) if form == "text" else _openmetrics(self._health)
        return _zipped(page, health) if gzip else [*page.plain, health]


def _openmetrics(registry: CollectorRegistry) -> bytes:
    return bytes(generate_openmetrics(registry))  # type: ignore[no-untyped-call]


def _zipped(page: Page, health: bytes) -> list[bytes]:
    return member(
        [*page.deflated, segment(health)], crc([health], page.crc), page.size + len(health)
    )
