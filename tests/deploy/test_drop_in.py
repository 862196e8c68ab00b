"""Who comes from another exporter finds what its README shows: flags, metrics, labels, answers."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_openai_usage.domain.model import Window, floor
from otel_openai_usage.simulator.world import World
from tests.deploy.conftest import Rig
from tests.real.installed import KEY, SEED, Exporter, Simulator, Surroundings, samples
from tests.real.processes import get, wait_for
from tests.real.servers import ROOT

TOKENS = {
    "model",
    "operation",
    "project_id",
    "project_name",
    "user_id",
    "api_key_id",
    "batch",
    "token_type",
}
COST = {"date", "project_id", "project_name", "line_item", "organization_id", "currency"}
TYPES = {"input", "output", "input_cached", "input_audio", "output_audio"}
LEGACY = {"organization_id", "organization_name", "operation", "snapshot_id"}
COUNTS = {"requests": "requests", "context_tokens": "input", "generated_tokens": "output"}
"""`chatgpt_api_usage_…_total`, and what the world calls it."""
DAY = 86400


@pytest.fixture
def moved(tmp_path: Path, simulator: Simulator) -> Iterator[Exporter]:
    """Our exporter, started with the variables and flags of the other."""
    variables = {
        "OPENAI_SECRET_KEY": KEY,
        "OPENAI_ORG_ID": "org-123",
        "OPENAI_BASE_URL": simulator.base_url,
    }
    exporter = Exporter(
        Surroundings(tmp_path),
        ["--path", "/metrics", "--interval", "1m", "--log-level", "info"],
        variables,
        "/readyz",
    )
    yield exporter
    exporter.process.stop()


def test_its_variables_and_flags_are_understood(moved: Exporter) -> None:
    """OPENAI_SECRET_KEY, OPENAI_ORG_ID, path, interval and log level are all it needs, and every
    label of its two metrics is there.
    """
    moved.process.until(lambda: moved.sum("openai_api_tokens_total") > 0, "tokens")
    seen = moved.scrape()
    tokens = [dict(labels) for name, labels in seen if name == "openai_api_tokens_total"]
    costs = [dict(labels) for name, labels in seen if name == "openai_api_daily_cost"]
    assert set().union(*tokens) == TOKENS | {"organization", "api_key_name"}
    assert set().union(*costs) == COST | {"organization"}
    assert {labels["organization_id"] for labels in costs} == {
        World(SEED).company.id
    }  # OpenAI says it, so it beats OPENAI_ORG_ID
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", labels["date"]) for labels in costs)


@pytest.mark.real
def test_series_are_chosen_as_before(rig: Rig) -> None:
    """Every token type that its README names can be asked for by each of its labels, and the answer
    is the world's.
    """
    server = rig.prometheus["scraped"]
    assert {
        dict(labels)["token_type"]
        for labels in server.query("group by (token_type) (openai_api_tokens_total)")
    } >= TYPES

    def agree() -> bool:
        for moment in rig.started:
            window = Window(floor(moment - 6 * DAY, 60), floor(int(time.time()), 60))
            truth = rig.simulator.totals(
                "completions", window, "project_id", "user_id", "api_key_id", "model", "batch"
            )
            (project, user, key, model, batch), amounts = max(
                truth.items(), key=lambda item: item[1]["input"]
            )
            chosen = f'project_id="{project}", user_id="{user}", api_key_id="{key}", model="{model}", batch="{batch}"'
            series = f'openai_api_tokens_total{{{chosen}, operation="completions", token_type='
            if all(server.value(f'{series}"{kind}"}}') == amounts[kind] for kind in TYPES):
                return True
        return False

    wait_for(agree, "one series for one choice of labels, with the world's numbers", 100, 0.5)


@pytest.mark.real
def test_a_days_cost_of_a_project_is_one_sum(rig: Rig) -> None:
    """`sum by (date, project_id, currency) (openai_api_daily_cost)` is what a dashboard of the
    other shows, and it is the world's bill.
    """
    yesterday = floor(int(time.time()), DAY) - DAY
    date = time.strftime("%Y-%m-%d", time.gmtime(yesterday))
    query = f'sum by (date, project_id, currency) (openai_api_daily_cost{{date="{date}", currency="usd"}})'
    shown = {
        dict(labels).get("project_id", ""): value
        for labels, value in rig.prometheus["scraped"].query(query).items()
    }
    assert shown == {
        project or "": pytest.approx(cost)
        for (project,), cost in rig.simulator.costs(yesterday, "project_id").items()
    }


@pytest.fixture
def ordinary(tmp_path: Path, simulator: Simulator) -> Iterator[Exporter]:
    """Our exporter with the configuration that the page gives to users of the ChatGPT API Usage
    Exporter, and an ordinary key.
    """
    (text,) = re.findall(
        r"```yaml\n(legacy: .*?)```", (ROOT / "docs" / "drop-in.md").read_text(), re.DOTALL
    )
    (tmp_path / "config.yaml").write_text(text)
    variables = {"OPENAI_API_KEY": "sk-simulated", "OPENAI_BASE_URL": simulator.base_url}
    exporter = Exporter(
        Surroundings(tmp_path), ["-c", tmp_path / "config.yaml"], variables, "/readyz"
    )
    yield exporter
    exporter.process.stop()


def test_the_legacy_metrics_are_the_same(ordinary: Exporter, simulator: Simulator) -> None:
    """Its four metrics have its labels and no others, and say of each model what the world used
    today, as of the poll.
    """
    today = floor(int(time.time()), DAY)
    before = floor(int(time.time()) - 60, 60)

    def scrape() -> str:
        _, body = get(f"{ordinary.url}/metrics")
        return body if "chatgpt_api_usage_requests_total{" in body else ""

    text = ordinary.process.until(scrape, "a poll")
    seen = samples(text, "chatgpt_api_usage_")
    assert {name for name, _ in seen} == {
        "chatgpt_api_usage_up",
        *(f"chatgpt_api_usage_{count}_total" for count in COUNTS),
    }
    assert {frozenset(dict(labels)) for name, labels in seen if name.endswith("_total")} == {
        frozenset(LEGACY)
    }
    least = simulator.totals("completions", Window(today, max(before, today + 60)), "model")
    most = simulator.totals("completions", Window(today, floor(int(time.time()), 60) + 60), "model")
    for (name, labels), value in seen.items():
        if name.endswith("_total"):
            measure = COUNTS[name.removeprefix("chatgpt_api_usage_").removesuffix("_total")]
            model = (dict(labels)["snapshot_id"],)
            assert least.get(model, {}).get(measure, 0) <= value <= most[model][measure]


def test_the_page_names_every_label() -> None:
    """docs/drop-in.md says of each label and token type what became of it."""
    page = (ROOT / "docs" / "drop-in.md").read_text()
    assert {name for name in TOKENS | COST | TYPES | LEGACY if f"`{name}`" not in page} == set()
