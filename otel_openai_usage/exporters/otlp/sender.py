"""The OTLP sender: exports the snapshot and our own health every interval, in its own thread."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Event, Lock, Thread

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

import otel_openai_usage
from otel_openai_usage.config.secrets import redact
from otel_openai_usage.domain.snapshot import Board, Snapshot
from otel_openai_usage.exporters.otlp.encoder import SnapshotEncoder
from otel_openai_usage.exporters.otlp.export_log import ExportLog
from otel_openai_usage.exporters.otlp.exporter import Exporter, Outcome
from otel_openai_usage.exporters.otlp.left_out import LeftOut
from otel_openai_usage.exporters.otlp.request import Request
from otel_openai_usage.exporters.sdk.instruments import SCOPE
from otel_openai_usage.exporters.self_instruments import SNAPSHOT_INSTRUMENTS
from otel_openai_usage.exporters.self_metrics import SelfMetrics

log = logging.getLogger(__name__)


MAX_ERROR = 500
"""Characters of an error that are logged."""


def _ignore_attempt(_version: int, _ok: bool) -> None:
    pass


class Sender:
    """Sends every series every `interval` seconds, changed or not, with cumulative values.

    A failed export needs no repetition: the next one has the same totals, or newer ones. An attempt
    ends at the first request that does not arrive. A dead or slow Collector delays only this
    thread, never the one that publishes.

    `before_page` is called before each attempt, and may wait. `attempted(version, ok)` is called in
    this thread after each attempt, with the version of the snapshot. It may neither wait nor raise.
    `may_show` says whether the snapshot may be sent now, or our own health only.
    """

    def __init__(
        self,
        exporter: Exporter,
        board: Board,
        self_metrics: SelfMetrics,
        resource: Resource,
        *,
        interval: float,
        to_resource: Sequence[str] = (),
        before_page: Callable[[], None] = lambda: None,
        attempted: Callable[[int, bool], None] = _ignore_attempt,
        may_show: Callable[[], bool] = lambda: True,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exporter = exporter
        self._board = board
        self._self_metrics = self_metrics
        self._interval = interval
        self._before_page = before_page
        self._attempted = attempted
        self._may_show = may_show
        self._now = now
        scope = InstrumentationScope(SCOPE, otel_openai_usage.__version__)
        self._encoder = SnapshotEncoder(SNAPSHOT_INSTRUMENTS, resource, scope, to_resource)
        self._log = ExportLog(monotonic)
        self._attempt_lock = Lock()
        self._ending = Event()
        self._closed = Event()
        self._thread = Thread(target=self._run, name="otlp", daemon=True)

    def start(self) -> None:
        """Start the thread. The first attempt is one interval from now."""
        self._thread.start()

    def flush(self) -> bool:
        """Export now, in the calling thread. Return whether every request arrived.

        Takes at most the exporter's timeout for each request.
        """
        with self._attempt_lock:
            self._before_page()
            snapshot = self._board.current()
            if not self._may_show():
                # Our own health goes on.
                return self._send(Snapshot())
            ok = self._send(snapshot)
        if not self._closed.is_set():
            self._attempted(snapshot.version, ok)
        return ok

    def abandon(self) -> None:
        """End without a last attempt, as if the process were killed. `shutdown` may follow."""
        self._closed.set()
        self._ending.set()

    def shutdown(self, timeout: float = 5.0) -> None:
        """Make a last attempt, and end within `timeout` seconds whatever the Collector does."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(timeout * 0.8)
        self._closed.set()
        self._exporter.shutdown()  # ends a request in progress, and the wait before a retry
        if self._thread.is_alive():
            self._thread.join(timeout * 0.2)

    def _run(self) -> None:
        due = time.monotonic() + self._interval
        while not self._ending.wait(max(0.0, due - time.monotonic())):
            self.flush()
            due = self._next_due(due, time.monotonic())
        if not self._closed.is_set():
            self.flush()

    def _next_due(self, due: float, now: float) -> float:
        """Return the next multiple of the interval. A slow export skips those that have passed."""
        late = now - due
        intervals = max(1, math.ceil(late / self._interval))
        return due + self._interval * intervals

    def _send(self, snapshot: Snapshot) -> bool:
        """Send one export. Return whether every request arrived; later ones wait for the next."""
        left_out = LeftOut()
        outcomes = []
        try:
            for request in self._requests(snapshot, left_out):
                outcome = self._exporter.export(request.body)
                outcomes.append(outcome)
                if not outcome.ok:
                    break
        # Whatever a library raises, the next attempt must come.
        except Exception as error:  # noqa: BLE001
            outcomes.append(Outcome(ok=False, error=f"{type(error).__name__}: {error}"))
        self._report(outcomes, left_out)
        return all(outcome.ok for outcome in outcomes)

    def _requests(self, snapshot: Snapshot, left_out: LeftOut) -> Iterator[Request]:
        time_of_export = int(self._now() * 1e9)
        health = self._self_metrics.collect()
        return self._encoder.requests(snapshot, time_of_export, left_out, health)

    def _report(self, outcomes: Sequence[Outcome], left_out: LeftOut) -> None:
        """Count and log what went wrong."""
        ok = all(outcome.ok for outcome in outcomes)
        rejected = sum(outcome.rejected for outcome in outcomes)
        if not ok:
            self._self_metrics.export_failed("otlp")
        self._self_metrics.points_rejected("otlp", rejected)
        self._self_metrics.points_left_out("otlp", left_out.points)
        self._log_arrival(ok, outcomes)
        self._log_rejections(ok, rejected, outcomes)
        self._log_left_out(left_out)

    def _log_arrival(self, ok: bool, outcomes: Sequence[Outcome]) -> None:
        if not ok:
            error = _first(outcome.error for outcome in outcomes)
            self._log.begin(
                "otlp_failed",
                "OTLP export failed; it is repeated every interval",
                error=redact(error)[:MAX_ERROR],
            )
            return
        was_logged = self._log.end("otlp_failed")
        if was_logged:
            log.info("OTLP export works again", extra={"event": "otlp_recovered"})

    def _log_rejections(self, ok: bool, rejected: int, outcomes: Sequence[Outcome]) -> None:
        notice = _first(outcome.notice for outcome in outcomes)
        if rejected:
            self._log.begin(
                "otlp_points_rejected",
                "the OTLP backend rejected points of an export; they are not sent again",
                points=rejected,
                backend_says=redact(notice),
            )
        elif notice:
            self._log.begin(
                "otlp_remark",
                "the OTLP backend accepted an export with a message",
                backend_says=redact(notice),
            )
        elif ok:
            self._log.end("otlp_points_rejected")
            self._log.end("otlp_remark")

    def _log_left_out(self, left_out: LeftOut) -> None:
        if left_out.points:
            self._log.begin(
                "otlp_points_left_out",
                "points that cannot be encoded are left out of the OTLP export",
                points=left_out.points,
                reason=left_out.reason,
            )
        else:
            self._log.end("otlp_points_left_out")


def _first(texts: Iterable[str]) -> str:
    """Return the first text that is not empty, or an empty one."""
    return next(filter(None, texts), "")
