"""A simulated company's last months in a store, the dashboard over it, and a real Chromium."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from otel_openai_usage.commands.showcase import fill
from otel_openai_usage.composition.stores import queries_opener
from otel_openai_usage.dashboard.server import Server
from otel_openai_usage.dashboard.store_watcher import StoreWatcher
from otel_openai_usage.simulator.world import World
from tests.dashboard.scene import NOW

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def world() -> World:
    """The company."""
    return World(7)


@pytest.fixture(scope="session")
def path(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its last 120 days, today not among them."""
    path = tmp_path_factory.mktemp("store") / "state.db"
    fill(path, world, "default", NOW, days=120)
    return path


@pytest.fixture(scope="session")
def watcher(path: Path) -> StoreWatcher:
    """What was read of it."""
    watcher = StoreWatcher(queries_opener(path), clock=lambda: NOW)
    watcher.refresh()
    return watcher


@pytest.fixture(scope="session")
def url(path: Path, watcher: StoreWatcher) -> Iterator[str]:
    """The dashboard, listening."""
    server = Server(watcher, host="localhost", port=0)
    server.start()
    yield server.url
    server.close()


# Not for the session: while Playwright lives, its event loop runs in this thread, and no test after
# it could have one.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real Chromium, without a window."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("there is no chromium: run make servers, or apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def window(browser: Browser) -> Iterator[BrowserContext]:
    """One profile for all tests: scripts are fetched once."""
    context = browser.new_context(
        viewport={"width": 1440, "height": 900}, accept_downloads=True, color_scheme="light"
    )
    yield context
    context.close()


@pytest.fixture
def page(window: BrowserContext) -> Iterator[Page]:
    """A tab."""
    page = window.new_page()
    page.set_default_timeout(20_000)
    yield page
    page.close()
