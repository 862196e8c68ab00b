"""What deploy/helm has from elsewhere: rules, dashboards, and the schema of its values, which
knows every setting of the exporter.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from otel_openai_usage.config.schema import schema

ROOT = Path(__file__).parents[1]
CHART = ROOT / "deploy" / "helm"
CONFIG_PREFIX = "Config"


def rendered() -> dict[Path, str]:
    """File to text. Helm reads nothing outside of the chart's own folder, hence copies."""
    rules = (ROOT / "deploy" / "prometheus" / "rules").glob("*.yml")
    dashboards = (ROOT / "deploy" / "grafana" / "dashboards").glob("*.json")
    files = CHART / "files"
    return {
        CHART / "values.schema.json": json.dumps(_values_schema(), indent=1) + "\n",
        **{files / "rules" / path.name: path.read_text() for path in sorted(rules)},
        **{files / "dashboards" / path.name: path.read_text() for path in sorted(dashboards)},
    }


def _values_schema() -> dict[str, Any]:
    """The JSON Schema of values.yaml. Draft 7, which every Helm 3 knows."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "tools" / "helm_values.yaml").read_text())
    config = _for_helm(schema())
    definitions = config.pop("$defs")
    config.pop("$schema")
    values["properties"]["config"] = config
    values["$defs"] |= {f"{CONFIG_PREFIX}{name}": text for name, text in definitions.items()}
    return {"$schema": "http://json-schema.org/draft-07/schema#", **values}


def _for_helm(node: Any) -> Any:
    """A schema with names of its own for its definitions, and with patterns that Go understands."""
    if isinstance(node, list):
        return [_for_helm(part) for part in node]
    if not isinstance(node, dict):
        return node
    found = {key: _for_helm(value) for key, value in node.items()}
    if isinstance(pattern := found.get("pattern"), str):
        # Go has no lookahead. Without it the empty string is accepted, too; the exporter is not.
        found["pattern"] = pattern.replace("(?=[0-9])", "")
    if isinstance(reference := found.get("$ref"), str):
        found["$ref"] = reference.replace("#/$defs/", f"#/$defs/{CONFIG_PREFIX}")
    return found
