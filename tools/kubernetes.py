"""Write what deploy/kubernetes and deploy/helm have copies of: rules, dashboards, the Collector's
configuration, the schema of the settings. `python -m tools.kubernetes`.
"""

from pathlib import Path

import yaml

from tools import helm

ROOT = Path(__file__).parents[1]
KUBERNETES = ROOT / "deploy" / "kubernetes"
RULES = ("recording.yml", "alerts.yml")


def rendered() -> dict[Path, str]:
    """File to text. kustomize reads nothing outside of its own folder, hence copies."""
    return {
        KUBERNETES / "standalone" / "prometheus-rule.yaml": _rule(),
        KUBERNETES / "with-collector" / "collector-config.yaml": (
            ROOT / "collector-config.yaml"
        ).read_text(),
        **helm.rendered(),
    }


def _rule() -> str:
    """A PrometheusRule with every group of deploy/prometheus/rules."""
    folder = ROOT / "deploy" / "prometheus" / "rules"
    groups = [
        group for name in RULES for group in yaml.safe_load((folder / name).read_text())["groups"]
    ]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "otel-openai-usage"},
        "spec": {"groups": groups},
    }
    return "# Made from deploy/prometheus/rules by `make deploy`.\n" + yaml.safe_dump(
        rule, sort_keys=False, width=140, allow_unicode=True
    )


if __name__ == "__main__":
    for path, text in rendered().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
