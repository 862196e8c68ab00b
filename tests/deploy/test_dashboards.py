"""The dashboards in deploy/grafana: made from their source, asked of a real Prometheus by both
paths, true.
"""

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_openai_usage.domain.model import Window, floor
from otel_openai_usage.exporters.self_instruments import SELF_INSTRUMENTS, SNAPSHOT_INSTRUMENTS
from tests.deploy.conftest import PATHS, RULES, Rig
from tests.real.processes import wait_for
from tests.real.prometheus import Prometheus
from tests.real.servers import ROOT
from tools.dashboards.parts import NOTHING
from tools.dashboards.write import FOLDER, rendered

FILES = sorted(FOLDER.glob("*.json"))
DAY = 86400


def dashboard(file: Path) -> dict[str, Any]:
    """A dashboard as Grafana reads it."""
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def queries() -> Iterator[tuple[str, str, str]]:
    """Dashboard, panel and PromQL."""
    for file in FILES:
        for panel in dashboard(file)["panels"]:
            for target in panel["targets"]:
                yield file.stem, panel["title"], target["expr"]


def variables() -> Iterator[tuple[str, str, str]]:
    """Dashboard, variable and its query."""
    for file in FILES:
        for variable in dashboard(file)["templating"]["list"]:
            if variable["type"] == "query":
                yield file.stem, variable["name"], variable["query"]


def filled(expr: str, **chosen: str) -> str:
    """PromQL with Grafana's variables filled in; `All` where nothing is chosen."""
    every = dict.fromkeys(("organization", "project", "model", "key", "subject"), ".*")
    values = {"__rate_interval": "2m", "__range": "5m"} | every | chosen
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], expr)


def panel(file: str, title: str) -> str:
    """The PromQL of a panel with one query."""
    (expr,) = [expr for name, panel, expr in queries() if (name, panel) == (file, title)]
    return expr


# --- as they are


def test_dashboards_are_what_their_source_makes() -> None:
    """Files in deploy/grafana/dashboards are up to date; `make deploy` writes them anew."""
    assert {path: path.read_text() for path in FILES} == rendered()


def test_dashboards_ask_for_what_is_there() -> None:
    """A renamed metric or rule breaks this test, not somebody's dashboard."""
    known = {item.prometheus for item in SNAPSHOT_INSTRUMENTS.values()} | {
        row.prometheus for row in SELF_INSTRUMENTS.values()
    }
    known |= set(re.findall(r"record: (\S+)", (RULES / "recording.yml").read_text()))
    asked = {
        name
        for *_, expr in (*queries(), *variables())
        for name in re.findall(r"\b(?:otel_)?openai[_:][a-z_:0-9]+", expr)
    }
    suffixes = ("_bucket", "_", "")
    assert {
        name for name in asked if not any(name.removesuffix(suffix) in known for suffix in suffixes)
    } - {"openai_api_"} == set()


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_panels_say_what_they_show(file: Path) -> None:
    """Every panel has a title, a sentence, a unit, the chosen data source, and a word for when
    there is nothing.
    """
    for item in dashboard(file)["panels"]:
        assert item["title"]
        assert item["description"].endswith("."), item["title"]
        assert item["datasource"]["uid"] == "$datasource"
        assert (defaults := item["fieldConfig"]["defaults"])["unit"], item["title"]
        assert defaults["noValue"] == NOTHING


def test_no_query_adds_parts_to_wholes() -> None:
    """A sum of tokens says which token types: input and output, one of them, or by type."""
    for file, title, expr in queries():
        if "openai_api_tokens_total" in expr:
            assert "token_type" in expr, f"{file}: {title}"


def test_grafana_is_told_where_everything_is() -> None:
    """The provisioned data source is the default Prometheus, and the folder is the one that is
    mounted in compose.yaml.
    """
    grafana = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((grafana / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    (provider,) = yaml.safe_load((grafana / "dashboards" / "openai.yaml").read_text())["providers"]
    mounts = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]["grafana"][
        "volumes"
    ]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounts


# --- asked of a real Prometheus


@pytest.mark.real
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("file", "title", "expr"), list(queries()), ids=lambda part: re.sub(r"\W+", "-", part)[:40]
)
def test_every_panel_has_something_to_show(
    rig: Rig, path: str, file: str, title: str, expr: str
) -> None:
    """By either path the query of every panel gives data."""
    server = rig.prometheus[path]
    assert wait_for(lambda: server.query(filled(expr)), f"{file}: {title}", 20)


OLD_QUERIES = json.loads((Path(__file__).parent / "queries-0.1.json").read_text())


@pytest.mark.real
def test_dashboards_of_the_release_before_go_on(rig: Rig) -> None:
    """Every query of the dashboards of 0.1 that uses a recording rule still gives data."""
    server = rig.prometheus["scraped"]
    silent = [title for _, title, expr in OLD_QUERIES if not server.query(filled(expr))]
    assert silent == []


@pytest.mark.real
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("file", "name", "query"), list(variables()))
def test_every_variable_has_something_to_choose(
    rig: Rig, path: str, file: str, name: str, query: str
) -> None:
    """By either path every variable offers exactly the values that its series have."""
    found = re.fullmatch(r"label_values\((.*), (\w+)\)", query)
    assert found, f"{file}: {name}"
    server = rig.prometheus[path]
    offered = server.api(f"label/{found[2]}/values", **{"match[]": filled(found[1])})
    seen = {dict(labels).get(found[2], "") for labels in server.query(filled(found[1]))}
    assert offered
    assert set(offered) == seen - {""}


# --- true


def by(server: Prometheus, expr: str, *names: str) -> dict[tuple[str, ...], float]:
    """An answer by the values of some labels, to a millionth."""
    return {
        tuple(dict(labels).get(name, "") for name in names): round(value, 6)
        for labels, value in server.query(filled(expr)).items()
    }


def day(time: float) -> str:
    """2026-11-22."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d")


@pytest.mark.real
@pytest.mark.parametrize("path", PATHS)
def test_tokens_are_the_worlds(rig: Rig, path: str) -> None:
    """What the recorded counters say by project, model and token type is what the simulated
    organization truly used, to the token.
    """
    types = ("input", "output", "input_cached")

    def truth(start: int) -> dict[tuple[str, ...], float]:
        window = Window(start, floor(int(time.time()), 60))
        tokens = dict[tuple[str, ...], float]()
        for endpoint in ("completions", "decisions", "embeddings", "moderations"):
            for (project, model), row in rig.simulator.totals(
                endpoint, window, "project_id", "model"
            ).items():
                for token_type in types:
                    key = (project or "", model or "", token_type)
                    tokens[key] = tokens.get(key, 0) + row.get(token_type, 0)
        return {key: value for key, value in tokens.items() if value}

    def agree() -> bool:
        labels = ("project_id", "model", "token_type")
        expr = f'sum by ({", ".join(labels)}) (openai:tokens:sum{{token_type=~"{"|".join(types)}"}}) > 0'
        shown = by(rig.prometheus[path], expr, *labels)
        return any(shown == truth(floor(moment - 6 * DAY, 60)) for moment in rig.started)

    wait_for(agree, "the world and Prometheus to agree", 100, 0.5)


@pytest.mark.real
@pytest.mark.parametrize("path", PATHS)
def test_requests_are_the_worlds(rig: Rig, path: str) -> None:
    """Requests by project and API key are those that the simulated organization truly made."""

    def agree() -> bool:
        shown = by(
            rig.prometheus[path],
            'sum by (project_id, api_key_id) (openai_api_requests_total{operation="embeddings"}) > 0',
            "project_id",
            "api_key_id",
        )
        for moment in rig.started:
            window = Window(floor(moment - 6 * DAY, 60), floor(int(time.time()), 60))
            used = rig.simulator.totals("embeddings", window, "project_id", "api_key_id")
            if shown == {
                (project or "", key or ""): row["requests"]
                for (project, key), row in used.items()
                if row["requests"]
            }:
                return True
        return False

    wait_for(agree, "the world and Prometheus to agree", 100, 0.5)


@pytest.mark.real
@pytest.mark.parametrize("path", PATHS)
def test_past_days_cost_what_they_did(rig: Rig, path: str) -> None:
    """Each of the last five days costs, by project, what the simulated organization's bill says, to
    a millionth of a dollar.
    """
    server = rig.prometheus[path]
    today = floor(int(time.time()), DAY)
    for start in range(today - 5 * DAY, today, DAY):
        billed = rig.simulator.costs(start, "project_id")
        shown = by(
            server, f'sum by (project_id) (openai:cost:day{{date="{day(start)}"}})', "project_id"
        )
        assert shown == {
            (project or "",): pytest.approx(cost, abs=2e-6) for (project,), cost in billed.items()
        }


@pytest.mark.real
@pytest.mark.parametrize("path", PATHS)
def test_spend_panels_add_up(rig: Rig, path: str) -> None:
    """Spend today and this month, in all and by project, are the sums of the days that OpenAI
    reports.
    """
    server = rig.prometheus[path]

    def agree() -> bool:
        days = by(
            rig.prometheus["scraped"],
            "sum by (date, project_name) (openai_api_daily_cost)",
            "date",
            "project_name",
        )
        today = day(time.time())
        month = day(time.time())[:7]
        wanted: dict[str, float] = {}
        for (date, project), cost in days.items():
            if date.startswith(month):
                wanted[project] = wanted.get(project, 0) + cost
        return (
            server.value(filled(panel("overview", "Spend today")))
            == pytest.approx(sum(days[key] for key in days if key[0] == today))
            and server.value(filled(panel("overview", "Spend this month")))
            == pytest.approx(sum(wanted.values()))
            and by(server, panel("overview", "Spend this month by project"), "project_name")
            == {(project,): pytest.approx(cost) for project, cost in wanted.items()}
        )

    wait_for(agree, "panels and days to agree", 60, 0.5)


@pytest.mark.real
@pytest.mark.parametrize("path", PATHS)
def test_choosing_a_project_shows_it_alone(rig: Rig, path: str) -> None:
    """With a project chosen, spend this month is that project's, and the projects together are all
    there is.
    """
    server = rig.prometheus[path]
    expr = panel("overview", "Spend this month")

    def agree() -> bool:
        names = [
            dict(labels).get("project_name", "")
            for labels in server.query("group by (project_name) (openai:cost:month)")
        ]
        parts = [
            server.value(filled(expr, project=re.escape(name).replace("\\", "\\\\") or "^$"))
            for name in names
        ]
        return len(names) > 2 and sum(part or 0 for part in parts) == pytest.approx(
            server.value(filled(expr))
        )

    wait_for(agree, "parts to be the whole", 30, 0.5)


@pytest.mark.real
@pytest.mark.parametrize(
    "name", ["tokens:sum", "requests:sum", "cost:sum", "cost:month", "spend_limit:burn_rate"]
)
def test_both_paths_say_the_same(rig: Rig, name: str) -> None:
    """Scraped or collected, the recorded series have the same labels."""
    recorded = f"openai:{name}"
    wait_for(
        lambda: (
            rig.prometheus["scraped"].query(recorded).keys()
            == rig.prometheus["collected"].query(recorded).keys()
        ),
        recorded,
        30,
    )
