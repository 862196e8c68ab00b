"""What the environment says, as a tree of settings that stands below the file.

OTEL_* as the OpenTelemetry specification defines them ("Environment Variable Specification", "OTLP
Exporter"): times in milliseconds, known values and booleans in any case, an empty variable is an
unset one, OTEL_EXPORTER_OTLP_METRICS_* before OTEL_EXPORTER_OTLP_*. A value that cannot be
understood is reported and ignored. The one exception is an unknown exporter's name, which is a
problem, because metrics would be lost without a word.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import unquote

from otel_openai_usage.config import metric_exporters

STATE_URL = "OTEL_OPENAI_USAGE_STATE_URL"
METRICS_ENDPOINT = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"

CUMULATIVE_ONLY = (
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta is not followed: only a cumulative stream survives restarts and failed"
    " exports; let the Collector's cumulative_to_delta processor turn it into delta (shown in deploy/)"
)
CONFIG_FILE = (
    "OTEL_CONFIG_FILE is not supported and is ignored: the settings are in a file of our own, which -c or OTEL_OPENAI_USAGE_CONFIG"
    " names (otel-openai-usage config schema prints its schema)"
)


@dataclass
class Said:
    """What was found: values by dotted path, from which variable each came, and what is wrong or
    worth knowing.
    """

    values: dict[str, object] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def put(self, path: str, value: object, variable: str) -> None:
        """Note a value and where it came from."""
        self.values[path] = value
        self.origins[path] = variable

    def ignore(self, variable: str, reason: str) -> None:
        """Report a variable whose value cannot be understood."""
        self.warnings.append(f"{variable}: {reason}; the value is ignored")


class _Nonsense(ValueError):
    """A variable's value that does not say what it should."""


def _milliseconds(text: str) -> str:
    if not (text.isascii() and text.isdigit()):
        raise _Nonsense(f"expected a whole number of milliseconds, got {text!r}")
    return f"{text}ms"


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise _Nonsense(f"expected true or false, got {text!r}")
    return text.lower() == "true"


def _one_of(*known: str) -> Callable[[str], str]:
    """A parser of one of the known values, written in any case."""

    def parse(text: str) -> str:
        if text.lower() not in known:
            raise _Nonsense(f"expected {' or '.join(known)}, got {text!r}")
        return text.lower()

    return parse


def _pairs(text: str) -> dict[str, str]:
    """`key=value` pairs between commas, percent-encoded as in W3C Baggage; what follows a `;` is
    dropped.
    """
    pairs = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = item.partition("=")
        if not (equals and key.strip()):
            raise _Nonsense(
                "expected key=value pairs between commas (what it holds is not shown here)"
            )
        pairs[unquote(key.strip())] = unquote(value.strip())
    return pairs


def _headers(text: str) -> dict[str, str]:
    # gRPC refuses metadata with capital letters, and HTTP does not mind.
    return {key.lower(): value for key, value in _pairs(text).items()}


_PLAIN: tuple[tuple[str, str, Callable[[str], object]], ...] = (
    ("OPENAI_API_KEY", "legacy.api_key", str),
    ("OTEL_EXPORTER_PROMETHEUS_HOST", "prometheus.host", str),
    ("OTEL_EXPORTER_PROMETHEUS_PORT", "prometheus.port", str),
    ("OTEL_METRIC_EXPORT_INTERVAL", "otlp.interval", _milliseconds),
    ("OTEL_SDK_DISABLED", "sdk_disabled", _boolean),
    (STATE_URL, "state.url", str),
)
_OTLP: tuple[tuple[str, str, Callable[[str], object]], ...] = (
    ("ENDPOINT", "otlp.endpoint", str),
    ("PROTOCOL", "otlp.protocol", _one_of("grpc", "http/protobuf")),
    ("HEADERS", "otlp.headers", _headers),
    ("TIMEOUT", "otlp.timeout", _milliseconds),
    ("COMPRESSION", "otlp.compression", _one_of("gzip", "none")),
    ("CERTIFICATE", "otlp.tls.ca_file", str),
    ("CLIENT_CERTIFICATE", "otlp.tls.cert_file", str),
    ("CLIENT_KEY", "otlp.tls.key_file", str),
    ("INSECURE", "otlp.tls.insecure", _boolean),
)

_ORGANIZATION = (
    ("OPENAI_ADMIN_KEY", "admin_key"),
    ("OPENAI_ORG_ID", "id"),
    ("OPENAI_BASE_URL", "base_url"),
)

AGGREGATION = (
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION is not followed: our histograms have explicit buckets, over OTLP as in"
    " a scrape"
)
_PATHS = ("CERTIFICATE", "CLIENT_KEY")
"""How the names of variables end that name a file. A path may have any bytes."""
_TEMPORALITIES = ("cumulative", "delta", "lowmemory")


def with_fallback_key(env: Mapping[str, str]) -> Mapping[str, str]:
    """The environment in which OPENAI_SECRET_KEY stands for an OPENAI_ADMIN_KEY that is not set or
    empty.
    """
    if env.get("OPENAI_ADMIN_KEY") or not env.get("OPENAI_SECRET_KEY"):
        return env
    return {**env, "OPENAI_ADMIN_KEY": env["OPENAI_SECRET_KEY"]}


def said(env: Mapping[str, str]) -> Said:
    """What `env` says of everything but organizations."""
    found = Said()
    env = _unicode_only(env, found)
    for path, choices in _variables(env):
        for variable, value, parse in choices:
            try:
                found.put(path, parse(value), variable)
                break
            except _Nonsense as error:
                found.ignore(variable, str(error))
    _exporters(env, found)
    _resource(env, found)
    _series_index(env, found)
    if env.get("OTEL_CONFIG_FILE", "").strip():
        found.warnings.append(CONFIG_FILE)
    return found


def _unicode_only(env: Mapping[str, str], found: Said) -> Mapping[str, str]:
    """The environment without OpenTelemetry's variables that are not UTF-8, which are reported.

    Python has a lone surrogate for each byte that is not UTF-8, and no metric can be sent with one.
    """
    broken = set()
    for variable, value in env.items():
        is_text = may_be_ignored(variable, "") and not variable.endswith(_PATHS)
        if is_text and not _is_unicode(value):
            broken.add(variable)
            found.ignore(variable, "expected text in UTF-8")
    return {variable: value for variable, value in env.items() if variable not in broken}


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def may_be_ignored(variable: str, path: str) -> bool:
    """Whether a value that the settings refuse is reported and ignored, instead of being an error.

    That is so for OpenTelemetry's variables, as specified; not for ours and OpenAI's. A certificate
    that cannot be read is an error too: without it we would trust others than the user wants.
    """
    opentelemetry = variable.startswith("OTEL_") and not variable.startswith("OTEL_OPENAI_USAGE_")
    return opentelemetry and not path.startswith("otlp.tls.")


def without_state_url(found: Said, place: str) -> None:
    """The file, or the command line, names the state's path, so the variable is not followed."""
    if found.values.pop("state.url", None) is not None:
        del found.origins["state.url"]
        found.warnings.append(
            f"{STATE_URL} is not followed, because {place} names a file with state.path"
        )


def organization(env: Mapping[str, str], alone: bool) -> dict[str, tuple[str, str]]:
    """What `env` says of an organization: by key the variable and its value.

    Its id only if it is `alone`, since two cannot have one id.
    """
    found = {}
    for variable, key in _ORGANIZATION:
        is_set = env.get(variable, "").strip()
        if is_set and (alone or key != "id"):
            found[key] = (variable, env[variable])
    return found


def variables() -> Iterator[tuple[str, str]]:
    """Every variable that fills a key, and the key's path; for the documentation."""
    for variable, key in _ORGANIZATION:
        yield variable, f"organizations[].{key}"
        if key == "admin_key":
            yield "OPENAI_SECRET_KEY", f"organizations[].{key}"
    yield from ((variable, path) for variable, path, _ in _PLAIN)
    yield from ((f"OTEL_EXPORTER_OTLP_METRICS_{suffix}", path) for suffix, path, _ in _OTLP)


_Choice: TypeAlias = tuple[str, str, Callable[[str], Any]]
"""A variable that is set, its value, and what parses it."""


def _variables(env: Mapping[str, str]) -> Iterator[tuple[str, list[_Choice]]]:
    """By path, the variables that say it, the strongest first."""
    for variable, path, parse in _PLAIN:
        yield path, _set(env, [variable], parse)
    for suffix, path, parse in _OTLP:
        names = [f"OTEL_EXPORTER_OTLP_METRICS_{suffix}", f"OTEL_EXPORTER_OTLP_{suffix}"]
        yield path, _set(env, names, parse)


def _set(
    env: Mapping[str, str], names: Sequence[str], parse: Callable[[str], Any]
) -> list[_Choice]:
    return [(name, value, parse) for name in names if (value := env.get(name, "").strip())]


def _exporters(env: Mapping[str, str], found: Said) -> None:
    listed = [name.strip().lower() for name in env.get("OTEL_METRICS_EXPORTER", "").split(",")]
    named = (metric_exporters.OLD_NAMES.get(name, name) for name in listed if name)
    names = list(dict.fromkeys(named))
    if not names:
        return
    known = metric_exporters.names()
    if unknown := sorted(set(names) - set(known)):
        found.problems.append(
            f"OTEL_METRICS_EXPORTER: expected some of {', '.join(known)}, which are installed here,"
            f" got {unknown[0]!r}"
        )
    else:
        # The list is complete: an exporter that it does not name is off.
        variable = "OTEL_METRICS_EXPORTER"
        found.put("otlp.enabled", "otlp" in names, variable)
        found.put("prometheus.enabled", "prometheus" in names, variable)
        others = tuple(name for name in names if name not in metric_exporters.OURS)
        found.put("sdk_exporters", others, variable)


def _resource(env: Mapping[str, str], found: Said) -> None:
    try:
        resource = _pairs(env.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    except _Nonsense as error:
        resource = {}
        found.ignore("OTEL_RESOURCE_ATTRIBUTES", str(error))
    # The specification lets this variable win over service.name in the other.
    if name := env.get("OTEL_SERVICE_NAME", "").strip():
        resource["service.name"] = name
    if resource:
        found.put("attributes.resource", resource, "OTEL_RESOURCE_ATTRIBUTES")
    if name:
        found.origins["attributes.resource.service.name"] = "OTEL_SERVICE_NAME"


def _series_index(env: Mapping[str, str], found: Said) -> None:
    variable = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
    preference = env.get(variable, "").strip()
    if preference.lower() == "delta":
        found.warnings.append(CUMULATIVE_ONLY)
    elif preference and preference.lower() not in _TEMPORALITIES:
        expected = " or ".join(_TEMPORALITIES)
        found.ignore(variable, f"expected {expected}, got {preference!r}")
    aggregation = env.get("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "").strip()
    if aggregation.lower() not in ("", "explicit_bucket_histogram"):
        found.warnings.append(AGGREGATION)
