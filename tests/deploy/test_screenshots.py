"""What a person sees, in a real browser. `pytest tests/deploy/test_screenshots.py --update-golden`
makes the pictures of the docs anew.
"""

import shutil
import urllib.parse
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright

from tests.deploy.conftest import Rig
from tests.real.servers import ROOT, program

pytestmark = pytest.mark.real

IMAGES = ROOT / "docs" / "images"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    """A page of Debian's Chromium without a window."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program("chromium"), args=FLAGS)
        yield await browser.new_page(viewport={"width": 1200, "height": 900})
        await browser.close()


async def taken(page: Page, name: str, folder: Path, update: bool) -> None:
    """A screenshot that shows something, and that the docs have one of this name."""
    await page.screenshot(path=folder / name)
    assert (folder / name).stat().st_size > 8000
    if update:
        IMAGES.mkdir(exist_ok=True)
        shutil.copy(folder / name, IMAGES / name)
    assert (IMAGES / name).read_bytes().startswith(b"\x89PNG")
    assert f"images/{name}" in (ROOT / "docs" / "quickstart.md").read_text()


@pytest.fixture
def update(request: pytest.FixtureRequest) -> bool:
    """Whether the pictures of the docs are to be made anew."""
    return bool(request.config.getoption("--update-golden"))


async def test_the_landing_page(rig: Rig, page: Page, tmp_path: Path, update: bool) -> None:
    """A browser shows the landing page, and its link leads to the metrics."""
    await page.goto(rig.exporter.url)
    await taken(page, "landing-page.png", tmp_path, update)
    await page.click("a[href$='/metrics']")
    assert "openai_api_tokens_total{" in await page.inner_text("body")


async def test_prometheus_draws_a_recorded_series(
    rig: Rig, page: Page, tmp_path: Path, update: bool
) -> None:
    """Prometheus' own page draws a graph of a recorded series with the projects' names in its
    legend.
    """
    expr = 'sum by (project_name) (openai:tokens:sum{token_type=~"input|output"})'
    names = {dict(labels)["project_name"] for labels in rig.prometheus["scraped"].query(expr)}
    asked = urllib.parse.urlencode({"g0.expr": expr, "g0.tab": 0, "g0.range_input": "1m"})
    await page.goto(f"{rig.prometheus['scraped'].url}/graph?{asked}")
    for name in names:
        await page.get_by_text(name).first.wait_for(timeout=20_000)
    await taken(page, "prometheus-graph.png", tmp_path, update)
