"""What is in deploy/prometheus and deploy/alertmanager, before the real promtool, amtool,
Prometheus and Alertmanager.
"""

import http.server
import json
import re
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_openai_usage.domain.instruments import INSTRUMENTS
from otel_openai_usage.exporters.self_instruments import SELF_INSTRUMENTS
from tests.real.processes import Process, free_port, wait_for
from tests.real.servers import ROOT, program

pytestmark = pytest.mark.real

DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "rules"
TESTS = sorted((DEPLOY / "prometheus" / "tests").glob("*.yml"))
NEVER_APPEARED = {
    "OpenAIExporterDown",
    "OpenAISourceFailing",
    "OpenAIDataStale",
    "OpenAICredentialsRejected",
}


def rules(file: str) -> list[dict[str, Any]]:
    """All rules of a file."""
    return [
        rule
        for group in yaml.safe_load((RULES / file).read_text())["groups"]
        for rule in group["rules"]
    ]


def alerts() -> dict[str, dict[str, Any]]:
    """Alerts by name."""
    return {rule["alert"]: rule for rule in rules("alerts.yml")}


PROMTOOLS = ("promtool", "promtool3")
"""Of Prometheus 2 and of Prometheus 3, whose ranges are left-open."""


def promtool(*arguments: str | Path, tool: str = "promtool") -> str:
    """Run promtool; its output. Fails with it."""
    done = subprocess.run([program(tool), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("tool", PROMTOOLS)
def test_prometheus_takes_the_configuration_and_the_rules(tool: str) -> None:
    """`promtool check config` finds nothing wrong with prometheus.yml and the rules that it names."""
    config = DEPLOY / "prometheus" / "prometheus.yml"
    assert "2 rule files found" in promtool("check", "config", config, tool=tool)


@pytest.mark.timeout(300)  # a month in steps of an hour, each looking back over a month
@pytest.mark.parametrize("tool", PROMTOOLS)
@pytest.mark.parametrize("file", TESTS, ids=lambda path: path.stem)
def test_rules_do_what_they_say(file: Path, tool: str) -> None:
    """Every case in deploy/prometheus/tests holds before `promtool test rules`, of Prometheus 2 and
    of Prometheus 3.
    """
    assert "SUCCESS" in promtool("test", "rules", file, tool=tool)


def expectations() -> Iterator[tuple[str, bool, str]]:
    """Alert, whether it is expected to fire, and the name of the case."""
    for file in TESTS:
        for case in yaml.safe_load(file.read_text())["tests"]:
            for expected in case.get("alert_rule_test", ()):
                yield expected["alertname"], bool(expected["exp_alerts"]), case["name"]


@pytest.mark.parametrize("alert", sorted(alerts()))
def test_every_alert_is_seen_firing_and_quiet(alert: str) -> None:
    """There is a case in which the alert fires and one in which it is quiet; four also fire when
    nothing ever appeared.
    """
    assert {fires for name, fires, _ in expectations() if name == alert} == {True, False}
    if alert in NEVER_APPEARED:
        assert (alert, True) in {
            (name, fires)
            for name, fires, case in expectations()
            if case.startswith("nothing is there at all")
        }


@pytest.mark.parametrize("alert", sorted(alerts()))
def test_every_alert_has_a_page_in_the_runbook(alert: str) -> None:
    """`runbook_url` leads to a section of docs/operations.md, below the repository's URL in
    pyproject.toml, that bears the alert's name.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    url, _, anchor = alerts()[alert]["annotations"]["runbook_url"].partition("#")
    page = url.removeprefix(f"{project['urls']['Repository']}/blob/main/")
    assert page == "docs/operations.md"
    assert anchor == alert.lower()
    assert re.search(rf"^### {alert}$", (ROOT / page).read_text(), re.MULTILINE)


def test_the_runbook_has_no_page_of_an_alert_that_is_gone() -> None:
    """Sections of docs/operations.md that look like alerts are alerts."""
    assert set(
        re.findall(
            r"^### (OpenAI\w+)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE
        )
    ) == set(alerts())


def test_every_recorded_series_is_tested_or_used() -> None:
    """No rule records what neither a case, nor another rule, nor a dashboard asks for."""
    texts = [
        file.read_text() for file in (*TESTS, *(DEPLOY / "grafana" / "dashboards").glob("*.json"))
    ]
    texts += [str(rule["expr"]) for file in ("recording.yml", "alerts.yml") for rule in rules(file)]
    unused = {
        rule["record"]
        for rule in rules("recording.yml")
        if not any(rule["record"] in text for text in texts)
    }
    assert unused == set()


def test_rules_ask_for_metrics_that_we_expose() -> None:
    """A renamed metric breaks this test, not somebody's alert."""
    known = {item.prometheus for item in INSTRUMENTS.values()} | {
        row.prometheus for row in SELF_INSTRUMENTS.values()
    }
    asked = {
        name
        for file in RULES.glob("*.yml")
        for name in re.findall(r"\b((?:otel_)?openai_(?:api|usage)_\w+)", file.read_text())
    }
    assert asked - known == set()


def test_amtool_takes_the_alertmanagers_configuration() -> None:
    """`amtool check-config` finds nothing wrong with alertmanager.yml."""
    file = DEPLOY / "alertmanager" / "alertmanager.yml"
    subprocess.run([program("amtool"), "check-config", file], capture_output=True, check=True)


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[Any]]]:
    """The URL of a receiver, and what it was sent."""
    received: list[Any] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", received
    server.shutdown()
    server.server_close()


@pytest.fixture
def alertmanager(tmp_path: Path, webhook: tuple[str, list[Any]]) -> Iterator[str]:
    """A real Alertmanager with the shipped configuration, but our webhook and no patience; its
    address.
    """
    text = (
        (DEPLOY / "alertmanager" / "alertmanager.yml")
        .read_text()
        .replace("http://localhost:5001/", webhook[0])
    )
    (tmp_path / "alertmanager.yml").write_text(re.sub(r"group_wait: \w+", "group_wait: 0s", text))
    address = f"127.0.0.1:{free_port()}"
    process = Process(
        [
            program("prometheus-alertmanager"),
            f"--config.file={tmp_path / 'alertmanager.yml'}",
            "--cluster.listen-address=",
            f"--storage.path={tmp_path / 'alertmanager'}",
            f"--web.listen-address={address}",
        ],
        tmp_path / "alertmanager.log",
    )
    process.ready(f"http://{address}/-/ready")
    yield address
    process.stop()


def test_an_alert_travels_to_a_webhook(
    tmp_path: Path, alertmanager: str, webhook: tuple[str, list[Any]]
) -> None:
    """When nobody answers the scrape, Prometheus tells Alertmanager, and Alertmanager tells the
    webhook; what it inhibits stays silent.
    """
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "alerts.yml").write_text(
        re.sub(r"\n +for: \w+", "", (RULES / "alerts.yml").read_text())
    )
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] |= {
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "evaluation_interval": "1s",
    }
    config["alerting"]["alertmanagers"][0]["static_configs"] = [{"targets": [alertmanager]}]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{free_port()}"]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    process = Process(
        [
            program("prometheus"),
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{free_port()}",
        ],
        tmp_path / "prometheus.log",
    )
    try:
        message = wait_for(lambda: next(iter(webhook[1]), None), "the webhook to be called", 60)
    finally:
        process.stop()
    ((name, url),) = {
        (alert["labels"]["alertname"], alert["annotations"]["runbook_url"])
        for alert in message["alerts"]
    }
    assert name == "OpenAIExporterDown"
    assert url.startswith("https://")
    assert url.endswith("/docs/operations.md#openaiexporterdown")
    assert {
        alert["labels"]["alertname"] for message in webhook[1] for alert in message["alerts"]
    } == {"OpenAIExporterDown"}
