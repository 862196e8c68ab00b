"""What is written down is true, as far as a machine can tell."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from otel_openai_usage.domain.instruments import INSTRUMENTS

ROOT = Path(__file__).parent.parent
LISTED = subprocess.run(
    ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
).stdout.splitlines()
TEXTS = [
    path
    for path in map(ROOT.joinpath, LISTED)
    if path.is_file() and path.suffix not in {".png", ".gz", ".db"}
]
PAGES = [path for path in TEXTS if path.suffix == ".md"]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

# Spelt in parts, so that this file does not hold what it looks for.
HOSTS = (
    "proxy.golang" + ".org",
    "files.pythonhosted" + ".org",
    "pypi" + ".org/simple",
    "registry.npmjs" + ".org",
    "deb.debian" + ".org",
)
PLACES = ("/work" + "/main", "/work" + "/shared", "/root" + "/", "/tmp" + "/ocb")


def name(path: Path) -> str:
    """Its place in the checkout, as a test id."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page leads to a file of the checkout."""
    links = re.findall(r"\]\((?!https?://|mailto:|#)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_make_targets_exist(page: Path) -> None:
    """Every `make …` that a page tells of is a target of the Makefile."""
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= TARGETS


def test_no_text_names_a_registry_or_a_place_on_somebodys_machine() -> None:
    """Where packages come from is the user's business, and paths of one machine help nobody."""
    found = [
        (name(path), word)
        for path in TEXTS
        for word in HOSTS + PLACES
        if word in path.read_text(errors="replace")
    ]
    assert found == []


def test_make_lists_every_target() -> None:
    """`make` alone says what can be done, one line per target."""
    listed = subprocess.run(
        ["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert set(re.findall(r"make ([a-z-]+)", listed)) == TARGETS


def test_generated_pages_are_fresh() -> None:
    """The metrics table of the README, docs/metrics.md and docs/configuration.md say what the code
    says.
    """
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "docs.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_shows_metrics_that_exist() -> None:
    """Every `openai_…` name in the README is one that we expose; what it calls exporters run is a
    verb of the command.
    """
    text = (ROOT / "README.md").read_text()
    known = {item.prometheus for item in INSTRUMENTS.values()}
    assert set(re.findall(r"\bopenai_api_\w+", text)) <= known
    verbs = set(re.findall(r"otel-openai-usage ([a-z]+)", text))
    usage = subprocess.run(
        [sys.executable, "-m", "otel_openai_usage", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert {verb for verb in verbs if verb not in usage.split()} == set()


@pytest.mark.parametrize(
    "page", ["docs/quickstart.md", "docs/cli.md", "docs/metering.md", "README.md"]
)
def test_the_simulated_organization_has_a_state_of_its_own(page: str) -> None:
    """Every block of a page that sets the simulated key sets a state of its own, too: its usage must
    not come into the state that has the user's.
    """
    blocks = re.findall(r"```\w*\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    simulated = [block for block in blocks if "OPENAI_ADMIN_KEY=sk-admin-simulated" in block]
    assert [block for block in simulated if "XDG_STATE_HOME=" not in block] == []
    assert simulated or page not in {"docs/quickstart.md", "docs/cli.md"}


def test_the_number_of_dashboards_is_right() -> None:
    """docs/quickstart.md counts the shipped Grafana dashboards."""
    root = Path(__file__).parent.parent
    count = len(list((root / "deploy" / "grafana" / "dashboards").glob("*.json")))
    word = {4: "four", 5: "five", 6: "six", 7: "seven"}[count]
    assert f"Grafana with {word} dashboards" in (root / "docs" / "quickstart.md").read_text()
