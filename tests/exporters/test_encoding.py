"""MetricsData → OTLP requests, our way and the official one."""

import gc
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.resources import Resource

from otel_openai_usage.domain.snapshot import Board, Point, Series, Snapshot
from otel_openai_usage.exporters.otlp import batches as module
from otel_openai_usage.exporters.otlp import encoding
from otel_openai_usage.exporters.otlp.batches import PIECE, batches, joined
from otel_openai_usage.exporters.otlp.encoding import Encoded, Encoder, LeftOut
from otel_openai_usage.exporters.self_metrics import SelfMetrics
from tests.exporters.boards import HOUSE, Rows, snapshot
from tests.exporters.test_exposition import boards
from tests.exporters.test_producer import NOW, made


def decoded(encoded: Encoded) -> ExportMetricsServiceRequest:
    """The request, read back."""
    request: ExportMetricsServiceRequest = ExportMetricsServiceRequest.FromString(encoded.body)
    return request


@given(boards)
@settings(max_examples=100, deadline=None)
def test_our_bytes_are_the_official_encoder_s(rows: Rows) -> None:
    """Whatever is on the Board, the request is byte for byte what the official encoder makes of it."""
    data = made(snapshot(rows))
    encoded = Encoder()(data)
    assert encoded.body == encode_metrics(data).SerializeToString(deterministic=True)
    assert encoded.left_out.points == 0


def test_every_shape_of_request_is_encoded() -> None:
    """Moved attributes, our own health beside the Board, parts of a metric, values of every type:
    all as officially.
    """
    health = SelfMetrics(Board(), Resource({"service.name": "x"}))
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
            assert decoded(encoder(batch)) == encode_metrics(batch)
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
                official = encode_metrics(batch).SerializeToString(deterministic=True)
                assert encoder(batch).body == official


def test_points_that_stood_still_are_not_encoded_again() -> None:
    """From the third request on a piece in which nothing moved costs a new time only; one that
    moved is encoded.
    """
    encoded: list[int] = []
    points = [Point(Series({"model": f"m{nth}"}, 7), 1) for nth in range(3 * PIECE)]

    class Telling(Encoder):
        def _points(
            self,
            points: Sequence[Point],
            moved: frozenset[str],
            times: Mapping[int, bytes],
            left_out: LeftOut,
        ) -> list[bytes]:
            encoded.append(len(points))
            return super()._points(points, moved, times, left_out)

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
        encoded = encoder(made(shown, time=time))
        assert decoded(encoded) == encode_metrics(made(shown, time=time))


def test_nothing_is_an_empty_request() -> None:
    """No points, no bytes."""
    assert Encoder()(MetricsData([])) == Encoded(b"", LeftOut())


@pytest.mark.parametrize(
    ("attributes", "value"),
    [
        ({"model": "m"}, 2**63),
        ({"model": "m"}, -(2**63) - 1),
        ({"model": "m"}, 10**400),
        ({"model": "m"}, float("nan")),
        ({"model": "m"}, Decimal("NaN")),
        ({"model": "m"}, Decimal("sNaN")),
        ({"model": "half \ud83d"}, 1),
        ({"half \ud83d": "m"}, 1),
        ({"model": 2**63}, 1),
    ],
    ids=repr,
)
def test_a_point_that_cannot_be_encoded_is_left_out(attributes: dict[str, Any], value: Any) -> None:
    """Its neighbours are sent, whichever metric it is in, again and again, and each time it is
    counted.
    """
    good = [Point(Series({"model": f"m{nth}"}, 7), nth) for nth in range(4)]
    bad = Point(Series(attributes, 7), value)
    encoder = Encoder()
    for step in range(4):
        for place in (0, 2, 4):
            points = [*good[:place], bad, *good[place:]]
            shown = {"openai.api.requests": points, "openai.api.daily_cost": points}
            whole = {"openai.api.requests": good, "openai.api.daily_cost": good}
            encoded = encoder(made(Snapshot(1, 0, shown), time=NOW + step))
            official = encode_metrics(made(Snapshot(1, 0, whole), time=NOW + step))
            assert decoded(encoded) == official
            assert encoded.left_out.points == 2
            assert encoded.left_out.reason


def test_a_resource_that_cannot_be_encoded_is_left_out() -> None:
    """An attribute that moved to the resource and is no text leaves out that resource's points."""
    points = [
        Point(Series({"organization": name, "model": "m"}, 7), 1) for name in ("a", "b\udc00")
    ]
    data = made(Snapshot(1, 0, {"openai.api.requests": points}), "organization")
    encoded = Encoder()(data)
    (resource,) = decoded(encoded).resource_metrics
    assert "a" in [pair.value.string_value for pair in resource.resource.attributes]
    assert encoded.left_out.points == 1


def test_our_health_with_an_odd_name_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """A point of the SDK's whose attribute is no text is left out like ours, without a word of the
    official encoder.
    """
    health = SelfMetrics(Board(), Resource({}))
    health.unpriced("acme", "half \ud83d", 1)
    health.unpriced("acme", "whole", 2)
    health.request("half \ud83d", "costs", 200, 1.5)
    data = health.collect()
    assert data
    encoded = Encoder()(data)
    assert b"whole" in encoded.body
    assert encoded.left_out.points == 3  # unpriced, and the number and duration of requests
    assert caplog.records == []
    health.shutdown()
    gc.collect()
