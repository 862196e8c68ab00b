"""The verb `demo`: a simulated organization, an exporter of it and its dashboard, in one process,
without a key.
"""

import asyncio
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from otel_openai_usage.composition.app import forever, wire
from otel_openai_usage.composition.stores import is_empty, queries_opener
from otel_openai_usage.config import Location, load, state_location
from otel_openai_usage.engine.recorder import Clock
from otel_openai_usage.errors import ListenError, StateError


def demo(*, port: int, state_url: str | None = None) -> int:
    """Run a simulated organization and an exporter of it until SIGTERM, SIGINT or SIGHUP. Keeps
    nothing, except in the database of `state_url`. Raises ExporterError.
    """
    return asyncio.run(_demo(port, state_url))


async def _demo(port: int, state_url: str | None) -> int:
    from otel_openai_usage.commands import showcase
    from otel_openai_usage.simulator.server import ADMIN_KEY, application, running
    from otel_openai_usage.simulator.world import World

    world = World()
    async with running(application(world)) as url, AsyncExitStack() as stack:
        env = {"OPENAI_ADMIN_KEY": ADMIN_KEY, "OPENAI_BASE_URL": f"{url}/v1"}
        folder = stack.enter_context(TemporaryDirectory(prefix="otel-openai-usage-demo-"))
        key = "state.url" if state_url else "state.path"
        place = state_url or str(Path(folder) / "state.db")
        settings = load(None, env, {"prometheus.port": port, key: place, **DEMO})
        path = state_location(settings, env)
        if state_url and not is_empty(path):
            raise StateError(f"looked at {path}: there is a state; the demo needs an empty schema")
        organization = settings.organizations[0].name
        # In a thread: 90 days take a while, and the simulator answers from this event loop.
        await asyncio.to_thread(showcase.fill, path, world, organization, time.time())
        exporter = await wire(settings, stack, clock=Clock(time.time, time.monotonic), env=env)
        shown = _dashboard(path, stack, any_port=port == 0)
        server_url = exporter.server.url if exporter.server else ""
        events_url = exporter.ingest.url if exporter.ingest else ""
        text = _DEMO_TEXT.format(url=server_url, events=events_url, simulator=url, dashboard=shown)
        sys.stdout.write(text)
        sys.stdout.flush()
        return await forever(exporter)


def _dashboard(path: Location, stack: AsyncExitStack, *, any_port: bool) -> str:
    """Where the dashboard of a store is served until the stack ends; without its extra, how to have
    it.
    """
    try:
        from otel_openai_usage.dashboard.server import PORT, Server
        from otel_openai_usage.dashboard.store_watcher import StoreWatcher
    except ModuleNotFoundError:
        return "pip install 'otel-openai-usage[dashboard]' for the dashboard"
    watcher = StoreWatcher(queries_opener(path))
    try:
        server = Server(watcher, host="localhost", port=0 if any_port else PORT)
    except ListenError:
        # The usual port is taken, perhaps by a real dashboard; the demo shows the URL anyway.
        server = Server(watcher, host="localhost", port=0)
    server.start()
    stack.callback(server.close)
    return f"{server.url}/            the dashboard: what 90 days cost, and this month will"


DEMO: Mapping[str, object] = {
    "api.requests_per_minute": 1200,
    "usage.interval": "10s",
    "usage.reconcile_interval": "1m",
    "costs.interval": "30s",
    "attributes.zero_hold": "15s",
    "events.enabled": True,
    "events.port": 0,
}
_DEMO_TEXT = """
A simulated company uses OpenAI; its usage since midnight UTC is counted, and goes on live.

  {dashboard}
  {url}/            what is exported, and how the sources are doing
  {url}/metrics     the metrics, as Prometheus scrapes them
  {events}/api/v1/events     where applications report their responses, by customer
  {simulator}/            the simulated organization

Try:  curl -s {url}/metrics | grep openai_api_tokens_total | head
Ctrl-C ends it; nothing is kept.
"""
