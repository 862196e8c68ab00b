"""The JSON Schema of the file, for editors."""

from typing import Any

from pydantic import BaseModel

from otel_openai_usage.config.problems import sections_in
from otel_openai_usage.config.settings import OUTSIDE_THE_FILE, Settings

_PLACEHOLDER = {"type": "string", "pattern": r"\$\{"}
_NOTHING = {"type": "null"}


def schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of the configuration file.

    Every value may also be a placeholder (`${env:NAME}`), and every key may stand without a value.
    """
    made = Settings.model_json_schema()
    for name in OUTSIDE_THE_FILE:
        del made["properties"][name]
    made["properties"] = {key: _open(value, {}) for key, value in made["properties"].items()}
    for field in Settings.model_fields.values():
        for section in sections_in(field.annotation):
            properties = made["$defs"][section.__name__]["properties"]
            defaults = defaults_of(section)
            for key, value in properties.items():
                default = {"default": defaults[key]} if key in defaults else {}
                properties[key] = _open(value, default)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "title": "Configuration of otel-openai-usage",
    }


def defaults_of(section: type[BaseModel]) -> dict[str, Any]:
    """The defaults of a section's keys as they are written in the file. A key that must be given has
    none.
    """
    required = {name for name, field in section.model_fields.items() if field.is_required()}
    return section.model_construct().model_dump(exclude=required)


def _open(value: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value, open for placeholders and for nothing; with its default as it is
    written in the file.
    """
    about = (
        {"description": " ".join(value["description"].split())} if "description" in value else {}
    )
    kept = {
        key: item for key, item in value.items() if key not in ("title", "description", "default")
    }
    return {**about, **default, "anyOf": [kept, _PLACEHOLDER, _NOTHING]}
