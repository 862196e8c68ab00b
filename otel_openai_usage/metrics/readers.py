"""The OTLP sender: the Board and our own health, every interval, from a thread of its own."""

import logging
import time
from collections.abc import Callable, Sequence
from threading import Event, Lock, Thread

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

import otel_openai_usage
from otel_openai_usage.core.snapshot import Board, Snapshot
from otel_openai_usage.metrics.batches import batches, joined
from otel_openai_usage.metrics.instruments import SCOPE
from otel_openai_usage.metrics.otlp import overheard
from otel_openai_usage.metrics.own import SHOWN, Own
from otel_openai_usage.metrics.producer import produce

log = logging.getLogger(__name__)


def _nobody(_version: int, _ok: bool) -> None:
    pass


class Sender:
    """Sends everything every `interval` seconds, changed or not, cumulative. What fails is made
    good by the next.

    It never holds up whoever publishes: a dead or slow Collector costs its thread time, and nobody
    else's. `before_page` is called before each attempt, and may wait. `attempted(version, ok)` is
    called in that thread after each attempt with the version of the snapshot that was tried; it may
    not wait, nor raise. An attempt ends at the first batch that does not arrive.
    """

    def __init__(
        self,
        exporter: MetricExporter,
        board: Board,
        own: Own,
        resource: Resource,
        *,
        interval: float,
        to_resource: Sequence[str] = (),
        before_page: Callable[[], None] = lambda: None,
        attempted: Callable[[int, bool], None] = _nobody,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._exporter = exporter
        self._board = board
        self._own = own
        self._resource = resource
        self._interval = interval
        self._to_resource = to_resource
        self._before_page = before_page
        self._attempted = attempted
        self._now = now
        self._scope = InstrumentationScope(SCOPE, otel_openai_usage.__version__)
        self._one = Lock()
        self._ending = Event()
        self._closed = Event()
        self._out = False
        self._thread = Thread(target=self._run, name="otlp", daemon=True)

    def start(self) -> None:
        """Begin; the first attempt is one interval from now."""
        self._thread.start()

    def flush(self) -> bool:
        """One attempt here and now; whether all arrived. Waits as long as the exporter's time-out
        allows.
        """
        with self._one:
            self._before_page()
            snapshot = self._board.current()
            ok = self._send(snapshot)
        if not self._closed.is_set():
            self._attempted(snapshot.version, ok)
        return ok

    def abandon(self) -> None:
        """The end without a last attempt, as when the process is killed. `shutdown` may follow."""
        self._closed.set()
        self._ending.set()

    def shutdown(self, timeout: float = 5.0) -> None:
        """One last attempt, and the end, within `timeout` seconds whatever the Collector does."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(timeout * 0.8)
        self._closed.set()
        self._exporter.shutdown()  # ends waiting between tries, and gRPC calls on their way
        if self._thread.is_alive():
            self._thread.join(
                timeout * 0.2
            )  # an HTTP request on its way stays behind: the thread is a daemon

    def _run(self) -> None:
        due = time.monotonic() + self._interval
        while not self._ending.wait(max(0.0, due - time.monotonic())):
            self.flush()
            due += self._interval * max(1, -(-(time.monotonic() - due) // self._interval))
        if not self._closed.is_set():
            self.flush()

    def _send(self, snapshot: Snapshot) -> bool:
        with overheard() as said:
            try:
                ok = all(
                    self._exporter.export(batch) is MetricExportResult.SUCCESS
                    for batch in batches(self._data(snapshot))
                )
            except Exception as error:  # noqa: BLE001  # whatever the SDK raises, the next attempt must come
                said.append(f"{type(error).__name__}: {error}")
                ok = False
        self._tell(ok, said)
        return ok

    def _data(self, snapshot: Snapshot) -> MetricsData:
        shown = produce(
            snapshot,
            SHOWN,
            time=int(self._now() * 1e9),
            resource=self._resource,
            scope=self._scope,
            to_resource=self._to_resource,
        )
        return joined(shown, self._own.collect())

    def _tell(self, ok: bool, said: Sequence[str]) -> None:
        if not ok:
            self._own.export_failed("otlp")
        if self._out == ok:
            self._out = not ok
            if ok:
                log.info("OTLP export arrives again")
            else:
                log.warning(
                    "OTLP export did not arrive; tried again every interval",
                    extra={"error": "; ".join(said[-2:])[:500]},
                )
