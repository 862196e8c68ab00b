"""What is written about the configuration is true: the default file, the examples, the reference,
the schema, `config show`.
"""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from otel_openai_usage.config import Settings, load
from otel_openai_usage.config.reference import page
from otel_openai_usage.config.schema import schema
from otel_openai_usage.config.settings import OUTSIDE_THE_FILE
from otel_openai_usage.config.show import show

ROOT = Path(__file__).parent.parent
DEFAULT = ROOT / "config" / "otel-openai-usage.yaml"
EXAMPLES = sorted((ROOT / "config" / "examples").glob("*.yaml"))
KEYS = {"OPENAI_ADMIN_KEY_PRODUCTION": "sk-admin-1"}


def test_the_commented_default_is_the_default() -> None:
    """config/otel-openai-usage.yaml loads to exactly the defaults, and leaves no key out."""
    assert load(DEFAULT, {}) == Settings()
    tree = yaml.safe_load(DEFAULT.read_text())
    assert list(tree) == [name for name in Settings.model_fields if name not in OUTSIDE_THE_FILE]
    shown = Settings().model_dump()
    assert {name: list(tree[name]) for name in tree if name != "organizations"} == {
        name: list(section) for name, section in shown.items() if name != "organizations"
    }
    assert list(tree["organizations"][0]) == list(shown["organizations"][0])


def test_the_commented_default_leaves_the_environment_its_say() -> None:
    """With the default file, OTLP and Prometheus still follow OTEL_*."""
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317",
        "OTEL_EXPORTER_PROMETHEUS_PORT": "1",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "5",
    }
    settings = load(DEFAULT, env)
    assert (settings.otlp.endpoint, settings.otlp.on, settings.prometheus.port) == (
        "http://c:4317",
        True,
        1,
    )
    assert settings.otlp.timeout.total_seconds() == 0.005


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_load(path: Path) -> None:
    """Every example loads without a warning, and differs from the defaults."""
    settings = load(path, KEYS)
    assert settings.warnings == ()
    assert settings != Settings()


def test_examples_say_what_they_promise() -> None:
    """The examples do what their first line says."""
    several, file, low, sidecar = (
        load(ROOT / "config" / "examples" / f"{name}.yaml", KEYS)
        for name in (
            "several-organizations",
            "key-from-a-file",
            "low-cardinality",
            "collector-sidecar",
        )
    )
    assert [one.name for one in several.organizations] == ["production", "research"]
    assert file.organizations[0].admin_key_file == Path("/run/secrets/openai-admin-key")
    assert not {"user_id", "api_key_id"} & set(low.usage.group_by)
    assert (sidecar.prometheus.enabled, sidecar.otlp.on, sidecar.otlp.endpoint) == (
        False,
        True,
        "http://localhost:4317",
    )


@pytest.mark.parametrize("path", [DEFAULT, *EXAMPLES], ids=lambda path: path.stem)
def test_files_satisfy_the_schema(path: Path) -> None:
    """An editor that knows the JSON Schema finds no fault with our files."""
    jsonschema.validate(yaml.safe_load(path.read_text()), schema())


@pytest.mark.parametrize(
    "text",
    ["usage: {settle: 5x}", "usage: {intervall: 5s}", "zzz: 1", "costs: {days: 0}", "prometheus: {port: 70000}", "organizations: []",
     "otlp: {protocol: http/json}", "otlp: {enabled: perhaps}", "log: {level: loud}", "events: {max_body: big}", "warnings: []"],
)  # fmt: skip
def test_the_schema_refuses_what_we_refuse(text: str) -> None:
    """An editor marks what `check` would refuse."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), schema())


@pytest.mark.parametrize(
    "text",
    ["usage: {settle: 1h30m}", "usage:", "costs: {days: '${env:DAYS:-2}'}", "usage: {group_by: '${env:GROUPS}'}", "usage: {start: now}",
     "usage: {start: 3d}", "events: {max_body: 5}", "otlp: {tls: {insecure: true}}", "attributes: {resource: {a: 1}}"],
)  # fmt: skip
def test_the_schema_accepts_what_we_accept(text: str) -> None:
    """Placeholders, empty keys and every spelling of a value pass."""
    jsonschema.validate(yaml.safe_load(text), schema())


def described(node: object, path: str = "") -> list[str]:
    """The paths of properties without a description."""
    found = []
    if isinstance(node, dict):
        for name, value in node.get("properties", {}).items():
            refers = (
                "$ref" in json.dumps(value) and "description" not in value
            )  # a section is described where it is defined
            found += [] if refers or value.get("description") else [f"{path}.{name}"]
        for name, value in node.items():
            found += described(value, f"{path}.{name}")
    return found


def test_every_key_is_described() -> None:
    """The schema is valid, describes every key, and shows defaults as they are written in the file."""
    made: dict[str, Any] = schema()
    jsonschema.Draft202012Validator.check_schema(made)
    assert described(made) == []
    assert made["$defs"]["Usage"]["properties"]["settle"]["default"] == "3h"
    assert not set(made["properties"]) & set(OUTSIDE_THE_FILE)


def test_show_masks_every_secret(tmp_path: Path) -> None:
    """`config show` holds no key, token or header value; what is not set is null."""
    (tmp_path / "c.yaml").write_text(
        "organizations: [{admin_key: hush-1}, {name: b, admin_key: null}]\nlegacy: {api_key: hush-2}\n"
        "events: {tokens: [hush-3]}\notlp: {headers: {authorization: hush-4}, endpoint: 'http://c:1', tls: {insecure: true}}\n"
    )
    text = show(load(tmp_path / "c.yaml", {}))
    tree = yaml.safe_load(text)
    assert "hush" not in text
    assert [one["admin_key"] for one in tree["organizations"]] == ["****", None]
    assert (tree["legacy"]["api_key"], tree["events"]["tokens"], tree["otlp"]["headers"]) == (
        "****",
        ["****"],
        {"authorization": "****"},
    )
    assert tree["otlp"]["tls"]["insecure"] is True


def test_what_is_shown_can_be_loaded(tmp_path: Path) -> None:
    """`config show` without secrets is a configuration, and means the same."""
    settings = load(
        None,
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        },
    )
    (tmp_path / "shown.yaml").write_text(show(settings))
    assert load(tmp_path / "shown.yaml", {}) == settings


def test_the_reference_is_current() -> None:
    """docs/configuration.md is what `make docs` writes, and has every key and every variable."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    assert text == page()
    variables = set(re.findall(r"\bOTEL_EXPORTER_[A-Z_]+[A-Z]", text))
    assert variables >= {"OTEL_EXPORTER_PROMETHEUS_PORT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"}
    for name, section in Settings().model_dump().items():
        keys = section[0] if name == "organizations" else section
        assert {key for key in keys if f"| `{key}` |" not in text} == set()
