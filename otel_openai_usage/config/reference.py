"""docs/configuration.md: every key with its type, its default and its meaning, and every variable
that is read.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from otel_openai_usage.config.environment import variables
from otel_openai_usage.config.problems import section_of
from otel_openai_usage.config.quantities import DURATION_PATTERN, SIZE_PATTERN
from otel_openai_usage.config.schema import defaults_of
from otel_openai_usage.config.settings import OUTSIDE_THE_FILE, Settings

_INTRODUCTION = """\
# Configuration

<!-- Made by `make docs` from otel_openai_usage/config/. -->

A YAML file, named by `-c FILE` or by `OTEL_OPENAI_USAGE_CONFIG`. Every key has a default, so the file may be short, or not
there at all. [config/otel-openai-usage.yaml](../config/otel-openai-usage.yaml) has every key with its default,
[config/examples](../config/examples) has whole files for common cases. `otel-openai-usage check` tells every problem at once,
`otel-openai-usage config show` shows what is in effect, and `otel-openai-usage config schema` prints a JSON Schema for your editor.

- **Precedence**: command line, file, environment, default.
- **Durations** are whole numbers with a unit: `500ms`, `30s`, `5m`, `3h`, `7d`; several may follow each other from long to short (`1h30m`).
- **Sizes** are bytes, or `64KiB`, `1MiB`, `10MB`.
- **`${env:NAME}`** in a value is replaced by that variable, **`${env:NAME:-default}`** by the default if it is not set; `${NAME}` is
  the same. A variable that is set but empty counts as set. One that is not, without a default, is empty, and a warning says so.
  `$$` is a plain `$`. A value that is
  one placeholder is typed by the rules of YAML, so `port: ${env:PORT:-9185}` is a number and `group_by: ${env:GROUPS}` may be a list.
  What a variable holds is never replaced again.
- **A key without a value** (`usage:`) says nothing: the environment or the default stands.
- **Unknown keys** are errors that name the nearest known one; a key that stands twice is an error too.
- **YAML 1.2**: `no`, `on` and `2026-01-01` are text, `010` is ten.
- **Paths** may begin with `~`; relative ones begin where the program was started.
"""

_ENVIRONMENT = """\
## Environment

Variables that are read where the file and the command line say nothing. Of the OTLP ones the `OTEL_EXPORTER_OTLP_METRICS_` form wins.
An `OTEL_` variable that is empty counts as not set. Booleans and known values are read in any case, times are in milliseconds.
A value that cannot be understood is reported as a warning and ignored, as OpenTelemetry specifies; two things are errors all the same:
an unknown name in `OTEL_METRICS_EXPORTER`, and a certificate that cannot be read. `OTEL_CONFIG_FILE` is reported as not supported.

| variable | sets |
| --- | --- |
"""

_SPECIAL = {
    "OPENAI_SECRET_KEY": "the same, if `OPENAI_ADMIN_KEY` is empty",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": (
        "`otlp.endpoint`, as it is; to the path of the form without METRICS_, `/v1/metrics` is appended for HTTP"
    ),
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "nothing: temporality is cumulative. `delta` is answered with a warning",
    "OTEL_METRICS_EXPORTER": (
        "`otlp.enabled`, `prometheus.enabled`, and exporters of the OpenTelemetry SDK: a list of otlp, prometheus, none, console and"
        " the names of installed exporters ([opentelemetry.md](opentelemetry.md)). Exactly these export, unless the file says"
        " otherwise; an unknown name is an error"
    ),
    "OTEL_RESOURCE_ATTRIBUTES": "`attributes.resource`, key by key",
    "OTEL_SERVICE_NAME": "`service.name` in `attributes.resource`",
    "OTEL_SDK_DISABLED": "`true`: nothing is exported",
    "OTEL_OPENAI_USAGE_CONFIG": "the file, without `-c`",
}


def page() -> str:
    """The whole page, as Markdown."""
    parts = [
        _INTRODUCTION,
        *_sections(),
        _ENVIRONMENT + "".join(f"| `{name}` | {what} |\n" for name, what in _variables().items()),
    ]
    return "\n".join(parts)


def _sections() -> Iterator[str]:
    properties = Settings.model_json_schema()["$defs"]
    for name, field in Settings.model_fields.items():
        section = section_of(field.annotation)
        if name in OUTSIDE_THE_FILE or section is None:
            continue
        rows = "".join(_rows("", section, defaults_of(section), properties))
        title = f"{name} (a list)" if name in ("organizations", "credits") else name
        heading = f"## {title}\n\n{_one_line(field.description)}\n\n"
        yield f"{heading}| key | type | default | meaning |\n| --- | --- | --- | --- |\n{rows}"


def _rows(
    prefix: str, section: type[BaseModel], defaults: Mapping[str, Any], schemas: Mapping[str, Any]
) -> Iterator[str]:
    for key, field in section.model_fields.items():
        inner = section_of(field.annotation)
        kind = _kind(schemas[section.__name__]["properties"][key])
        default = defaults.get(key)
        if inner is not None and kind != "list":
            kind = "mapping"
            default = None
        yield _row(f"{prefix}{key}", kind, default, field)
        if inner is not None:
            yield from _rows(f"{prefix}{key}.", inner, defaults_of(inner), schemas)


def _row(key: str, kind: str, default: object, field: FieldInfo) -> str:
    return f"| `{key}` | {kind} | {_default(default)} | {_one_line(field.description)} |\n"


def _one_line(description: str | None) -> str:
    """A docstring may have several lines; a cell of a Markdown table may not."""
    return " ".join((description or "").split())


def _default(value: object) -> str:
    if value is None or value == "" or (isinstance(value, Sequence | Mapping) and not value):
        return "–"
    if isinstance(value, tuple):
        return ", ".join(f"`{item}`" for item in value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _kind(schema: Mapping[str, Any]) -> str:
    """What a JSON Schema allows, in words."""
    if "anyOf" in schema:
        return " or ".join(
            word for word in dict.fromkeys(map(_kind, schema["anyOf"])) if word != "null"
        )
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{item}`" for item in schema.get("enum", [schema.get("const")]))
    if schema.get("pattern") in (DURATION_PATTERN, SIZE_PATTERN):
        return "duration" if schema["pattern"] == DURATION_PATTERN else "size"
    if schema.get("type") == "integer":
        return _range(schema)
    if schema.get("type") == "string":
        return {"password": "secret", "path": "path", "date": "date"}.get(
            schema.get("format", ""), "text"
        )
    # Without a type it refers to another section.
    return _WORDS.get(schema.get("type", "object"), "mapping")


_WORDS = {
    "boolean": "true or false",
    "array": "list",
    "number": "number",
    "object": "mapping",
    "null": "null",
}


def _range(schema: Mapping[str, Any]) -> str:
    least = schema.get("minimum")
    most = schema.get("maximum")
    return f"number {least} to {most}" if most is not None else f"number from {least}"


def _variables() -> dict[str, str]:
    return {name: f"`{path}`" for name, path in variables()} | _SPECIAL
