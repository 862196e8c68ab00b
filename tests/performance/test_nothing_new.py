"""What a poll without new usage does, counted in work and not in time."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_openai_usage.domain.endpoints import LIMITS, USAGE_ENDPOINTS, Endpoint
from otel_openai_usage.domain.instruments import INSTRUMENTS
from otel_openai_usage.domain.model import Rows, Width, Window
from otel_openai_usage.domain.readings import Bucket, Reading
from otel_openai_usage.domain.snapshot import Board, Point, Series, Snapshot
from otel_openai_usage.domain.windows import Rules
from otel_openai_usage.engine.recorder import Clock, Recorder
from otel_openai_usage.engine.usage_poll import UsagePoll
from otel_openai_usage.exporters.otlp.encoder import SnapshotEncoder
from otel_openai_usage.exporters.otlp.left_out import LeftOut
from otel_openai_usage.exporters.prometheus.reader import PrometheusReader
from otel_openai_usage.exporters.self_metrics import SelfMetrics
from otel_openai_usage.storage.sqlite.store import Store
from otel_openai_usage.view.attributes import AttributePolicy
from otel_openai_usage.view.snapshot_builder import SnapshotBuilder

NOON = 1_795_219_200
TOKENS = "openai.api.tokens"


class Scripted:
    """A source of embeddings whose every minute has ten rows. Remembers what it was asked to
    decode.
    """

    def __init__(self) -> None:
        self.parsed: list[bytes] = []
        self.more: dict[int, int] = {}

    @property
    def endpoint(self) -> Endpoint:
        """Embeddings."""
        return USAGE_ENDPOINTS["embeddings"]

    async def read(
        self,
        window: Window,
        width: Width,
        group_by: Sequence[str],
        known_fingerprints: Mapping[int, bytes],
    ) -> Reading:
        """Every changed bucket; the content is its own fingerprint."""
        changed = []
        for start in range(window.start, window.end, width):
            text = f"{start} {width} {self.more.get(start, 0)}".encode()
            if known_fingerprints.get(start) != text:
                changed.append(Bucket(start, text, self._decode(text)))
        return Reading(changed)

    def _decode(self, results: bytes) -> Rows:
        """Ten rows for each minute."""
        self.parsed.append(results)
        start, width, more = map(int, results.split())
        minutes = range(start, start + width, 60)
        return {
            (f"proj_{nth}", None, None, "m"): (len(minutes) * 5 + more, len(minutes))
            for nth in range(10)
        }


class Exporter:
    """The parts of an exporter, wired as the application does, with a clock that the test sets."""

    def __init__(self, folder: Path) -> None:
        self.now = float(NOON)
        self.source = Scripted()
        self.board = Board()
        self.store = Store(folder / "state.db")
        self.prometheus = PrometheusReader(self.board)
        self.self_metrics = SelfMetrics(self.board, Resource({}), [self.prometheus])
        snapshot_builder = SnapshotBuilder(AttributePolicy(name_wait=0))
        self.recorder = Recorder(
            self.store,
            snapshot_builder,
            self.board,
            Clock(lambda: self.now, lambda: self.now),
            self.self_metrics,
            otlp=False,
        )
        source_state = self.store.source_state(
            "default", self.source.endpoint, NOON - 7200, self.source.endpoint.group_by
        )
        rules = Rules(Width.MINUTE, 3 * 3600, 7 * 86400, LIMITS)
        self._poll = UsagePoll(self.recorder, self.source, source_state, rules, 900)
        self.recorder.source_states.append(source_state)
        self.recorder.load({})

    async def poll(self) -> int:
        """One poll, published and rendered; how many rows of the state were written."""
        before = self.store._db.total_changes
        await self._poll.poll()
        await self.recorder.do(self.recorder.publish)
        self.prometheus.refresh()
        return self.store._db.total_changes - before

    async def close(self) -> None:
        """Close everything."""
        await self.recorder.close()
        self.self_metrics.shutdown()
        self.store.close()


@pytest.fixture
async def exporter(tmp_path: Path) -> Exporter:
    """An exporter after its first poll."""
    made = Exporter(tmp_path)
    await made.poll()
    return made


async def test_a_poll_with_nothing_new_does_nothing(exporter: Exporter) -> None:
    """It decodes no bucket, writes no row, leaves every counter's points alone, and their ready
    bytes too.
    """
    points = exporter.board.current().points
    pages = exporter.prometheus.refresh()
    exporter.source.parsed.clear()
    exporter.now += 20
    assert await exporter.poll() == 0
    after = exporter.board.current().points
    pages_after = exporter.prometheus.refresh()
    await exporter.close()
    assert exporter.source.parsed == []
    assert [name for name, some in points.items() if after[name] is not some] == [
        "openai.api.last_success"
    ]
    same = {id(piece) for piece in pages.text.pieces} & {
        id(piece) for piece in pages_after.text.pieces
    }
    changed = b"".join(piece for piece in pages_after.text.pieces if id(piece) not in same)
    assert changed.startswith(b"openai_api_last_success_seconds{")
    assert changed.count(b"\n") == 1


async def test_only_what_changed_is_decoded_and_rendered(exporter: Exporter) -> None:
    """One minute that grew is one bucket to decode, and the families that it speaks of to render."""
    points = exporter.board.current().points
    minute = NOON - 600
    exporter.source.parsed.clear()
    exporter.source.more[minute] = 7
    exporter.now += 20
    await exporter.poll()
    after = exporter.board.current().points
    await exporter.close()
    assert exporter.source.parsed == [f"{minute} 60 7".encode()]
    changed = {name for name, some in points.items() if after[name] is not some}
    assert changed == {TOKENS, "openai.api.requests", "openai.api.last_success"}
    assert (
        sum(point.value for point in after[TOKENS])
        == sum(point.value for point in points[TOKENS]) + 70
    )


def test_no_request_has_more_than_8000_points() -> None:
    """A hundred thousand points go in batches that a Collector takes with its default limit of 4
    MiB.
    """
    series = [Series({"organization": "default", "model": str(nth)}) for nth in range(100_000)]
    snapshot = Snapshot(1, NOON * 10**9, {TOKENS: [Point(each, 1) for each in series]})
    encoder = SnapshotEncoder(INSTRUMENTS, Resource({}), InstrumentationScope("x"))
    sizes = []
    for request in encoder.requests(snapshot, NOON * 10**9, LeftOut()):
        sizes.append(request.points)
        assert len(request.body) < 4 * 2**20
    assert sum(sizes) == 100_000
    assert max(sizes) <= 8_000
