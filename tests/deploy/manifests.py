"""Kubernetes manifests, and the schemas that judge them."""

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.real.servers import ROOT, program

KUBERNETES = "1.34"
PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"


def module(name: str) -> Path:
    """The folder of a Go module, for the schemas in it."""
    done = subprocess.run(
        [program("go"), "mod", "download", "-json", name],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(json.loads(done.stdout)["Dir"])


def built(overlay: str) -> list[dict[str, Any]]:
    """What `kubectl kustomize` makes of an overlay."""
    done = subprocess.run(
        [program("kubectl"), "kustomize", ROOT / "deploy" / "kubernetes" / overlay],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def require_valid(thing: dict[str, Any]) -> None:
    """Raise if an object does not satisfy Kubernetes' schema, or its CRD's, strictly."""
    if thing["apiVersion"].startswith("monitoring.coreos.com"):
        crds = module(PROMETHEUS_OPERATOR) / "example" / "prometheus-operator-crd"
        file = crds / f"monitoring.coreos.com_{thing['kind'].lower()}s.yaml"
        crd = yaml.safe_load(file.read_text())
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        jsonschema.Draft202012Validator(schema).validate(thing)
    else:
        kubernetes_validate.validate(thing, KUBERNETES, strict=True)
