"""Asks our own listener how it does, for the health checks of containers: with the host, port and TLS
that the configuration says.
"""

import http.client
import ssl

from otel_openai_usage.config import Settings
from otel_openai_usage.errors import ExporterError
from otel_openai_usage.http.tls import Tls
from otel_openai_usage.http.web_config import read

TIMEOUT = 5.0
_ANY = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


def ask(settings: Settings, path: str) -> str:
    """What the listener answers to `path`. Raises ExporterError if it is not 200, or nobody answers."""
    prometheus = settings.prometheus
    if not prometheus.enabled or settings.sdk_disabled:
        raise ExporterError(
            "asked the exporter how it does: prometheus.enabled is false, so nothing answers; check it by another way"
        )
    host = _ANY.get(prometheus.host, prometheus.host)
    web = read(prometheus.web_config_file) if prometheus.web_config_file else None
    where = f"{host}:{prometheus.port}{path}"
    try:
        connection = _connection(host, prometheus.port, web.tls if web else None)
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(4096).decode(errors="replace").strip()
    except (ssl.SSLError, http.client.RemoteDisconnected, ConnectionResetError) as error:
        # Whoever refuses our certificate is alive. Readiness can only be seen with a good one.
        if web and web.tls and web.tls.client_ca_file and path == "/healthz":
            return "ok: it asks for a client certificate"
        raise ExporterError(f"asked {where}: {error}; see prometheus.web_config_file") from error
    except (OSError, http.client.HTTPException) as error:
        raise ExporterError(
            f"asked {where}: {str(error) or type(error).__name__}; is the exporter running, with this configuration?"
        ) from error
    if answer.status != 200:
        raise ExporterError(f"asked {where}: {answer.status}: {text}")
    return text


def _connection(host: str, port: int, tls: Tls | None) -> http.client.HTTPConnection:
    if tls is None:
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    # We ask ourselves: the certificate is for other names than a loopback address.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if tls.client_ca_file:
        # The server's own certificate is good as a client's where the same authority signed it.
        context.load_cert_chain(tls.cert_file, tls.key_file)
    return http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)
