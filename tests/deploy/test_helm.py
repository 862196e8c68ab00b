"""The Helm chart, rendered by a real Helm and judged by Kubernetes' own schemas. There is no cluster
here.
"""

import itertools
import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_openai_usage.config import load
from otel_openai_usage.config.settings import Settings
from tests.deploy.manifests import KUBERNETES, built, require_valid
from tests.real.servers import ROOT, program

pytestmark = pytest.mark.real

CHART = ROOT / "deploy" / "helm"
EVENTS = {"events": {"enabled": True, "existingSecret": "tokens"}}
SECRETS = {
    "run/secrets/events/tokens": "token-of-the-test\n",
    "run/secrets/web/web-config.yml": "{}\n",
    "run/secrets/postgresql/password": "secret\n",
}
DASHBOARD = {"dashboard": {"enabled": True}}
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "everything": EVENTS
    | DASHBOARD
    | {
        "podMonitor": {"enabled": True, "labels": {"release": "stack"}},
        "prometheusRule": {"enabled": True},
        "grafanaDashboards": {"enabled": True, "annotations": {"folder": "OpenAI"}},
        "networkPolicy": {"dashboardFrom": [{"podSelector": {}}]},
        "extraEnv": [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4317"}],
        "podAnnotations": {"example.com/owner": "finance"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "imagePullSecrets": [{"name": "registry"}],
        "extraVolumes": [{"name": "lookup", "configMap": {"name": "teams"}}],
        "extraVolumeMounts": [{"name": "lookup", "mountPath": "/etc/lookup"}],
    },
    "web configuration": {
        "webConfig": {"existingSecret": "web"},
        "serviceMonitor": {"enabled": True, "endpoint": {"scheme": "https"}},
    },
    "a claim of one's own": {"state": {"storage": {"existingClaim": "usage"}}} | DASHBOARD,
    "events only": EVENTS
    | {
        "openai": {"existingSecret": ""},
        "config": {"usage": {"enabled": False}, "costs": {"enabled": False}},
    },
    "replicas on PostgreSQL": EVENTS
    | DASHBOARD
    | {
        "replicas": 2,
        "standbyReplicas": 1,
        "podMonitor": {"enabled": True},
        "state": {
            "postgresql": {
                "url": "postgresql://usage@db:5432/usage?sslmode=verify-full",
                "existingSecret": "usage-database",
            }
        },
    },
    "settings of the exporter": {
        "config": {
            "organizations": [
                {"name": "research", "admin_key_file": "/run/secrets/openai/research"},
                {"name": "products", "admin_key_file": "/run/secrets/openai/products"},
            ],
            "usage": {"interval": "30s", "group_by": ["project_id", "model"]},
            "prometheus": {"port": 9999, "path": "/usage"},
        }
    },
}


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Helm. What it says is in the result, whether it failed or not."""
    return subprocess.run(
        [program("helm"), *arguments], capture_output=True, text=True, check=False
    )


def template(
    values: dict[str, Any], folder: Path, name: str = "usage"
) -> subprocess.CompletedProcess[str]:
    """Render the chart with these values."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    return helm("template", name, CHART, "--kube-version", KUBERNETES, "--values", file)


def rendered(values: dict[str, Any], folder: Path, name: str = "usage") -> list[dict[str, Any]]:
    """The objects that the chart makes of these values."""
    done = template(values, folder, name)
    assert done.returncode == 0, done.stderr
    return [thing for thing in yaml.safe_load_all(done.stdout) if thing]


def one(things: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The only object of this kind."""
    (thing,) = [thing for thing in things if thing["kind"] == kind]
    return thing


def workloads(things: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What has pods; the exporter's comes first."""
    found = [thing for thing in things if thing["kind"] in {"StatefulSet", "Deployment"}]
    return sorted(found, key=lambda thing: len(thing["metadata"]["name"]))


def pod(things: list[dict[str, Any]]) -> dict[str, Any]:
    """The template of the exporter's pod."""
    template: dict[str, Any] = workloads(things)[0]["spec"]["template"]
    return template


def container(things: list[dict[str, Any]], name: str = "exporter") -> dict[str, Any]:
    """A container of the exporter's pod."""
    (found,) = [part for part in pod(things)["spec"]["containers"] if part["name"] == name]
    return dict(found)


def configuration(things: list[dict[str, Any]], name: str = "config.yaml") -> str:
    """The file that the exporter reads, or the dashboard."""
    (text,) = [
        str(thing["data"][name])
        for thing in things
        if thing["kind"] == "ConfigMap" and name in thing["data"]
    ]
    return text


def loaded(text: str, folder: Path) -> Settings:
    """A configuration as its container reads it. `/run` is a folder of the test."""
    for file, content in SECRETS.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(content)
    (folder / "config.yaml").write_text(text.replace("/run/", f"{folder}/run/"))
    return load(folder / "config.yaml", {})


def test_helm_finds_nothing_to_say() -> None:
    """`helm lint --strict` has no warning."""
    done = helm("lint", "--strict", CHART)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_chart_has_the_version_of_the_package() -> None:
    """The chart and the image that it runs have the version of pyproject.toml."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart["version"] == chart["appVersion"] == project["version"]


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_kubernetes_takes_every_object(values: dict[str, Any], tmp_path: Path) -> None:
    """Every object satisfies Kubernetes' own schema, or its CRD's, strictly. Names are unique, and
    every container is without privileges on a read-only root.
    """
    things = rendered(values, tmp_path)
    for thing in things:
        require_valid(thing)
    names = [(thing["kind"], thing["metadata"]["name"]) for thing in things]
    assert len(names) == len(set(names))
    for workload in workloads(things):
        spec = workload["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        for part in spec["containers"]:
            assert part["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_every_reference_inside_leads_somewhere(values: dict[str, Any], tmp_path: Path) -> None:
    """Selectors select the pod, ports have names that the containers know, and every mounted volume
    exists.
    """
    things = rendered(values, tmp_path)
    for thing in things:
        spec = thing.get("spec", {})
        if thing["kind"] == "Service":
            names = ports_of(things, spec["selector"])
            assert {port["targetPort"] for port in spec["ports"]} <= names
        if thing["kind"] == "NetworkPolicy":
            names = ports_of(things, spec["podSelector"]["matchLabels"])
            wanted = {port["port"] for rule in spec["ingress"] for port in rule["ports"]}
            assert wanted <= names
        if thing["kind"] == "PodMonitor":
            names = ports_of(things, spec["selector"]["matchLabels"])
            assert {endpoint["port"] for endpoint in spec["podMetricsEndpoints"]} <= names
        if thing["kind"] == "PodDisruptionBudget":
            assert ports_of(things, spec["selector"]["matchLabels"])
        if thing["kind"] == "ServiceMonitor":
            labels = spec["selector"]["matchLabels"].items()
            services = [thing for thing in things if thing["kind"] == "Service"]
            (found,) = [
                service for service in services if labels <= service["metadata"]["labels"].items()
            ]
            assert spec["endpoints"][0]["port"] in {port["name"] for port in found["spec"]["ports"]}
    for workload in workloads(things):
        spec = workload["spec"]["template"]["spec"]
        claims = workload["spec"].get("volumeClaimTemplates", [])
        volumes = {volume["name"] for volume in spec["volumes"]}
        volumes |= {claim["metadata"]["name"] for claim in claims}
        mounts = itertools.chain.from_iterable(part["volumeMounts"] for part in spec["containers"])
        assert {mount["name"] for mount in mounts} <= volumes
        selector = workload["spec"]["selector"]["matchLabels"].items()
        selected = [
            other["metadata"]["name"]
            for other in workloads(things)
            if selector <= other["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert selected == [workload["metadata"]["name"]]


def ports_of(things: list[dict[str, Any]], selector: dict[str, str]) -> set[str]:
    """The names of the ports of the pods that a selector selects."""
    found = set()
    for workload in workloads(things):
        template = workload["spec"]["template"]
        if selector.items() <= template["metadata"]["labels"].items():
            for part in template["spec"]["containers"]:
                found |= {port["name"] for port in part["ports"]}
    return found


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_the_exporter_takes_its_configuration(values: dict[str, Any], tmp_path: Path) -> None:
    """What the chart writes is a configuration that the exporter takes, with the values' `config` in
    it. Its files are in mounted folders, and its ports are those of the container.
    """
    things = rendered(values, tmp_path)
    settings = loaded(configuration(things), tmp_path)
    mounts = [
        Path(mount["mountPath"].replace("/run/", f"{tmp_path}/run/"))
        for mount in container(things)["volumeMounts"]
    ]
    files = [
        settings.state.path,
        settings.state.password_file,
        settings.prometheus.web_config_file,
        settings.events.tokens_file,
        *(organization.admin_key_file for organization in settings.organizations),
    ]
    assert all(any(mount in file.parents for mount in mounts) for file in files if file)
    ports = {port["name"]: port["containerPort"] for port in container(things)["ports"]}
    wanted = {"metrics": settings.prometheus.port}
    if settings.events.enabled:
        wanted["events"] = settings.events.port
    assert ports == wanted
    for section, given in values.get("config", {}).items():
        written = yaml.safe_load(configuration(things))[section]
        assert given == written or given.items() <= written.items()


def test_it_is_what_the_plain_manifests_are(tmp_path: Path) -> None:
    """With the same choices, the pod, the volume, the network policy, the monitor, the rules and the
    configuration are those of deploy/kubernetes/standalone.
    """
    values = {
        "probes": "exec",
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
    }
    ours = rendered(values, tmp_path, name="otel-openai-usage")
    plain = built("standalone")

    def important(things: list[dict[str, Any]]) -> dict[str, Any]:
        stateful_set = one(things, "StatefulSet")["spec"]
        spec = json.loads(json.dumps(pod(things)["spec"]))
        for volume in spec["volumes"]:
            volume.pop("configMap", None)  # kustomize adds a hash of the content to its name
        for part in spec["containers"]:
            part.pop("imagePullPolicy", None)  # the default
            part["volumeMounts"].sort(key=lambda mount: mount["name"])
        spec["volumes"].sort(key=lambda volume: volume["name"])
        policy = one(things, "NetworkPolicy")["spec"]
        monitor = one(things, "ServiceMonitor")["spec"]
        (endpoint,) = monitor["endpoints"]
        return {
            "replicas": stateful_set["replicas"],
            "claims": [claim["spec"] for claim in stateful_set["volumeClaimTemplates"]],
            "pod": spec,
            "ingress": policy["ingress"],
            "egress": policy["egress"],
            "endpoint": {"path": "/metrics"} | endpoint,
            "rules": one(things, "PrometheusRule")["spec"],
            "ports": [
                thing["spec"]["ports"]
                for thing in things
                if thing["kind"] == "Service" and thing["spec"].get("clusterIP") == "None"
            ],
        }

    assert important(ours) == important(plain)
    written = yaml.safe_load(configuration(ours))
    written["prometheus"].pop("port")  # the default
    assert written == yaml.safe_load(configuration(plain))


def test_replicas_share_a_database(tmp_path: Path) -> None:
    """With a database there is no volume. Two replicas are spread, disrupted one at a time and
    updated without a pause; a standby owns nothing, and usage has the same labels at each of them.
    """
    things = rendered(VARIANTS["replicas on PostgreSQL"], tmp_path)
    exporter, *others = workloads(things)
    assert exporter["kind"] == "Deployment"
    assert exporter["spec"]["replicas"] == 2
    assert exporter["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert one(things, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert pod(things)["spec"]["topologySpreadConstraints"]
    assert [other["spec"]["replicas"] for other in others] == [1, 1]
    standby = loaded(configuration(things, "standby.yaml"), tmp_path)
    assert standby.state.standby
    assert not loaded(configuration(things), tmp_path).state.standby
    (endpoint,) = one(things, "PodMonitor")["spec"]["podMetricsEndpoints"]
    changed = {rule["targetLabel"] for rule in endpoint["metricRelabelings"]}
    assert changed == {"instance", "pod", "node", "container"}


def test_probes_ask_the_command_where_the_web_configuration_protects(tmp_path: Path) -> None:
    """Probes are HTTP requests. With a web configuration they run `healthcheck`, which knows TLS."""
    probes = ("startupProbe", "livenessProbe", "readinessProbe")
    usual = container(rendered({}, tmp_path))
    assert [usual[probe]["httpGet"]["path"] for probe in probes] == [
        "/healthz",
        "/healthz",
        "/readyz",
    ]
    protected = container(rendered(VARIANTS["web configuration"], tmp_path))
    commands = [protected[probe]["exec"]["command"] for probe in probes]
    assert [("--ready" in command) for command in commands] == [False, False, True]
    assert all(command[:2] == ["otel-openai-usage", "healthcheck"] for command in commands)


def test_the_dashboard_has_a_port_of_its_own_and_no_secret(tmp_path: Path) -> None:
    """The dashboard is a container with its own service. It mounts neither key nor tokens, and by
    default the network policy admits nobody. Its configuration has the same state and names none.
    """
    web = {"webConfig": {"existingSecret": "web"}}
    things = rendered(EVENTS | DASHBOARD | web, tmp_path)
    settings = loaded(configuration(things, "dashboard.yaml"), tmp_path)
    assert settings.state == loaded(configuration(things), tmp_path).state
    assert (settings.events.tokens_file, settings.prometheus.web_config_file) == (None, None)
    dashboard = container(things, "dashboard")
    paths = {mount["mountPath"] for mount in dashboard["volumeMounts"]}
    assert paths == {"/etc/otel-openai-usage", "/var/lib/otel-openai-usage", "/tmp"}
    services = [thing for thing in things if thing["kind"] == "Service"]
    ports = {
        port["name"]: thing["metadata"]["name"]
        for thing in services
        for port in thing["spec"]["ports"]
    }
    assert len(set(ports.values())) == 3
    ingress = one(things, "NetworkPolicy")["spec"]["ingress"]
    admitted = {port["port"] for rule in ingress for port in rule["ports"]}
    assert admitted == {"metrics", "events"}


def test_a_changed_configuration_restarts_the_pod(tmp_path: Path) -> None:
    """The pod's template has a checksum of the configuration, which is read only at the start."""
    first = pod(rendered({}, tmp_path))["metadata"]["annotations"]
    second = pod(rendered({"config": {"log": {"level": "debug"}}}, tmp_path))
    assert first != second["metadata"]["annotations"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"replicas": 2}, "/replicas"),
        ({"standbyReplicas": 1}, "/standbyReplicas"),
        ({"replica": 2}, "additional properties 'replica' not allowed"),
        ({"config": {"usage": {"intervall": "60s"}}}, "'intervall' not allowed"),
        ({"config": {"usage": {"interval": "soon"}}}, "'soon' does not match"),
        ({"config": {"api": {"retries": -1}}}, "/config/api/retries"),
        ({"events": {"enabled": True}}, "/events/existingSecret"),
        ({"image": {"digest": "latest"}}, "/image/digest"),
        (
            {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}},
            "serviceMonitor.enabled and podMonitor.enabled: choose one",
        ),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """A value that the chart does not know, or a setting that the exporter would refuse, ends before
    anything is installed, with its place.
    """
    done = template(values, tmp_path)
    assert done.returncode != 0
    assert reason in done.stderr


def test_every_value_is_in_the_schema_with_its_default() -> None:
    """values.schema.json knows exactly the values of values.yaml."""
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert schema.keys() - {"global"} == values.keys()
