"""Loading settings: layers, every problem at once, the environment in its specified units."""

import json
import operator
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_openai_usage.config import Settings, load, require_keys, state_file
from otel_openai_usage.domain.instruments import INSTRUMENTS
from otel_openai_usage.errors import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a test writes its configuration."""
    return tmp_path / "config.yaml"


def loaded(
    file: Path, text: str, env: dict[str, str] | None = None, **overrides: object
) -> Settings:
    """The settings of a text."""
    file.write_text(text, "utf-8")
    return load(file, env or {}, overrides)


def problems(
    file: Path,
    text: str,
    env: dict[str, str] | None = None,
    overrides: dict[str, object] | None = None,
) -> list[str]:
    """The problems of a text."""
    file.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file, env or {}, overrides or {})
    return list(caught.value.problems)


def test_nothing_at_all_is_the_defaults() -> None:
    """Without file and environment the settings are the defaults."""
    assert load(None, {}) == Settings()


def test_the_command_line_beats_the_file_beats_the_environment(file: Path) -> None:
    """Each layer shows where those above say nothing."""
    env = {
        "OTEL_EXPORTER_PROMETHEUS_HOST": "env",
        "OTEL_EXPORTER_PROMETHEUS_PORT": "1",
        "OPENAI_BASE_URL": "http://env",
    }
    file.write_text(
        "prometheus: {host: file, port: 2, path: /file}\norganizations: [{base_url: 'http://file/v1/'}]"
    )
    settings = load(file, env, {"prometheus.host": "line"})
    assert (settings.prometheus.host, settings.prometheus.port, settings.prometheus.path) == (
        "line",
        2,
        "/file",
    )
    assert settings.organizations[0].base_url == "http://file/v1"
    settings = load(None, env)
    assert (settings.prometheus.host, settings.prometheus.port, settings.prometheus.path) == (
        "env",
        1,
        "/metrics",
    )
    assert settings.organizations[0].base_url == "http://env"


def test_the_environment_may_name_the_file(file: Path) -> None:
    """OTEL_OPENAI_USAGE_CONFIG names the file, unless the command line does."""
    file.write_text("log: {level: error}")
    assert load(None, {"OTEL_OPENAI_USAGE_CONFIG": str(file)}).log.level == "error"
    assert (
        loaded(file.with_name("other.yaml"), "", {"OTEL_OPENAI_USAGE_CONFIG": str(file)}).log.level
        == "info"
    )


def test_a_key_without_a_value_says_nothing(file: Path) -> None:
    """`usage:` and `port:` leave the default, or the environment, as they are."""
    settings = loaded(
        file,
        "usage:\nprometheus: {port: , host: null}\norganizations: [{admin_key: }]",
        {"OTEL_EXPORTER_PROMETHEUS_HOST": "env", "OPENAI_ADMIN_KEY": "sk-admin-1"},
    )
    assert (settings.usage, settings.prometheus.port, settings.prometheus.host) == (
        Settings().usage,
        9185,
        "env",
    )
    assert key(settings) == "sk-admin-1"


def key(settings: Settings, index: int = 0) -> str | None:
    """An organization's admin key."""
    secret = settings.organizations[index].admin_key
    return None if secret is None else secret.get_secret_value()


@pytest.mark.parametrize(
    ("env", "found"),
    [
        ({"OPENAI_ADMIN_KEY": "sk-a"}, "sk-a"),
        ({"OPENAI_SECRET_KEY": "sk-s"}, "sk-s"),
        ({"OPENAI_ADMIN_KEY": "", "OPENAI_SECRET_KEY": "sk-s"}, "sk-s"),
        ({"OPENAI_ADMIN_KEY": "sk-a", "OPENAI_SECRET_KEY": "sk-s"}, "sk-a"),
        ({"OPENAI_ADMIN_KEY": " sk-a\n"}, "sk-a"),
        ({}, None),
    ],
)
@pytest.mark.parametrize("text", ["", "organizations: [{admin_key: '${env:OPENAI_ADMIN_KEY:-}'}]"])
def test_the_key_comes_from_the_environment(
    file: Path, env: dict[str, str], text: str, found: str | None
) -> None:
    """OPENAI_ADMIN_KEY is the key, OPENAI_SECRET_KEY its fallback, also where a file asks for the
    former.
    """
    assert key(loaded(file, text, env)) == found


def test_a_key_file_beats_the_environment(file: Path) -> None:
    """With admin_key_file in the file, OPENAI_ADMIN_KEY is not read for that organization."""
    settings = loaded(
        file,
        "organizations: [{admin_key_file: /k}, {name: b}]",
        {"OPENAI_ADMIN_KEY": "sk-a", "OPENAI_ORG_ID": "org-1"},
    )
    assert (key(settings, 0), key(settings, 1)) == (None, "sk-a")
    assert [one.id for one in settings.organizations] == [None, None]


def test_secrets_are_in_no_repr(file: Path) -> None:
    """Neither repr nor str of settings holds a key, a token or a header's value."""
    text = "organizations: [{admin_key: sk-hush}]\nevents: {tokens: [hush-t]}\notlp: {headers: {a: hush-header}}\nlegacy: {api_key: hush}"
    settings = loaded(file, text)
    assert "hush" not in repr(settings) + str(settings)
    assert settings.otlp.headers["a"].get_secret_value() == "hush-header"


# --- every problem, each with its path

PROBLEMS = [
    (
        "usage: {settle: 5x}",
        "usage.settle: expected a duration such as 500ms, 30s, 5m, 3h or 7d, got '5x'",
    ),
    (
        "usage: {interval: 30}",
        "usage.interval: expected a duration such as 500ms, 30s, 5m, 3h or 7d, got 30 without a unit",
    ),
    ("usage: {interval: 999ms}", "usage.interval: expected a duration of at least 1s, got '999ms'"),
    ("costs: {interval: 0s}", "costs.interval: expected a duration of at least 1s, got '0s'"),
    ("api: {timeout: 0s}", "api.timeout: expected a duration of at least 1ms, got '0s'"),
    ("usage: {settle: 8d}", "usage.settle: expected at most usage.reconcile (7d), got 8d"),
    (
        "usage: {start: yesterday}",
        "usage.start: expected now, today or a duration such as 6h or 7d, got 'yesterday'",
    ),
    ("usage: {enabled: maybe}", "usage.enabled: expected true or false, got 'maybe'"),
    ("usage: {bucket_width: 2m}", "usage.bucket_width: expected '1m', '1h' or '1d', got '2m'"),
    (
        "usage: {intervall: 1s}",
        "usage.intervall: there is no such key; did you mean usage.interval?",
    ),
    ("usge: {}", "usge: there is no such key; did you mean usage?"),
    ("settle: 1h", "settle: there is no such key; did you mean usage.settle?"),
    ("zzz: 1", "zzz: there is no such key; did you mean "),
    ("warnings: [a]", "warnings: there is no such key"),
    ("sdk_disabled: true", "sdk_disabled: there is no such key"),
    ("usage: 5", "usage: expected a mapping of its settings, got 5"),
    ("usage: []", "usage: expected a mapping of its settings, got a list without anything"),
    (
        "usage: {endpoints: completions}",
        "usage.endpoints: expected a list such as [a, b], got 'completions'",
    ),
    (
        "usage: {endpoints: [completion]}",
        "usage.endpoints: 'completion' is not known; did you mean completions?",
    ),
    (
        "prices: {overrides: {defualt: {m: {input: 1}}}}",
        "prices.overrides: 'defualt' is not known; did you mean default?",
    ),
    (
        "usage: {group_by: [model, modell]}",
        "usage.group_by: 'modell' is not known; did you mean model?",
    ),
    ("usage: {group_by: [model, model]}", "usage.group_by: model stands 2 times"),
    ("costs: {group_by: [model]}", "costs.group_by: 'model' is not known; did you mean "),
    ("costs: {days: 0}", "costs.days: expected a number of at least 1, got 0"),
    ("costs: {days: true}", "costs.days: expected a whole number, got true"),
    ("costs: {days: 1.5}", "costs.days: expected a whole number, got 1.5"),
    ("api: {retries: -1}", "api.retries: expected a number of at least 0, got -1"),
    ("api: {max_concurrency: many}", "api.max_concurrency: expected a whole number, got 'many'"),
    ("prometheus: {port: 70000}", "prometheus.port: expected a number of at most 65535, got 70000"),
    (
        "prometheus: {path: metrics}",
        "prometheus.path: expected a path such as /metrics, got 'metrics'",
    ),
    (
        "prometheus: {path: /readyz}",
        "prometheus.path: expected a path other than /, /healthz and /readyz",
    ),
    (
        "prometheus: {web_config_file: /nowhere}",
        "prometheus.web_config_file: reading '/nowhere': No such file or directory",
    ),
    ("prometheus: {host: ''}", "prometheus.host: expected some text, got ''"),
    (
        "events: {enabled: true, host: 0.0.0.0}",
        "events.tokens: '0.0.0.0' can be reached from other machines",
    ),
    (
        "events: {enabled: true, port: 9185}",
        "events.port: 9185 is prometheus.port too; each needs its own",
    ),
    (
        "events: {max_body: big}",
        "events.max_body: expected a size such as 64KiB, 1MiB or 10MB, got 'big'",
    ),
    (
        "events: {tokens_file: /nowhere}",
        "events.tokens_file: reading '/nowhere': No such file or directory",
    ),
    (
        "events: {attributes: {model: $.m}}",
        "events.attributes.model: a series has an attribute of that name already; choose another",
    ),
    (
        "attributes: {hash: [organization]}",
        "attributes.hash: organization cannot be hashed, since nothing could be read from its values",
    ),
    (
        "events: {attributes: {team: $}}",
        "events.attributes.team: expected a path in the event's data such as team or $.user.plan, got '$'",
    ),
    (
        "events: {attributes: {team: '$.teams[0]'}}",
        "events.attributes.team: expected a path in the event's data such as team or $.user.plan, got '$.teams[0]'",
    ),
    (
        "events: {attributes: {team: '$..team'}}",
        "events.attributes.team: expected a path in the event's data such as team or $.user.plan, got '$..team'",
    ),
    (
        "organizations: []",
        "organizations: expected one or more of them, got a list without anything",
    ),
    ("organizations: {name: a}", "organizations: expected a list such as [a, b], got a mapping"),
    ("organizations: [a]", "organizations[0]: expected a mapping of its settings, got 'a'"),
    ("organizations: [{name: ''}]", "organizations[0].name: expected some text, got ''"),
    ("organizations: [{name: 5}]", "organizations[0].name: expected text; put it in quotes, got 5"),
    (
        "organizations: [{name: a}, {name: a}]",
        "organizations[1].name: 'a' is also the name of organizations[0]; each needs its own",
    ),
    (
        "organizations: [{name: a, id: x}, {name: b, id: x}]",
        "organizations[1].id: 'x' is also the id of organizations[0]",
    ),
    (
        "organizations: [{admin_key: k, admin_key_file: f}]",
        "organizations[0].admin_key_file: admin_key is set too",
    ),
    (
        "organizations: [{base_url: ftp://x}]",
        "organizations[0].base_url: expected a URL such as https://api.openai.com/v1, got 'ftp://x'",
    ),
    (
        "organizations: [{base_url: 'http://me:hush@x'}]",
        "organizations[0].base_url: expected a URL without user, password, ? and #",
    ),
    (
        "organizations: [{base_url: 'https://api..example/v1'}]",
        "organizations[0].base_url: expected a host whose parts have 1 to 63 letters",
    ),
    (
        f"organizations: [{{base_url: 'https://{'a' * 70}.example/v1'}}]",
        "organizations[0].base_url: expected a host whose parts have 1 to 63 letters",
    ),
    (
        f"organizations: [{{base_url: 'https://{'a.' * 130}example/v1'}}]",
        "organizations[0].base_url: expected a host whose parts have 1 to 63 letters",
    ),
    (
        "legacy: {base_url: 'https://api openai.com'}",
        "legacy.base_url: expected a host whose parts have 1 to 63 letters",
    ),
    ("organizations: [{base_url: 'http://api.example:99999'}]", "organizations[0].base_url"),
    ("organizations: [{base_url: 'http://[x'}]", "organizations[0].base_url: expected a URL"),
    ("otlp: {protocol: http/json}", "otlp.protocol: http/json is not spoken here"),
    (
        "otlp: {protocol: carrier}",
        "otlp.protocol: expected 'grpc' or 'http/protobuf', got 'carrier'",
    ),
    ("otlp: {enabled: perhaps}", "otlp.enabled: expected auto, true or false, got 'perhaps'"),
    ("otlp: {compression: br}", "otlp.compression: expected 'gzip' or 'none', got 'br'"),
    (
        "otlp: {endpoint: 'collector:4318', protocol: http/protobuf}",
        "otlp.endpoint: expected a URL such as http://collector:4318",
    ),
    (
        "otlp: {endpoint: 'http://me:hush@x'}",
        "otlp.endpoint: expected a URL without user and password",
    ),
    (
        "otlp: {endpoint: 'http://x:port'}",
        "otlp.endpoint: expected a URL such as http://collector:4317",
    ),
    ("otlp: {headers: {'a b': c}}", "otlp.headers: 'a b' cannot be the name of a header"),
    (
        "otlp: {tls: {key_file: /dev/null}}",
        "otlp.tls.cert_file: cert_file and key_file go together; cert_file is missing",
    ),
    (
        "state: {path: ~nobody-here/x}",
        "state.path: expected a path, got '~nobody-here/x', and there is no such home directory",
    ),
    (
        "otlp: {tls: {ca_file: /nowhere}}",
        "otlp.tls.ca_file: reading '/nowhere': No such file or directory",
    ),
    (
        "otlp: {tls: {cafile: x}}",
        "otlp.tls.cafile: there is no such key; did you mean otlp.tls.ca_file?",
    ),
    ("attributes: {drop: [date]}", "attributes.drop: date cannot be dropped"),
    ("attributes: {drop: [colour]}", "attributes.drop: 'colour' is not known; did you mean "),
    (
        "attributes: {rename: {colour: x}}",
        "attributes.rename: 'colour' is not known; did you mean ",
    ),
    ("attributes: {rename: {model: ''}}", "attributes.rename.model: expected some text, got ''"),
    ("attributes: {rename: {model: project_id}}", "two names cannot become one"),
    ("attributes: {rename: {model: project.id}}", "two names cannot become one"),
    ("attributes: {rename: {model: x.y, batch: x_y}}", "two names cannot become one"),
    ("attributes: {to_resource: [colour]}", "attributes.to_resource: 'colour' is not known"),
    (
        "attributes: {to_resource: [model], drop: [model]}",
        "attributes.to_resource: model is dropped by attributes.drop",
    ),
    (
        "attributes: {resource: {a: [b]}}",
        "attributes.resource.a: expected text; put it in quotes, got a list",
    ),
    (
        "attributes: {max_series: 0}",
        "attributes.max_series: expected a number of at least 1, got 0",
    ),
    ("log: {level: loud}", "log.level: expected 'debug', 'info', 'warning' or 'error', got 'loud'"),
    ("attributes: {rename: {model: instrument}}", "two names cannot become one"),
    (
        "attributes: {rename: {model: otel.metric.overflow}}",
        "expected a name that is free in OpenTelemetry and Prometheus",
    ),
    (
        "attributes: {rename: {model: __name__}}",
        "expected a name that is free in OpenTelemetry and Prometheus",
    ),
    (
        "attributes: {rename: {model: 1x}}",
        "expected a name that is free in OpenTelemetry and Prometheus",
    ),
]


@pytest.mark.parametrize(("text", "said"), PROBLEMS, ids=[text for text, _ in PROBLEMS])
def test_each_problem_is_told_with_its_path(file: Path, text: str, said: str) -> None:
    """One mistake is one sentence: where, what was expected, what was found."""
    found = problems(file, text)
    assert len(found) == 1, found
    assert said in found[0]
    assert "hush" not in found[0]


def test_every_problem_is_told_at_once(file: Path) -> None:
    """Mistakes of every sort, in the file, the environment and the command line, are told together,
    none twice.
    """
    text = """
organizations: [{name: ''}, {nam: b, name: b}, {name: b}]
usage: {settle: 5x, intervall: 3s, group_by: [mdel]}
costs: {days: 0}
prometheus: {port: 99999}
attributes: {drop: [date]}
"""
    found = problems(
        file,
        text,
        {"OTEL_METRICS_EXPORTER": "zipkin", "OTEL_EXPORTER_PROMETHEUS_HOST": "x"},
        {"api.retries": -1},
    )
    assert sorted(problem.partition(":")[0] for problem in found) == sorted(
        [
            "organizations[0].name",
            "organizations[1].nam",
            "organizations[2].name",
            "usage.settle",
            "usage.intervall",
            "usage.group_by",
            "costs.days",
            "prometheus.port",
            "attributes.drop",
            "OTEL_METRICS_EXPORTER",
            "api.retries (on the command line)",
        ]
    )


@pytest.mark.parametrize(
    "text",
    ["organizations: [{admin_key: 'sk-admin hush'}]", "organizations: [{admin_key: {a: hush}}]", "organizations: [{admin_key: [hush]}]",
     "events: {tokens: ['hush hush']}", "events: {tokens: hush}", "otlp: {headers: {a: [hush]}}", "otlp: {headers: {a: \"hush\\n\"}}",
     "otlp: {headers: hush}", "legacy: {api_key: 'hüsh hush'}", "usage: {start: sk-admin-hush}", "organizations: sk-admin-hush"],
)  # fmt: skip
def test_no_problem_holds_a_secret(file: Path, text: str) -> None:
    """Where a secret is expected, what was found is not shown; what looks like a key is masked
    everywhere.
    """
    found = problems(file, text)
    assert len(found) == 1
    assert "hush" not in found[0]


def test_a_number_may_be_a_header(file: Path) -> None:
    """A header's value that YAML reads as a number is refused with advice, since its spelling is
    lost.
    """
    assert problems(file, "otlp: {headers: {a: 5}}") == [
        "otlp.headers.a: expected printable ASCII text (it is not shown here); put it in quotes"
    ]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = sorted(name for name in Settings.model_fields)


@given(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), TREES, max_size=4))
def test_no_tree_breaks_loading(tree: dict[str, Any]) -> None:
    """Whatever a file holds, it is loaded or refused with sentences."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as stream:
        json.dump(tree, stream)
        stream.flush()
        try:
            assert isinstance(load(Path(stream.name), {}), Settings)
        except ConfigError as error:
            assert all(": " in problem for problem in error.problems)  # noqa: PT017


# --- placeholders by type


def test_placeholders_are_typed_by_their_field(file: Path) -> None:
    """A number, a boolean, a list and a mapping may come from a variable; text stays as it was
    written.
    """
    env = {
        "PORT": "77",
        "OFF": "false",
        "GROUPS": "[model, batch]",
        "NAME": "007",
        "MAP": "{team: a}",
        "AUTO": "true",
        "ID": "1e3",
        "N": "12",
    }
    text = """
organizations: [{name: '${env:NAME}', id: '${env:ID}', admin_key: '${env:N}'}]
prometheus: {port: '${env:PORT:-9185}', enabled: '${env:OFF}'}
usage: {group_by: '${env:GROUPS}', interval: '${env:N}s'}
attributes: {resource: {team: '${env:NAME}', n: '${env:N}'}}
otlp: {enabled: '${env:AUTO}', headers: {n: '${env:N}'}}
events: {attributes: '${env:MAP}'}
costs: {days: '${env:DAYS:-3}'}
"""
    settings = loaded(file, text, env)
    assert (settings.organizations[0].name, settings.organizations[0].id, key(settings)) == (
        "007",
        "1e3",
        "12",
    )
    assert (settings.prometheus.port, settings.prometheus.enabled, settings.costs.days) == (
        77,
        False,
        3,
    )
    assert (settings.usage.group_by, settings.usage.interval) == (
        ("model", "batch"),
        timedelta(seconds=12),
    )
    assert settings.attributes.resource == {"team": 7, "n": 12}
    assert (settings.otlp.enabled, settings.otlp.headers["n"].get_secret_value()) == (True, "12")
    assert settings.events.attributes == {"team": "a"}


def test_a_variable_of_the_wrong_type_is_told(file: Path) -> None:
    """A variable that holds no number where one is needed is a problem at that path."""
    assert problems(file, "prometheus: {port: '${env:PORT}'}", {"PORT": "many"}) == [
        "prometheus.port: expected a whole number, got 'many'"
    ]


# --- OTEL_*


def otlp(env: dict[str, str]) -> tuple[bool, str | None, str]:
    """Whether OTLP is on, its endpoint and protocol."""
    settings = load(None, env)
    return settings.otlp.on, settings.otlp.endpoint, settings.otlp.protocol


BASE = "OTEL_EXPORTER_OTLP_ENDPOINT"
METRICS = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
HTTP = {PROTOCOL: "http/protobuf"}


@pytest.mark.parametrize(
    ("env", "found"),
    [
        ({}, (False, None, "grpc")),
        ({BASE: ""}, (False, None, "grpc")),
        ({BASE: "http://c:4317"}, (True, "http://c:4317", "grpc")),
        ({METRICS: "http://m:1", BASE: "http://c:4317"}, (True, "http://m:1", "grpc")),
        ({BASE: "http://c:4318", **HTTP}, (True, "http://c:4318/v1/metrics", "http/protobuf")),
        (
            {BASE: "http://c:4318/otlp/", **HTTP},
            (True, "http://c:4318/otlp/v1/metrics", "http/protobuf"),
        ),
        ({METRICS: "http://c:4318/mine", **HTTP}, (True, "http://c:4318/mine", "http/protobuf")),
        ({METRICS: "http://c:4318", **HTTP}, (True, "http://c:4318", "http/protobuf")),
        (
            {
                BASE: "http://c",
                "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
                PROTOCOL: "grpc",
            },
            (True, "http://c/v1/metrics", "http/protobuf"),
        ),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, (True, "http://localhost:4317", "grpc")),
        (
            {"OTEL_METRICS_EXPORTER": "otlp", **HTTP},
            (True, "http://localhost:4318/v1/metrics", "http/protobuf"),
        ),
        ({"OTEL_METRICS_EXPORTER": "none", BASE: "http://c"}, (False, "http://c", "grpc")),
        (
            {BASE: "http://c/otlp/?tenant=a", **HTTP},
            (True, "http://c/otlp/v1/metrics?tenant=a", "http/protobuf"),
        ),
        (
            {BASE: "http://c/v1/metrics/?x=%2Fy", **HTTP},
            (True, "http://c/v1/metrics/?x=%2Fy", "http/protobuf"),
        ),
        ({BASE: "http://c?a=b", **HTTP}, (True, "http://c/v1/metrics?a=b", "http/protobuf")),
        ({METRICS: "ftp://m", BASE: "http://c"}, (True, "http://c", "grpc")),
    ],
)
def test_endpoints_are_those_of_the_specification(
    env: dict[str, str], found: tuple[bool, str | None, str]
) -> None:
    """Base endpoints get /v1/metrics for HTTP, METRICS_ ones stay, and auto is on when there is
    one.
    """
    assert otlp(env) == found


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("otlp: {endpoint: 'http://f:1'}", "http://f:1"),
        ("otlp: {endpoint: 'http://f:1', protocol: http/protobuf}", "http://f:1/v1/metrics"),
        (
            "otlp: {endpoint: 'http://f:1/v1/metrics', protocol: http/protobuf}",
            "http://f:1/v1/metrics",
        ),
        ("otlp: {enabled: true}", "http://e:1"),
        ("otlp: {protocol: http/protobuf, endpoint: null}", "http://e:1/v1/metrics"),
    ],
)
def test_the_file_s_endpoint_beats_the_environment_s(file: Path, text: str, endpoint: str) -> None:
    """An endpoint of the file is used instead, and gets its path likewise."""
    assert loaded(file, text, {BASE: "http://e:1"}).otlp.endpoint == endpoint


def test_the_file_turns_otlp_off(file: Path) -> None:
    """`enabled: false` wins over an endpoint in the environment."""
    assert not loaded(file, "otlp: {enabled: false}", {BASE: "http://e:1"}).otlp.on


@pytest.mark.parametrize(
    ("endpoint", "tls", "insecure"),
    [
        ("http://c:4317", None, True),
        ("https://c:4317", "true", False),
        ("c:4317", None, False),
        ("c:4317", "true", True),
        ("c:4317", "false", False),
    ],
)
def test_the_scheme_decides_on_tls(endpoint: str, tls: str | None, insecure: bool) -> None:
    """http is plain text, https is TLS, and without a scheme OTEL_EXPORTER_OTLP_INSECURE decides."""
    env = {BASE: endpoint} | ({"OTEL_EXPORTER_OTLP_INSECURE": tls} if tls else {})
    settings = load(None, env)
    assert settings.otlp.insecure is insecure
    assert any("no scheme" in warning for warning in settings.warnings) is (
        not insecure and "://" not in endpoint
    )


def test_times_are_milliseconds() -> None:
    """OTEL_EXPORTER_OTLP_TIMEOUT and OTEL_METRIC_EXPORT_INTERVAL count milliseconds, as specified."""
    env = {"OTEL_EXPORTER_OTLP_TIMEOUT": "10000", "OTEL_METRIC_EXPORT_INTERVAL": "500"}
    assert (load(None, env).otlp.timeout, load(None, env).otlp.interval) == (
        timedelta(seconds=10),
        timedelta(milliseconds=500),
    )
    assert load(
        None, env | {"OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "250"}
    ).otlp.timeout == timedelta(milliseconds=250)


def test_headers_are_decoded() -> None:
    """Headers are key=value pairs between commas, percent-encoded; METRICS_ ones stand instead of
    the others.
    """
    env = {"OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Basic%20YQ%3D%3D, x-a = b=c ,"}
    found = {name: value.get_secret_value() for name, value in load(None, env).otlp.headers.items()}
    assert found == {"authorization": "Basic YQ==", "x-a": "b=c"}
    assert list(load(None, env | {"OTEL_EXPORTER_OTLP_METRICS_HEADERS": "m=1"}).otlp.headers) == [
        "m"
    ]


def test_certificates_come_from_the_environment(tmp_path: Path) -> None:
    """The certificate variables fill otlp.tls."""
    for name in ("ca", "crt", "key"):
        (tmp_path / name).write_text("x")
    tls = load(
        None,
        {
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca"),
            "OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE": str(tmp_path / "crt"),
            "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(tmp_path / "key"),
        },
    ).otlp.tls
    assert tls is not None
    assert (tls.ca_file, tls.cert_file, tls.key_file) == (
        tmp_path / "ca",
        tmp_path / "crt",
        tmp_path / "key",
    )


@pytest.mark.parametrize(
    ("names", "found"),
    [("otlp", (False, True, False)), ("prometheus", (True, False, False)), ("otlp,prometheus", (True, True, False)),
     ("console", (False, False, True)), ("none", (False, False, False)), ("", (True, False, False)),
     ("prometheus,logging,console", (True, False, True))],
)  # fmt: skip
def test_exporters_are_chosen(names: str, found: tuple[bool, bool, bool]) -> None:
    """OTEL_METRICS_EXPORTER names the exporters that are on; empty it says nothing."""
    settings = load(None, {"OTEL_METRICS_EXPORTER": names})
    assert (settings.prometheus.enabled, settings.otlp.on, bool(settings.sdk_exporters)) == found
    assert any("nobody will see" in warning for warning in settings.warnings) is (names == "none")


def test_the_resource_is_merged(file: Path) -> None:
    """The file's resource attributes stand over OTEL_SERVICE_NAME, that over
    OTEL_RESOURCE_ATTRIBUTES.
    """
    env = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=a,team=x%2Cy,zone=1", "OTEL_SERVICE_NAME": "b"}
    assert loaded(file, "attributes: {resource: {zone: 2}}", env).attributes.resource == {
        "service.name": "b",
        "team": "x,y",
        "zone": 2,
    }


@pytest.mark.parametrize("value", ["delta", "DELTA", "Delta"])
def test_a_wish_for_delta_is_answered(value: str) -> None:
    """A preference for delta is a warning that names cumulative_to_delta; lowmemory and cumulative
    are none.
    """
    name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
    assert any("cumulative_to_delta" in warning for warning in load(None, {name: value}).warnings)
    assert (
        load(None, {name: "lowmemory"}).warnings == load(None, {name: "cumulative"}).warnings == ()
    )


@pytest.mark.parametrize(
    ("value", "warnings"),
    [("base2_exponential_bucket_histogram", 1), ("Explicit_bucket_histogram", 0), ("?", 1)],
)
def test_a_wish_for_other_histograms_is_answered(value: str, warnings: int) -> None:
    """Our histograms have explicit buckets; a wish for others is a warning."""
    name = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
    found = load(None, {name: value}).warnings
    assert [name in warning for warning in found] == [True] * warnings


def test_the_sdk_may_be_disabled() -> None:
    """OTEL_SDK_DISABLED is true or false, in any case; that nobody will be answered then is said."""
    settings = load(None, {"OTEL_SDK_DISABLED": "True"})
    assert settings.sdk_disabled
    assert [warning for warning in settings.warnings if "OTEL_SDK_DISABLED" in warning]
    assert not load(None, {"OTEL_SDK_DISABLED": "false"}).sdk_disabled


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_METRICS_EXPORTER", "zipkin"),
        ("OTEL_METRICS_EXPORTER", "otlp,Zipkin"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere"),
        ("OPENAI_BASE_URL", "nonsense"),
    ],
)
def test_nonsense_in_the_environment_is_told_by_its_variable(name: str, value: str) -> None:
    """An exporter that is not known, a certificate that cannot be read and OpenAI's variables are
    problems that begin with the variable's name.
    """
    with pytest.raises(ConfigError) as caught:
        load(None, {name: value})
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [name]


def test_an_unknown_exporter_is_told_with_the_known_ones() -> None:
    """The problem lists what OTEL_METRICS_EXPORTER may name."""
    with pytest.raises(
        ConfigError, match="otlp, prometheus, none, console, which are installed here, got 'zipkin'"
    ):
        load(None, {"OTEL_METRICS_EXPORTER": "otlp,zipkin"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_PROMETHEUS_PORT", "many"),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", "99999"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "5s"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "9" * 30),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "1.5"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hush"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=hush%0Ab:c"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a b=hush"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "yes"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://x"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://x:port"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "sometimes"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team=hush,broken"),
        ("OTEL_SDK_DISABLED", "1"),
        ("OTEL_SDK_DISABLED", "perhaps"),
    ],
)
def test_what_cannot_be_understood_is_reported_and_ignored(name: str, value: str) -> None:
    """A variable of OpenTelemetry that makes no sense is one warning that begins with its name, and
    the settings are those without it.
    """
    settings = load(None, {name: value})
    assert [warning.partition(":")[0] for warning in settings.warnings] == [name]
    assert settings.warnings[0].endswith("the value is ignored")
    assert "hush" not in settings.warnings[0]
    assert settings.model_copy(update={"warnings": ()}) == load(None, {})


def test_an_ignored_value_leaves_the_general_variable() -> None:
    """Where the METRICS_ variable cannot be understood, the general one counts."""
    env = {"OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "soon", "OTEL_EXPORTER_OTLP_TIMEOUT": "500"}
    assert load(None, env).otlp.timeout == timedelta(milliseconds=500)


def test_a_wrong_value_of_the_file_stays_a_problem(file: Path) -> None:
    """That a variable is ignored hides no problem of the file."""
    env = {"OTEL_EXPORTER_PROMETHEUS_PORT": "many"}
    assert problems(file, "otlp: {compression: br}", env) == [
        "otlp.compression: expected 'gzip' or 'none', got 'br'"
    ]


@pytest.mark.parametrize(
    ("name", "value", "path", "found"),
    [
        ("OTEL_SDK_DISABLED", "TRUE", "sdk_disabled", True),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "HTTP/protobuf", "otlp.protocol", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "GRPC", "otlp.protocol", "grpc"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "None", "otlp.compression", "none"),
        ("OTEL_METRICS_EXPORTER", "OTLP", "otlp.enabled", True),
        ("OTEL_METRICS_EXPORTER", "none,Prometheus", "prometheus.enabled", True),
        ("OTEL_METRICS_EXPORTER", "prometheus,logging", "sdk_exporters", ("console",)),
    ],
)
def test_known_values_in_any_case(name: str, value: str, path: str, found: object) -> None:
    """Booleans and known values are understood however they are written; `logging` is the old name
    of `console`.
    """
    assert operator.attrgetter(path)(load(None, {name: value})) == found


@pytest.mark.parametrize("variable", ["OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"])
def test_a_variable_that_is_not_utf_8_is_reported_and_ignored(variable: str) -> None:
    """OpenTelemetry's variables with a byte that is not UTF-8 do not reach the resource."""
    settings = load(None, {variable: "team=\udcff"})
    assert settings.attributes.resource == {}
    assert f"{variable}: expected text in UTF-8; the value is ignored" in settings.warnings


def test_a_broken_resource_leaves_the_service_name() -> None:
    """OTEL_RESOURCE_ATTRIBUTES is dropped as a whole, OTEL_SERVICE_NAME still counts."""
    env = {"OTEL_RESOURCE_ATTRIBUTES": "team=ml,broken", "OTEL_SERVICE_NAME": "mine"}
    assert load(None, env).attributes.resource == {"service.name": "mine"}


def test_a_declarative_configuration_is_reported() -> None:
    """OTEL_CONFIG_FILE is a warning that names our own file's variable."""
    (warning,) = load(None, {"OTEL_CONFIG_FILE": "/etc/otel.yaml"}).warnings
    assert "OTEL_CONFIG_FILE is not supported" in warning
    assert "OTEL_OPENAI_USAGE_CONFIG" in warning


def test_the_file_says_more_than_the_list_of_exporters(file: Path) -> None:
    """OTEL_METRICS_EXPORTER lists exactly what exports, unless the file says otherwise."""
    env = {"OTEL_METRICS_EXPORTER": "console", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}
    alone = loaded(file, "usage: {}", env)
    assert (alone.prometheus.enabled, alone.otlp.on) == (False, False)
    both = loaded(file, "prometheus: {enabled: true}\notlp: {enabled: true}", env)
    assert (both.prometheus.enabled, both.otlp.on) == (True, True)
    assert both.sdk_exporters == ("console",)


# --- what settings ask for


def test_keys_are_required_by_the_sources_that_need_them(file: Path, tmp_path: Path) -> None:
    """Without a key usage, costs, names and limits cannot be read; with none of them enabled no key
    is needed.
    """
    with pytest.raises(ConfigError, match="OPENAI_ADMIN_KEY"):
        require_keys(Settings())
    require_keys(load(None, {"OPENAI_ADMIN_KEY": "sk-admin-1"}))
    off = "{0}: {{enabled: false}}"
    require_keys(
        loaded(file, "\n".join(off.format(name) for name in ("usage", "costs", "names", "limits")))
    )
    (tmp_path / "key").write_text("")
    with pytest.raises(ConfigError, match="is empty"):
        require_keys(loaded(file, f"organizations: [{{admin_key_file: {tmp_path / 'key'}}}]"))
    (tmp_path / "key").write_text("sk-admin-1\n")
    require_keys(loaded(file, f"organizations: [{{admin_key_file: {tmp_path / 'key'}}}]"))


def test_every_organization_without_a_key_is_told(file: Path) -> None:
    """Two organizations without keys are two problems."""
    with pytest.raises(ConfigError) as caught:
        require_keys(
            loaded(
                file,
                "organizations: [{name: a}, {name: b, admin_key: k}, {name: c, admin_key_file: /nowhere}]",
            )
        )
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "organizations[0].admin_key",
        "organizations[2].admin_key_file",
    ]


def test_the_legacy_source_needs_a_key_of_its_own(file: Path) -> None:
    """Without an ordinary key it cannot be read; with one, and nothing else enabled, no admin key
    is asked for.
    """
    alone = "usage: {enabled: false}\ncosts: {enabled: false}\nnames: {enabled: false}\nlimits: {enabled: false}\n"
    with pytest.raises(ConfigError, match="legacy"):
        require_keys(loaded(file, f"{alone}legacy: {{enabled: true}}"))
    require_keys(loaded(file, f"{alone}legacy: {{enabled: true, api_key: sk-x}}"))


def test_an_ordinary_key_alone_is_enough_for_the_legacy_source(file: Path) -> None:
    """With only OPENAI_API_KEY set, the legacy source is read, what needs an admin key is off, and a
    warning says what an admin key would add.
    """
    settings = load(None, {"OPENAI_API_KEY": "sk-proj-x"})
    require_keys(settings)
    assert settings.reads_legacy
    assert [settings.usage.enabled, settings.costs.enabled] == [False, False]
    assert [settings.names.enabled, settings.limits.enabled] == [False, False]
    (warning,) = (text for text in settings.warnings if "legacy" in text)
    assert "OPENAI_ADMIN_KEY" in warning


def test_an_admin_key_leaves_the_legacy_source_off() -> None:
    """With both kinds of keys, legacy.enabled: auto is off and everything else is on."""
    settings = load(None, {"OPENAI_API_KEY": "sk-proj-x", "OPENAI_ADMIN_KEY": "sk-admin-x"})
    assert not settings.reads_legacy
    assert settings.usage.enabled


def test_what_is_enabled_explicitly_still_needs_its_key(file: Path) -> None:
    """usage.enabled: true in the file and only an ordinary key is an error that names both keys."""
    file.write_text("usage: {enabled: true}")
    settings = load(file, {"OPENAI_API_KEY": "sk-proj-x"})
    with pytest.raises(ConfigError, match=r"OPENAI_ADMIN_KEY.*OPENAI_API_KEY.*legacy"):
        require_keys(settings)


@pytest.mark.parametrize("enabled", ["auto", "true"])
def test_every_user_can_be_asked_for_only_by_the_organizations_id(file: Path, enabled: str) -> None:
    """legacy.user_public_ids: ["*"] without the organization's id is a configuration error."""
    text = f"legacy: {{enabled: {enabled}, api_key: sk-x, user_public_ids: ['*']}}\n"
    with pytest.raises(ConfigError, match=r"legacy\.user_public_ids.*OPENAI_ORG_ID"):
        loaded(file, text)
    assert loaded(file, text + "organizations: [{id: org-1}]").reads_legacy
    with pytest.raises(ConfigError, match="already means every user"):
        loaded(file, text.replace("'*'", "'*', user-1") + "organizations: [{id: org-1}]")


def test_the_state_has_a_place(file: Path) -> None:
    """The state is where the file says, else in the user's state directory."""
    assert state_file(Settings(), {"XDG_STATE_HOME": "/s"}) == Path("/s/otel-openai-usage/state.db")
    assert state_file(Settings(), {"HOME": "/h"}) == Path(
        "/h/.local/state/otel-openai-usage/state.db"
    )
    assert state_file(loaded(file, "state: {path: /x/y.db}"), {}) == Path("/x/y.db")
    assert str(state_file(loaded(file, "state: {path: ':memory:'}"), {})) == ":memory:"


def test_one_key_for_two_organizations_is_noticed(file: Path) -> None:
    """Two organizations with one key would count the same usage twice, which is a warning."""
    settings = loaded(
        file, "organizations: [{name: a}, {name: b}]", {"OPENAI_ADMIN_KEY": "sk-admin-1"}
    )
    assert any("counted twice" in warning for warning in settings.warnings)


@pytest.mark.parametrize(
    "attribute", sorted({name for item in INSTRUMENTS.values() for name in item.attributes})
)
def test_every_attribute_can_be_renamed(file: Path, attribute: str) -> None:
    """Any attribute of any instrument takes another name, and a swap of two is no collision."""
    assert loaded(file, f"attributes: {{rename: {{{attribute}: my.name}}}}").attributes.rename == {
        attribute: "my.name"
    }
    other = "model" if attribute != "model" else "batch"
    swap = {attribute: other, other: attribute}
    assert loaded(file, f"attributes: {{rename: {json.dumps(swap)}}}").attributes.rename == swap


@pytest.mark.parametrize(
    ("usage", "said"),
    [("interval: 10s", True), ("interval: 11s", False), ("interval: 1s, enabled: false", False)],
)
def test_polling_more_often_than_the_limit_allows_is_said(
    file: Path, usage: str, said: bool
) -> None:
    """More requests a minute than api.requests_per_minute cannot be made; the default settings stay
    silent.
    """
    file.write_text(f"usage: {{{usage}}}")
    assert any("requests a minute" in warning for warning in load(file, {}).warnings) is said
