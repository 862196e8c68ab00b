"""MetricsData → OTLP requests, our way and the official one."""

import gc

from hypothesis import given, settings
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.resources import Resource

from otel_openai_usage.core.snapshot import Board
from otel_openai_usage.metrics.batches import batches, joined
from otel_openai_usage.metrics.encoding import Encoder
from otel_openai_usage.metrics.own import Own
from tests.metrics.boards import HOUSE, Rows, snapshot
from tests.metrics.test_exposition import boards
from tests.metrics.test_producer import made


@given(boards)
@settings(max_examples=100, deadline=None)
def test_our_bytes_are_the_official_encoder_s(rows: Rows) -> None:
    """Whatever is on the Board, the request is byte for byte what the official encoder makes of it."""
    data = made(snapshot(rows))
    assert Encoder()(data).SerializeToString(deterministic=True) == encode_metrics(data).SerializeToString(deterministic=True)


def test_every_shape_of_request_is_encoded() -> None:
    """Moved attributes, our own health beside the Board, parts of a metric, values of every type: all as officially."""
    health = Own(Board(), Resource({"service.name": "x"}))
    health.polled("acme", "usage/completions", 1.5, 10)
    odd: Rows = {**HOUSE, "openai.api.sessions": [({"a": 1, "b": True, "c": 1.5, "d": "1", "e": ""}, 2**62), ({"a": True, "b": 1}, 0)]}
    encoder = Encoder()
    for data in (made(snapshot(odd)), made(snapshot(odd), "organization"), made(snapshot({}))):
        whole = joined(data, health.collect())
        for batch in (whole, *batches(whole, 3)):
            assert encoder(batch) == encode_metrics(batch)
    health.shutdown()
    gc.collect()


def test_nothing_is_an_empty_request() -> None:
    """No points, no resources."""
    assert not Encoder()(MetricsData([])).resource_metrics
