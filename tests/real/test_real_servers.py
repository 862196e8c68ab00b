"""The real servers start, answer and stop; what we ship for them is accepted by them."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.real.collector import CONFIG, Collector, validate
from tests.real.processes import free_port
from tests.real.prometheus import Prometheus
from tests.real.servers import ROOT

pytestmark = pytest.mark.real


@pytest.mark.parametrize("server", ["prometheus", "prometheus3"])
def test_prometheus_scrapes_what_it_is_told_to(
    prometheus: Callable[..., Prometheus], server: str
) -> None:
    """A target that nobody serves is down, and PromQL says so; Debian's Prometheus and the one that
    we build are a 2 and a 3.
    """
    target = f"127.0.0.1:{free_port()}"
    running = prometheus([target], server=server)
    down = {frozenset({("instance", target), ("job", "openai")}): 0.0}
    assert running.wait_for("up == 0") == down


def test_the_collectors_configuration_is_valid() -> None:
    """`otelcol validate` has nothing against collector-config.yaml."""
    done = validate(CONFIG)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_wrong_configuration_is_refused(tmp_path: Path) -> None:
    """`otelcol validate` is not a rubber stamp: a misspelt key fails."""
    (tmp_path / "config.yaml").write_text(
        CONFIG.read_text().replace("check_interval", "check_every")
    )
    assert validate(tmp_path / "config.yaml").returncode != 0


def test_the_commented_examples_are_valid_too(tmp_path: Path) -> None:
    """What is commented out in collector-config.yaml can be commented in."""
    example = re.compile(
        r"^(  |    )# (prometheus_remote_write:|otlp_http/vendor:|resource_constant_labels:|  )",
        re.MULTILINE,
    )
    text = example.sub(r"\1\2", CONFIG.read_text())
    text = text.replace("exporters: [debug]", "exporters: [otlp_http/vendor]")
    text = text.replace(
        "exporters: [prometheus, debug]", "exporters: [prometheus, prometheus_remote_write, debug]"
    )
    (tmp_path / "config.yaml").write_text(text)
    done = validate(tmp_path / "config.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_collector_runs(collector: Callable[..., Collector]) -> None:
    """collector-config.yaml starts and serves its Prometheus exporter, and none of its components
    has a deprecated name.
    """
    server = collector()
    assert server.scrape() == ""
    assert "deprecated" not in server.process.output


@pytest.mark.parametrize("name", ["cumulativetodelta", "prometheusremotewrite", "otlphttp"])
def test_component_names_are_todays(name: str) -> None:
    """No file or message of ours has the old name of a component; Go modules keep theirs."""
    found = subprocess.run(
        ["git", "grep", "-n", "-w", name, "--", ":!tests/real/test_real_servers.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout) == (1, "")


def test_installing_what_is_installed_says_nothing() -> None:
    """`make servers` is silent and changes nothing when the servers are there."""
    done = subprocess.run(
        [ROOT / "tools" / "install-real-servers.sh"], capture_output=True, text=True, check=True
    )
    assert done.stdout + done.stderr == ""
