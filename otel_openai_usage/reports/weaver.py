"""Our metrics as a registry for OpenTelemetry Weaver, from which anybody can make documentation.

The format: open-telemetry/weaver, schemas/semconv.schema.json and schemas/semconv-syntax.md. The
metrics of the GenAI conventions are not in it: their own registry defines them.
"""

from typing import Any

import yaml

from otel_openai_usage.domain.gen_ai import GEN_AI_INSTRUMENTS
from otel_openai_usage.reports.catalogue import CatalogueEntry, entries

_HEADER = "# Made by `make docs` from the catalogue of metrics.\n"

_ATTRIBUTES = {
    "api_key_id": ("OpenAI's id of an API key.", "key_abc123"),
    "api_key_name": ("The name of an API key, `unknown` while it is not known.", "ci"),
    "batch": ("Whether the requests were part of a batch: `true` or `false`.", "false"),
    "budget": ("The name of a budget in the configuration.", "search"),
    "currency": ("The currency, in lower case.", "usd"),
    "date": ("A UTC day.", "2026-11-26"),
    "endpoint": ("The endpoint of OpenAI's API that was asked.", "usage/completions"),
    "exporter": ("Which exporter sent.", "otlp"),
    "instrument": ("The instrument that the number is about.", "openai.api.tokens"),
    "line_item": ("OpenAI's line item on the bill.", "gpt-4o-2024-08-06, input"),
    "model": ("The model that answered, as OpenAI reports it.", "gpt-4o-2024-08-06"),
    "operation": ("The usage endpoint that reports it.", "completions"),
    "organization": ("The name of the organization in the configuration.", "default"),
    "organization_id": ("OpenAI's id of the organization.", "org-abc123"),
    "part": ("Which part of a cost: `billed` or `estimated`.", "billed"),
    "percentile": ("The percentile of a forecast: 10, 50 or 90.", "50"),
    "project_id": ("OpenAI's id of the project.", "proj_abc123"),
    "project_name": ("The name of the project, `unknown` while it is not known.", "search"),
    "source": ("The source that is polled.", "usage/completions"),
    "subject": ("The customer whom an application reported.", "customer-1"),
    "token_type": ("The sort of tokens; `input` and `output` are totals.", "input"),
    "type": ("The type of an event.", "prompt"),
    "user_id": ("OpenAI's id of the user.", "user-abc123"),
    "user_name": ("The name of the user.", "Ada"),
}
"""By name: what it says, and an example."""


def files() -> dict[str, str]:
    """Return the files of the registry, by name."""
    rows = [
        row for family in entries().values() for row in family if row.name not in GEN_AI_INSTRUMENTS
    ]
    manifest = {
        "name": "otel_openai_usage",
        "description": "Metrics of otel-openai-usage: what OpenAI says you used and spent.",
        "semconv_version": "0.3.0",
        "schema_base_url": "https://github.com/otel-openai-usage/otel-openai-usage/schemas",
    }
    attributes = sorted({name for row in rows for name in row.attributes})
    group = {
        "id": "registry.otel_openai_usage",
        "type": "attribute_group",
        "display_name": "Attributes of OpenAI usage",
        "brief": "Attributes of the metrics of otel-openai-usage.",
        "attributes": [_attribute(name) for name in attributes],
    }
    return {
        "registry_manifest.yaml": _yaml(manifest),
        "attributes.yaml": _yaml({"groups": [group]}),
        "metrics.yaml": _yaml({"groups": [_metric(row) for row in rows]}),
    }


def _attribute(name: str) -> dict[str, Any]:
    words = name.replace("_", " ")
    brief, example = _ATTRIBUTES.get(name, (f"The {words}.", "some"))
    return {
        "id": name,
        "type": "string",
        "stability": "development",
        "brief": brief,
        "examples": [example],
    }


def _metric(row: CatalogueEntry) -> dict[str, Any]:
    return {
        "id": f"metric.{row.name}",
        "type": "metric",
        "metric_name": row.name,
        "stability": "development",
        "brief": f"{row.description}.",
        "instrument": row.kind,
        "unit": row.unit,
        "attributes": [
            {"ref": name, "requirement_level": "recommended"} for name in row.attributes
        ],
    }


def _yaml(document: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(document, sort_keys=False, width=140, allow_unicode=True)
    return _HEADER + text
