"""Dockerfile, compose.yaml, Kubernetes manifests and systemd unit, before real parsers. There is no
Docker engine and no cluster here.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name

from otel_openai_usage.config import load
from tests.deploy.manifests import built, module, require_valid
from tests.real.servers import ROOT, program
from tools import kubernetes, sbom

DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
OVERLAYS = ("standalone", "with-collector")
COMPOSE_GO = "github.com/compose-spec/compose-go/v2@v2.16.2"


# --- Dockerfile


def test_hadolint_finds_nothing() -> None:
    """hadolint has nothing against the Dockerfile, and nothing is ignored."""
    done = subprocess.run(
        [
            Path(sys.executable).with_name("hadolint"),
            "--no-fail",
            "--format",
            "json",
            DEPLOY / "Dockerfile",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == []
    assert "hadolint" not in DOCKERFILE


def test_the_image_runs_as_nobody_in_particular_and_holds_no_secret() -> None:
    """The last stage sets a numeric user, a health check and an exec-form entry point; no key is
    named anywhere.
    """
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9]\d+:\d+$", last, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", last, re.MULTILINE)
    assert re.search(r'^ENTRYPOINT \["otel-openai-usage"\]$', last, re.MULTILINE)
    assert not re.search(r"KEY|TOKEN|SECRET|PASSWORD", DOCKERFILE)


def test_all_that_is_copied_is_there_and_sent() -> None:
    """What COPY names exists, and .dockerignore lets it through; all else stays outside."""
    lines = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    copied = {word.removeprefix("./") for line in lines for word in line.split()}
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert all((ROOT / name).exists() for name in copied)
    assert copied == {line.removeprefix("!") for line in ignore if line.startswith("!")}
    assert "*" in ignore


# --- Compose


def compose() -> dict[str, Any]:
    """deploy/compose.yaml."""
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


@pytest.mark.real
def test_compose_is_what_the_specification_wants() -> None:
    """deploy/compose.yaml satisfies the JSON Schema of the Compose specification."""
    schema = json.loads((module(COMPOSE_GO) / "schema" / "compose-spec.json").read_text())
    jsonschema.validate(compose(), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"services": {"a": {"imagge": "b"}}}, schema)


def test_compose_mounts_what_is_there() -> None:
    """Every file and folder that a service mounts exists; every named volume, secret and dependency
    is declared.
    """
    spec = compose()
    for service in spec["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (
                (DEPLOY / source).exists() if source.startswith(".") else source in spec["volumes"]
            ), volume
        assert set(service.get("depends_on", ())) <= spec["services"].keys()
        assert set(service.get("secrets", ())) <= spec["secrets"].keys()


def test_every_container_is_hardened() -> None:
    """Each has a read-only root, no capabilities and no new privileges, and listens on the host's
    loopback only.
    """
    for name, service in compose()["services"].items():
        assert (service["read_only"], service["cap_drop"], service["security_opt"]) == (
            True,
            ["ALL"],
            ["no-new-privileges:true"],
        ), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name


def test_demo_and_live_are_never_both_there() -> None:
    """Exactly one exporter runs in each profile: two would show the same twice."""
    exporters = {
        name: service["profiles"]
        for name, service in compose()["services"].items()
        if name.startswith("exporter")
    }
    assert exporters == {
        "exporter-demo": ["demo"],
        "exporter-live": ["live"],
        "exporter-legacy": ["legacy"],
        "exporter-postgres": ["postgres"],
    }


@pytest.mark.real
def test_prometheus_in_compose_takes_its_configuration(tmp_path: Path) -> None:
    """`promtool check config` accepts what Compose mounts, rules included, and the alerts' job is
    one that they know.
    """
    shutil.copy(DEPLOY / "compose" / "prometheus.yml", tmp_path)
    shutil.copytree(DEPLOY / "prometheus" / "rules", tmp_path / "rules")
    subprocess.run(
        [program("promtool"), "check", "config", tmp_path / "prometheus.yml"],
        capture_output=True,
        check=True,
    )
    config = yaml.safe_load((tmp_path / "prometheus.yml").read_text())
    assert all(job["job_name"].startswith("openai") for job in config["scrape_configs"])


@pytest.mark.parametrize("file", ["compose/exporter.yaml", "kubernetes/standalone/config.yaml"])
def test_the_exporters_configurations_load(file: str) -> None:
    """What is mounted into the exporter is a configuration that it takes."""
    assert load(DEPLOY / file, {}).organizations[0].admin_key_file is not None


# --- Kubernetes


def test_copies_are_up_to_date() -> None:
    """Copies for Kubernetes and Helm say what their originals say; `make deploy` writes them anew."""
    wanted = kubernetes.rendered()
    assert {path: path.read_text() for path in wanted} == wanted


@pytest.mark.real
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_takes_every_object(overlay: str) -> None:
    """Built by kustomize, every object satisfies Kubernetes' own schema, or its CRD's in the
    Prometheus Operator, strictly.
    """
    for thing in built(overlay):
        require_valid(thing)


@pytest.mark.real
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_there_is_one_exporter_and_it_may_do_little(overlay: str) -> None:
    """One replica, every container without privileges on a read-only root, and no token of the
    cluster.
    """
    (pods,) = [thing for thing in built(overlay) if thing["kind"] == "StatefulSet"]
    spec = pods["spec"]["template"]["spec"]
    assert (
        pods["spec"]["replicas"],
        spec["securityContext"]["runAsNonRoot"],
        spec["automountServiceAccountToken"],
    ) == (1, True, False)
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.real
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_services_and_monitors_find_their_pods(overlay: str) -> None:
    """Selectors select the labels that are there, and ports have names that the containers know."""
    things = {thing["kind"]: thing for thing in built(overlay)}
    labels = things["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    assert things["Service"]["spec"]["selector"].items() <= labels.items()
    assert things["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert (
        things["ServiceMonitor"]["spec"]["selector"]["matchLabels"].items()
        <= things["Service"]["metadata"]["labels"].items()
    )
    ports = {
        port["name"]
        for container in things["StatefulSet"]["spec"]["template"]["spec"]["containers"]
        for port in container["ports"]
    }
    assert {port["targetPort"] for port in things["Service"]["spec"]["ports"]} <= ports
    assert things["NetworkPolicy"]["spec"]["ingress"][0]["ports"][0]["port"] in ports


# --- systemd


@pytest.mark.real
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` knows every line of the unit."""
    text = (DEPLOY / "systemd" / "otel-openai-usage.service").read_text()
    (tmp_path / "otel-openai-usage.service").write_text(
        re.sub(r"/opt/\S+/bin/otel-openai-usage", "/bin/true", text)
    )
    done = subprocess.run(
        [program("systemd-analyze"), "verify", "--man=no", tmp_path / "otel-openai-usage.service"],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "otel-openai-usage" in line]
    assert (ours, done.returncode) == ([], 0)


@pytest.mark.real
def test_the_unit_is_locked_down() -> None:
    """`systemd-analyze security` gives the unit an exposure below 2 of 10."""
    unit = DEPLOY / "systemd" / "otel-openai-usage.service"
    subprocess.run(
        [program("systemd-analyze"), "security", "--offline=true", "--threshold=20", unit],
        capture_output=True,
        check=True,
    )


# --- what is in it


def test_what_is_copied_is_enough_to_build(tmp_path: Path) -> None:
    """From the files that the Dockerfile copies alone, the package builds."""
    for name in [
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name)
        else:
            shutil.copy(source, tmp_path / name)
    wheel: list[str | Path] = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        tmp_path / "dist",
        tmp_path,
    ]
    subprocess.run(wheel, capture_output=True, check=True)
    assert len(list((tmp_path / "dist").glob("otel_openai_usage-*.whl"))) == 1


def test_the_bill_of_materials_is_one() -> None:
    """What tools/sbom.py writes satisfies CycloneDX's own schema, strictly, and names every
    requirement with a pinned version.
    """
    text = json.dumps(bill := sbom.bill())
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    listed = {(part["name"], part["version"]) for part in json.loads(text)["components"]}
    names = {name for name, _ in listed}
    assert {
        "aiohttp",
        "grpcio",
        "opentelemetry-sdk",
        "prometheus-client",
        "pydantic",
        "multidict",
    } <= names
    assert not names & {"pytest", "dash", "mypy"}
    pins = [
        line.strip().split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    ]
    pinned = {str(canonicalize_name(name)): version for name, version in pins}
    assert {name: version for name, version in listed if pinned.get(name) != version} == {}
    assert bill["bomFormat"] == "CycloneDX"


def test_systemd_hands_over_the_key(tmp_path: Path) -> None:
    """The configuration that the quickstart writes for systemd finds the key where LoadCredential
    puts it.
    """
    (text,) = re.findall(
        r"^echo '(organizations: .*)' \| sudo tee",
        (ROOT / "docs" / "quickstart.md").read_text(),
        re.MULTILINE,
    )
    (tmp_path / "config.yaml").write_text(text)
    (name,) = re.findall(
        r"^LoadCredential=([^:]+):",
        (DEPLOY / "systemd" / "otel-openai-usage.service").read_text(),
        re.MULTILINE,
    )
    settings = load(tmp_path / "config.yaml", {"CREDENTIALS_DIRECTORY": "/run/credentials/x"})
    assert settings.organizations[0].admin_key_file == Path("/run/credentials/x") / name
