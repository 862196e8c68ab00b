"""`healthcheck`, as an image and Kubernetes use it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import bcrypt
import pytest

from otel_openai_usage.cli.health import ask
from otel_openai_usage.config import load
from otel_openai_usage.errors import ExporterError
from otel_openai_usage.exporters.prometheus.reader import PrometheusReader
from otel_openai_usage.http.server import Server
from tests.exporters.boards import ORGANIZATION, board
from tests.http.certificates import Authority

HASH = bcrypt.hashpw(b"x", bcrypt.gensalt(4)).decode()
TLS = "tls_server_config: {cert_file: server.crt, key_file: server.key"
MTLS = f"{TLS}, client_auth_type: RequireAndVerifyClientCert, client_ca_file: %s.pem}}\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"basic_auth_users: {{prom: {HASH}}}\n",
        TLS + "}\n",
        f"{TLS}}}\nbasic_auth_users: {{prom: {HASH}}}\n",
        MTLS % "authority",
        MTLS % "stranger",
    ],
    ids=["plain", "password", "tls", "tls and password", "client certificate", "foreign authority"],
)
async def test_the_listener_is_asked_as_it_is_configured(
    text: str, tmp_path: Path, unused_tcp_port_factory: Callable[[], int]
) -> None:
    """With passwords, TLS and client certificates the answer is ok, and readiness is told; with a
    foreign authority's client certificates readiness cannot be seen.
    """
    Authority(tmp_path).issue("server")
    Authority(tmp_path, "stranger")
    (tmp_path / "web.yml").write_text(text)
    port = unused_tcp_port_factory()
    settings = load(
        None,
        {},
        {
            "prometheus.host": "0.0.0.0",
            "prometheus.port": port,
            "prometheus.web_config_file": str(tmp_path / "web.yml"),
        },
    )
    shown = board(ORGANIZATION)
    reasons: list[str] = []
    server = Server(
        PrometheusReader(shown),
        shown,
        lambda: reasons,
        host="127.0.0.1",
        port=port,
        web_config_file=tmp_path / "web.yml",
    )
    with pytest.raises(ExporterError, match="is the exporter running"):
        await asyncio.to_thread(ask, settings, "/healthz")
    await server.start()
    try:
        assert (await asyncio.to_thread(ask, settings, "/healthz")).startswith("ok")
        if "stranger" in text:
            with pytest.raises(ExporterError, match="web_config_file"):
                await asyncio.to_thread(ask, settings, "/readyz")
            return
        assert await asyncio.to_thread(ask, settings, "/readyz") == "ready"
        reasons.append("costs: not polled yet")
        with pytest.raises(ExporterError, match="503: costs: not polled yet"):
            await asyncio.to_thread(ask, settings, "/readyz")
    finally:
        await server.stop()
