"""The OTLP sender: the Board and our own health, every interval, from a thread of its own."""

import logging
import time
from collections.abc import Callable, Sequence
from threading import Event, Lock, Thread

from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

import otel_openai_usage
from otel_openai_usage.config.secrets import redact
from otel_openai_usage.domain.snapshot import Board, Snapshot
from otel_openai_usage.exporters.otlp.batches import batches, joined
from otel_openai_usage.exporters.otlp.producer import produce
from otel_openai_usage.exporters.otlp.transport import Exporter, Outcome
from otel_openai_usage.exporters.sdk.instruments import SCOPE
from otel_openai_usage.exporters.self_metrics import SHOWN, SelfMetrics

log = logging.getLogger(__name__)


QUIET = 60.0
"""Seconds in which one kind of trouble is logged once."""


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
        exporter: Exporter,
        board: Board,
        self_metrics: SelfMetrics,
        resource: Resource,
        *,
        interval: float,
        to_resource: Sequence[str] = (),
        before_page: Callable[[], None] = lambda: None,
        attempted: Callable[[int, bool], None] = _nobody,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exporter = exporter
        self._board = board
        self._self_metrics = self_metrics
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
        self._failure_log = _Trouble(monotonic)
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
        self._exporter.shutdown()  # ends the request that is on its way, and waiting between tries
        if self._thread.is_alive():
            self._thread.join(timeout * 0.2)

    def _run(self) -> None:
        due = time.monotonic() + self._interval
        while not self._ending.wait(max(0.0, due - time.monotonic())):
            self.flush()
            due += self._interval * max(1, -(-(time.monotonic() - due) // self._interval))
        if not self._closed.is_set():
            self.flush()

    def _send(self, snapshot: Snapshot) -> bool:
        ok = True
        outcomes = []
        try:
            for batch in batches(self._data(snapshot)):
                outcome = self._exporter.export(batch)
                outcomes.append(outcome)
                ok = outcome.ok
                if not ok:
                    break
        except Exception as error:  # noqa: BLE001  # whatever a library raises, the next attempt must come
            outcomes.append(Outcome(False, f"{type(error).__name__}: {error}"))
            ok = False
        self._report(ok, outcomes)
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
        return joined(shown, self._self_metrics.collect())

    def _report(self, ok: bool, outcomes: Sequence[Outcome]) -> None:
        """Count what went wrong, and log it when it begins and when it ends."""
        if not ok:
            self._self_metrics.export_failed("otlp")
        rejected = sum(outcome.rejected for outcome in outcomes)
        self._self_metrics.points_rejected("otlp", rejected)
        left_out = sum(outcome.left_out for outcome in outcomes)
        self._self_metrics.points_left_out("otlp", left_out)
        failure_log = self._failure_log
        if not ok:
            error = next((outcome.error for outcome in outcomes if outcome.error), "")
            failure_log.begins(
                "otlp_failed",
                "OTLP export did not arrive; tried again every interval",
                error=redact(error)[:500],
            )
        elif failure_log.ends("otlp_failed"):
            log.info("OTLP export arrives again", extra={"event": "otlp_recovered"})
        notice = next((outcome.notice for outcome in outcomes if outcome.notice), "")
        if rejected:
            failure_log.begins(
                "otlp_points_rejected",
                "the OTLP backend rejected points of an export; they are not sent again",
                points=rejected,
                backend_says=redact(notice),
            )
        elif notice:
            failure_log.begins(
                "otlp_remark",
                "the OTLP backend took an export with a remark",
                backend_says=redact(notice),
            )
        elif ok:
            failure_log.ends("otlp_points_rejected")
            failure_log.ends("otlp_remark")
        if left_out:
            failure_log.begins(
                "otlp_points_left_out",
                "points that cannot be encoded are left out of the OTLP export",
                points=left_out,
                reason=next((one.left_out_reason for one in outcomes if one.left_out_reason), ""),
            )
        else:
            failure_log.ends("otlp_points_left_out")


class _Trouble:
    """What is wrong with the export, so that it is logged when it begins and when it ends, and each
    kind once a minute at most: a backend cannot fill the log, whatever it answers.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._present: set[str] = set()
        """Events that are the case."""
        self._unsaid: set[str] = set()
        """Of these, those that were not logged because it happened shortly before."""
        self._said_at: dict[str, float] = {}

    def begins(self, event: str, message: str, **facts: object) -> None:
        """Log a warning, unless that is the case already."""
        if event in self._present:
            return
        self._present.add(event)
        now = self._monotonic()
        if now - self._said_at.get(event, -QUIET) < QUIET:
            self._unsaid.add(event)
            return
        self._said_at[event] = now
        log.warning(message, extra={"event": event, **facts})

    def ends(self, event: str) -> bool:
        """Whether that was the case, was logged, and is no more."""
        was_said = event in self._present and event not in self._unsaid
        self._present.discard(event)
        self._unsaid.discard(event)
        return was_said
