"""`_created` samples and a real Prometheus 3 with the flags that use them."""

import asyncio
import re
import time
from collections.abc import Callable

import pytest

from otel_openai_usage.domain.snapshot import Board, Point, Series, Snapshot
from otel_openai_usage.exporters.prometheus.reader import PrometheusReader
from otel_openai_usage.http.server import Server
from tests.real.prometheus import Prometheus
from tests.real.servers import ROOT

pytestmark = pytest.mark.real


def board() -> Board:
    """A board with two series that began a minute ago, and were 90 when they were first scraped: one
    that counted from 0, and one that took another's total over.
    """
    shown = Board()
    start = (int(time.time()) - 60) * 1_000_000_000
    series = [Series({"model": "new"}, start), Series({"model": "renamed"}, start, continues=True)]
    points = [Point(one, 90) for one in series]
    shown.publish(Snapshot(1, start, {"openai.api.tokens": points}))
    return shown


async def test_the_first_sample_counts(prometheus: Callable[..., Prometheus]) -> None:
    """With the flags of docs/opentelemetry.md increase() has what was counted before the first
    scrape, and not what a renamed series took over.
    """
    told = (ROOT / "docs" / "opentelemetry.md").read_text()
    (flags,) = re.findall(r"--enable-feature=[a-z0-9,-]*use-start-timestamps", told)
    shown = board()
    server = Server(PrometheusReader(shown, created=True), shown, list, host="127.0.0.1", port=0)
    await server.start()

    def ask() -> dict[str, float]:
        target = server.url.removeprefix("http://")
        real = prometheus([target], server="prometheus3", flags=(flags,))
        real.wait_for("min(count_over_time(openai_api_tokens_total[5m])) > 2")
        found = real.query("increase(openai_api_tokens_total[5m])")
        return {dict(labels)["model"]: value for labels, value in found.items()}

    try:
        found = await asyncio.to_thread(ask)
    finally:
        await server.stop()
    assert found["new"] == pytest.approx(90, rel=0.02)
    assert found["renamed"] == 0
