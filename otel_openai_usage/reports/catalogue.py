"""The catalogue of every metric, our own health included, as Markdown and as JSON."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from otel_openai_usage.domain.gen_ai import GEN_AI_INSTRUMENTS
from otel_openai_usage.domain.instruments import INSTRUMENTS, Instrument
from otel_openai_usage.exporters.self_instruments import RESTATED, SELF_INSTRUMENTS, SelfInstrument


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One metric, under its OpenTelemetry and its Prometheus name."""

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
_OWN_HEALTH = """\
These live as long as the process. `process_*` (memory, CPU, open files, start time) stand beside them in Prometheus.
"""


def _entry(row: Instrument | SelfInstrument) -> CatalogueEntry:
    """The entry of an instrument, or of a metric of our own health."""
    return CatalogueEntry(
        row.name, row.kind, row.unit, row.prometheus, row.description, row.attributes
    )


def entries() -> dict[str, list[CatalogueEntry]]:
    """Every metric by family: usage that OpenAI reports, and the exporter's own health."""
    usage = [_entry(instrument) for instrument in INSTRUMENTS.values()]
    usage += [_entry(instrument) for instrument in GEN_AI_INSTRUMENTS.values()]
    health = [_entry(row) for row in SELF_INSTRUMENTS.values()]
    health.append(_entry(RESTATED))
    return {"openai": usage, "otel_openai_usage": health}


def as_json() -> str:
    """A list of objects: name, kind, unit, prometheus, description, attributes."""
    rows: list[dict[str, object]] = []
    for family in entries().values():
        rows += [asdict(entry) for entry in family]
    return json.dumps(rows, indent=2) + "\n"


def markdown() -> str:
    """The page docs/metrics.md."""
    families = entries()
    parts = [_INTRODUCTION, "## What OpenAI says\n"]
    parts += _table(families["openai"])
    parts += ["\n## The exporter's own health\n", _OWN_HEALTH]
    parts += _table(families["otel_openai_usage"])
    return "\n".join([*parts, ""])


def _table(rows: Iterable[CatalogueEntry]) -> Iterator[str]:
    """The lines of a table in Markdown."""
    yield "| instrument | kind | unit | Prometheus | attributes | meaning |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in rows:
        unit = f"`{row.unit}`" if row.unit else "–"
        attributes = ", ".join(f"`{name}`" for name in row.attributes) or "–"
        yield f"| `{row.name}` | {row.kind} | {unit} | `{row.prometheus}` | {attributes} | {row.description} |"
