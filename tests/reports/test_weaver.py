"""The registry for OpenTelemetry Weaver: valid, complete, and as the instruments are."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from otel_openai_usage.domain.gen_ai import GEN_AI_INSTRUMENTS
from otel_openai_usage.domain.instruments import INSTRUMENTS
from otel_openai_usage.exporters.self_instruments import SELF_INSTRUMENTS
from otel_openai_usage.reports import weaver

FOLDER = Path(__file__).parents[2] / "docs" / "registry"
_TEXT = {"type": "string", "minLength": 1}
_STABILITY = {"enum": ["stable", "development", "alpha", "beta", "release_candidate"]}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "required": ["groups"],
    "properties": {"groups": {"type": "array", "items": {"oneOf": [{"$ref": "#/$defs/attributes"}, {"$ref": "#/$defs/metric"}]}}},
    "$defs": {
        "attributes": {
            "type": "object",
            "additionalProperties": False,
            "required": ["id", "brief", "type", "attributes"],
            "properties": {
                "id": {"type": "string", "pattern": r"^registry\.[a-z0-9_.]+$"},
                "type": {"const": "attribute_group"},
                "display_name": _TEXT,
                "brief": _TEXT,
                "attributes": {"type": "array", "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["id", "type", "stability", "brief", "examples"],
                    "properties": {
                        "id": {"type": "string", "pattern": "^[a-z][a-z0-9_.]*$"},
                        "type": {"enum": ["string", "int", "double", "boolean"]},
                        "stability": _STABILITY,
                        "brief": _TEXT,
                        "examples": {"type": "array", "items": _TEXT, "minItems": 1},
                    },
                }},
            },
        },
        "metric": {
            "type": "object",
            "additionalProperties": False,
            "required": ["id", "brief", "type", "stability", "metric_name", "instrument", "unit"],
            "properties": {
                "id": {"type": "string", "pattern": r"^metric\."},
                "type": {"const": "metric"},
                "metric_name": {"type": "string", "pattern": "^[a-z][a-z0-9_.]*$"},
                "stability": _STABILITY,
                "brief": _TEXT,
                "instrument": {"enum": ["counter", "gauge", "histogram", "updowncounter"]},
                "unit": {"type": "string"},
                "attributes": {"type": "array", "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["ref"],
                    "properties": {"ref": _TEXT, "requirement_level": {"enum": ["required", "recommended", "opt_in"]}},
                }},
            },
        },
    },
}  # fmt: skip
"""The part of Weaver's schema (schemas/semconv.schema.json of open-telemetry/weaver, draft 2020-12)
that a registry of metrics with text attributes uses, as strict as Weaver is or stricter.
"""


def groups(name: str) -> list[dict[str, Any]]:
    """Return the groups of a file."""
    found: list[dict[str, Any]] = yaml.safe_load((FOLDER / name).read_text())["groups"]
    return found


@pytest.mark.parametrize("name", ["attributes.yaml", "metrics.yaml"])
def test_the_files_fit_the_schema(name: str) -> None:
    """Every group has what Weaver requires, and nothing that it does not know."""
    jsonschema.validate({"groups": groups(name)}, SCHEMA)


def test_every_metric_is_in_it() -> None:
    """Name, kind and unit are those of the instruments; the convention's own are left to it."""
    found = {
        group["metric_name"]: (group["instrument"], group["unit"])
        for group in groups("metrics.yaml")
    }
    rows: list[Any] = [*INSTRUMENTS.values(), *SELF_INSTRUMENTS.values()]
    assert {row.name: (row.kind, row.unit) for row in rows}.items() <= found.items()
    assert not found.keys() & GEN_AI_INSTRUMENTS.keys()


def test_every_reference_leads_to_an_attribute() -> None:
    """Every attribute of a metric is defined, once, with an example, and ids are unique."""
    (of_attributes,) = groups("attributes.yaml")
    defined = [attribute["id"] for attribute in of_attributes["attributes"]]
    metrics = groups("metrics.yaml")
    used = {attribute["ref"] for group in metrics for attribute in group["attributes"]}
    assert used == set(defined)
    assert len(defined) == len(set(defined))
    assert len({group["id"] for group in metrics}) == len(metrics)


def test_the_manifest_names_the_registry() -> None:
    """The manifest has what Weaver reads of it."""
    manifest = yaml.safe_load((FOLDER / "registry_manifest.yaml").read_text())
    assert {"name", "description", "semconv_version", "schema_base_url"} <= manifest.keys()
    assert weaver.files().keys() == {path.name for path in FOLDER.iterdir()}
