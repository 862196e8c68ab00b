"""A real Prometheus scrapes the listener."""

import asyncio
from collections.abc import Callable

import pytest

from otel_openai_usage.exporters.prometheus.reader import PrometheusReader
from otel_openai_usage.http.server import Server
from tests.exporters.boards import board
from tests.real.prometheus import Prometheus


@pytest.mark.real
async def test_prometheus_reads_every_series(prometheus: Callable[..., Prometheus]) -> None:
    """20,000 series, sent as one gzip member of many segments, arrive with their values."""
    rows = [
        ({"organization": "acme", "model": f'm"{number}\\'}, number) for number in range(20_000)
    ]
    shown = board({"openai.api.tokens": rows, "openai.api.up": [({"source": "costs"}, 1)]})
    server = Server(PrometheusReader(shown), shown, list, host="127.0.0.1", port=0)
    await server.start()
    try:
        real = await asyncio.to_thread(prometheus, [server.url.removeprefix("http://")])
        await asyncio.to_thread(real.wait_for, "up == 1")
        assert await asyncio.to_thread(real.value, "count(openai_api_tokens_total)") == 20_000
        assert await asyncio.to_thread(real.value, "sum(openai_api_tokens_total)") == sum(
            range(20_000)
        )
        assert (
            await asyncio.to_thread(real.value, r'openai_api_tokens_total{model="m\"777\\"}') == 777
        )
        assert await asyncio.to_thread(real.value, "openai_api_up") == 1
    finally:
        await server.stop()
