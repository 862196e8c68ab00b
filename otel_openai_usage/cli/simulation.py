"""The commands `simulate` and `demo`."""

from typing import Any

import click

from otel_openai_usage import stopping
from otel_openai_usage.cli.group import cli, command, port_option


@command(cli, "simulate")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@port_option(8080)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Another seed is another company."
)
@click.option(
    "--projects",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="How many projects it has.",
)
@click.option(
    "--keys", type=click.IntRange(1), default=12, show_default=True, help="How many API keys."
)
@click.option(
    "--users", type=click.IntRange(1), default=10, show_default=True, help="How many users."
)
@click.option("--models", type=click.IntRange(1), help="How many models its chats use.")
@click.option(
    "--activity",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="More than 1 is more requests.",
)
@click.option(
    "--lateness",
    type=click.Choice(["prompt", "demo", "harsh"]),
    default="demo",
    show_default=True,
    help="How late usage is reported.",
)
@click.option("--requests-per-minute", type=click.IntRange(1), help="Answer 429 beyond that.")
def simulate(
    host: str, port: int, seed: int, lateness: str, requests_per_minute: int | None, **size: Any
) -> int:
    """Serve a simulated OpenAI organization, with the admin key sk-admin-simulated.

    Its usage is a pure function of the seed and the minute. It can be told to misbehave while it runs: see its page /.

    \b
      otel-openai-usage simulate --port 8080
      export OPENAI_BASE_URL=http://127.0.0.1:8080/v1 OPENAI_ADMIN_KEY=sk-admin-simulated
      XDG_STATE_HOME=$(mktemp -d) otel-openai-usage run
    """
    import asyncio

    from otel_openai_usage import logs
    from otel_openai_usage.simulator import lateness as late
    from otel_openai_usage.simulator.faults import Faults
    from otel_openai_usage.simulator.server import ADMIN_KEY, serve
    from otel_openai_usage.simulator.world import World

    logs.setup("info", "text")
    presets = {"prompt": late.PROMPT, "demo": late.DEMO, "harsh": late.HARSH}
    world = World(seed, lateness=presets[lateness], **size)

    def ready(url: str) -> None:
        click.echo(
            f"A simulated OpenAI organization: {url}\nOPENAI_BASE_URL={url}/v1 OPENAI_ADMIN_KEY={ADMIN_KEY}"
        )

    serving = serve(
        host, port, world=world, faults=Faults(requests_per_minute=requests_per_minute), ready=ready
    )
    asyncio.run(stopping.until_stopped(serving))
    return 0


@command(cli, "demo")
@port_option(9185)
@click.option(
    "--state-url",
    metavar="URL",
    help="Keep the state in this PostgreSQL database, whose schema must be empty.",
)
def demo(port: int, state_url: str | None) -> int:
    """Show it with a simulated organization: needs no key, keeps nothing.

    Prints what to open in a browser and runs until SIGTERM, SIGINT or SIGHUP. The port is that of the
    metrics.

    \b
      otel-openai-usage demo
    """
    from otel_openai_usage import logs
    from otel_openai_usage.commands import demo as showing

    logs.setup("warning", "text")
    try:
        with stopping.raising():  # while it starts; its files are removed
            return showing.demo(port=port, state_url=state_url)
    except stopping.Stopped:
        return 0
