"""The verb `healthcheck`."""

from pathlib import Path

import click

from otel_openai_usage.cli.address import address
from otel_openai_usage.cli.group import cli, command, config_option, load_settings


@command(cli, "healthcheck")
@config_option
@click.option(
    "--listen",
    callback=address,
    metavar="HOST:PORT",
    help="Where the exporter listens, if `run` was given it (prometheus.host, prometheus.port).",
)
@click.option("--ready", is_flag=True, help="Ask /readyz instead of /healthz.")
def healthcheck(file: Path | None, listen: tuple[str, int] | None, ready: bool) -> int:
    """Ask the running exporter whether it lives, for the health checks of containers.

    It asks this machine's listener as the configuration says it: host, port and TLS; it needs no
    password and no key. Ends with 0 if the answer is 200, otherwise with 1 and the reason. Where
    client certificates are required, the server's own is shown; if its authority is another one,
    /healthz counts as answered once a certificate is asked for, and /readyz cannot be seen.

    \b
      otel-openai-usage healthcheck
      otel-openai-usage healthcheck -c otel-openai-usage.yaml --ready
    """
    from otel_openai_usage.cli.health import ask

    given = dict(zip(("prometheus.host", "prometheus.port"), listen, strict=True)) if listen else {}
    click.echo(ask(load_settings(file, given), "/readyz" if ready else "/healthz"))
    return 0
