"""The catalogue of every metric, our own health included, as Markdown and as JSON."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from otel_openai_usage.domain.instruments import INSTRUMENTS
from otel_openai_usage.exporters.self_metrics import OWN, RESTATED


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One metric, in both worlds."""

    name: str
    kind: str
    unit: str
    prometheus: str
    description: str
    attributes: tuple[str, ...]


_INTRODUCTION = """\
# Metrics

<!-- Made by `make docs` from the catalogue; `otel-openai-usage metrics` prints it too. -->

Every instrument under its OpenTelemetry name and the name that Prometheus scrapes. Attributes are labels in Prometheus; one that has no
value is absent. They can be renamed, dropped or moved to the resource: see [configuration](configuration.md).
"""


def entries() -> dict[str, list[CatalogueEntry]]:
    """Every metric by family: what OpenAI says, and our own health."""
    usage = [
        CatalogueEntry(
            item.name, item.kind, item.unit, item.prometheus, item.description, item.attributes
        )
        for item in INSTRUMENTS.values()
    ]
    self_metrics = [
        CatalogueEntry(
            row.name, row.kind, row.unit, row.prometheus, row.description, row.attributes
        )
        for row in OWN.values()
    ]
    pending = CatalogueEntry(
        RESTATED.name,
        RESTATED.kind,
        RESTATED.unit,
        RESTATED.prometheus,
        RESTATED.description,
        RESTATED.attributes,
    )
    return {"openai": usage, "otel_openai_usage": [*self_metrics, pending]}


def as_json() -> str:
    """A list of objects: name, kind, unit, prometheus, description, attributes."""
    rows = [
        {slot: getattr(entry, slot) for slot in CatalogueEntry.__slots__}
        for family in entries().values()
        for entry in family
    ]
    return json.dumps(rows, indent=2) + "\n"


def markdown() -> str:
    """The page docs/metrics.md."""
    families = entries()
    return "\n".join(
        [
            _INTRODUCTION,
            "## What OpenAI says\n",
            *_table(families["openai"]),
            "\n## The exporter's own health\n",
            "These live as long as the process. `process_*` (memory, CPU, open files, start time) stand beside them in Prometheus.\n",
            *_table(families["otel_openai_usage"]),
            "",
        ]
    )


def _table(rows: Iterable[CatalogueEntry]) -> Iterator[str]:
    yield "| instrument | kind | unit | Prometheus | attributes | meaning |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in rows:
        unit = f"`{row.unit}`" if row.unit else "–"
        attributes = ", ".join(f"`{name}`" for name in row.attributes) or "–"
        yield f"| `{row.name}` | {row.kind} | {unit} | `{row.prometheus}` | {attributes} | {row.description} |"
