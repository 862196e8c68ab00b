"""MetricsData → OTLP requests, our way and the official one."""

import gc
from collections.abc import Iterable, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.resources import Resource

from otel_openai_usage.core.snapshot import Board, Point, Series, Snapshot
from otel_openai_usage.metrics import batches as module
from otel_openai_usage.metrics import encoding
from otel_openai_usage.metrics.batches import PIECE, batches, joined
from otel_openai_usage.metrics.encoding import Encoder
from otel_openai_usage.metrics.own import Own
from tests.metrics.boards import HOUSE, Rows, snapshot
from tests.metrics.test_exposition import boards
from tests.metrics.test_producer import NOW, made


@given(boards)
@settings(max_examples=100, deadline=None)
def test_our_bytes_are_the_official_encoder_s(rows: Rows) -> None:
    """Whatever is on the Board, the request is byte for byte what the official encoder makes of it."""
    data = made(snapshot(rows))
    assert Encoder()(data).SerializeToString(deterministic=True) == encode_metrics(
        data
    ).SerializeToString(deterministic=True)


def test_every_shape_of_request_is_encoded() -> None:
    """Moved attributes, our own health beside the Board, parts of a metric, values of every type:
    all as officially.
    """
    health = Own(Board(), Resource({"service.name": "x"}))
    health.polled("acme", "usage/completions", 1.5, 10)
    odd: Rows = {
        **HOUSE,
        "openai.api.sessions": [
            ({"a": 1, "b": True, "c": 1.5, "d": "1", "e": ""}, 2**62),
            ({"a": True, "b": 1}, 0),
        ],
    }
    encoder = Encoder()
    for data in (made(snapshot(odd)), made(snapshot(odd), "organization"), made(snapshot({}))):
        whole = joined(data, health.collect())
        for batch in (whole, *batches(whole, 3)):
            assert encoder(batch) == encode_metrics(batch)
    health.shutdown()
    gc.collect()


MOVES = st.lists(st.tuples(st.integers(0, 29), st.integers(0, 3)), max_size=3)


@given(
    st.lists(st.tuples(MOVES, st.integers(0, 2), st.booleans()), min_size=3, max_size=6),
    st.sampled_from(["", "organization"]),
)
def test_points_that_stood_still_are_encoded_as_ever(
    steps: list[tuple[list[tuple[int, int]], int, bool]], moved: str
) -> None:
    """Request after request, whatever moves, comes and goes meanwhile, the bytes are the official
    encoder's.
    """
    encoder = Encoder()
    series = [Series({"organization": f"o{nth % 2}", "model": f"m{nth}"}, 7) for nth in range(30)]
    counter, gauge = ([Point(each, value) for each in series[:25]] for value in (1, 2.5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "PIECE", 4)
        patch.setattr(module, "PIECE", 4)
        for step, (moves, fewer, more) in enumerate(steps):
            for place, value in moves:
                if place < len(counter):
                    counter[place] = Point(counter[place].series, value)
            counter = counter[fewer:] + (
                [Point(Series({"model": f"new{step}"}, 7), 1)] if more else []
            )
            shown = Snapshot(
                step,
                0,
                {"openai.api.requests": list(counter), "openai.api.daily_cost": list(gauge)},
            )
            for batch in batches(made(shown, *filter(None, [moved]), time=NOW + step), 7):
                assert encoder(batch).SerializeToString(deterministic=True) == encode_metrics(
                    batch
                ).SerializeToString(deterministic=True)


def test_points_that_stood_still_are_not_encoded_again() -> None:
    """From the third request on a piece in which nothing moved costs a new time only; one that
    moved is encoded.
    """
    encoded: list[int] = []
    points = [Point(Series({"model": f"m{nth}"}, 7), 1) for nth in range(3 * PIECE)]

    class Telling(Encoder):
        def _points(
            self, points: Sequence[Point], moved: frozenset[str], times: Mapping[int, bytes]
        ) -> Iterable[bytes]:
            encoded.append(len(points))
            return super()._points(points, moved, times)

    encoder = Telling()
    for step in range(4):
        encoder(made(Snapshot(step, 0, {"openai.api.requests": points}), time=NOW + step))
    assert encoded == [PIECE] * 6
    points[PIECE] = Point(points[PIECE].series, 2)
    encoder(made(Snapshot(9, 0, {"openai.api.requests": points}), time=NOW + 9))
    assert encoded == [PIECE] * 7


def test_an_attribute_that_looks_like_the_time_is_left_alone() -> None:
    """Bytes of an attribute that are those of a point's time stay as they are."""
    times = [int.from_bytes(letter * 8, "little") for letter in (b"A", b"B", b"C", b"D")]
    shown = Snapshot(
        1, 0, {"openai.api.requests": [Point(Series({"model": "\x19" + "B" * 8}, 7), 1)]}
    )
    encoder = Encoder()
    for time in times:
        assert encoder(made(shown, time=time)) == encode_metrics(made(shown, time=time))


def test_nothing_is_an_empty_request() -> None:
    """No points, no resources."""
    assert not Encoder()(MetricsData([])).resource_metrics
