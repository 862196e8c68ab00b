"""What a person sees. `pytest tests/dashboard/test_screenshots.py --update-golden` makes the
pictures of the docs again.
"""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.dashboard.test_page import opened

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"


@pytest.mark.parametrize(
    ("name", "query", "scheme", "above"),
    [
        ("dashboard.png", "", "light", 0),
        ("dashboard-dark.png", "?by=project&period=month", "dark", 0),
        ("dashboard-keys.png", "?by=key&period=90d", "light", 900),
        ("dashboard-customers.png", "?by=customer", "light", 0),
    ],
)
def test_the_pictures_of_the_docs(
    page: Page,
    url: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    name: str,
    query: str,
    scheme: str,
    above: int,
) -> None:
    """Each picture of docs/dashboard.md can be made again, and the page shows it."""
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    opened(page, f"{url}/{query}")
    page.wait_for_timeout(300)
    page.screenshot(
        path=tmp_path / name,
        full_page=not above,
        clip={"x": 0, "y": 0, "width": 1440, "height": above} if above else None,
    )
    if request.config.getoption("--update-golden"):
        shutil.copy(tmp_path / name, IMAGES / name)
    assert (tmp_path / name).stat().st_size > 50_000
    assert (IMAGES / name).read_bytes().startswith(b"\x89PNG")
    assert f"images/{name}" in (ROOT / "docs" / "dashboard.md").read_text(encoding="utf-8")
