"""From the command line, a file and the environment to settings, with every problem found on the
way.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TypeAlias, cast
from urllib.parse import urlsplit

from pydantic import ValidationError

from otel_openai_usage.config import environment, rules
from otel_openai_usage.config.document import Document, Tree, expanded, read
from otel_openai_usage.config.fields import Section
from otel_openai_usage.config.layers import cut, lay, nested, paths, without_nothing
from otel_openai_usage.config.needs import needs_key
from otel_openai_usage.config.problems import described, dotted
from otel_openai_usage.config.secrets import redact
from otel_openai_usage.config.settings import OUTSIDE_THE_FILE, Otlp, Settings
from otel_openai_usage.errors import ConfigError

VARIABLE = "OTEL_OPENAI_USAGE_CONFIG"
"""Names the file, where the command line does not."""

_Problem: TypeAlias = tuple[str, str]
"""A path in the file, and what is wrong there."""


def load(
    path: Path | None, env: Mapping[str, str], overrides: Mapping[str, object] = {}
) -> Settings:
    """The settings of the file at `path` (else of the one that the environment names, else of none)
    under `env`.

    `overrides` are by dotted path, such as {"prometheus.port": 9100}, and stand above the file.
    Raises ConfigError with every problem.
    """
    env = environment.with_fallback_key(env)
    if path is None and env.get(VARIABLE):
        path = Path(env[VARIABLE])
    document = read(path, env) if path is not None else Document({}, {})
    return _loaded(document, env, overrides)


def load_mapping(tree: Mapping[str, object], env: Mapping[str, str]) -> Settings:
    """The settings of a mapping that has the shape of the configuration file, under `env`.

    Placeholders are replaced as in a file. Raises ConfigError with every problem.
    """
    env = environment.with_fallback_key(env)
    return _loaded(expanded(dict(tree), env), env, {})


def _loaded(
    document: Document, env: Mapping[str, str], overrides: Mapping[str, object]
) -> Settings:
    file = cast(Tree, without_nothing(document.tree))
    unknown = _outside(file)
    ignored: dict[str, str] = {}
    # Whether a variable can be understood is known only after validation. Then all is read again
    # without it, so that a weaker variable or the default can take its place.
    while True:
        used = {name: env[name] for name in env if name not in ignored}
        said = environment.said(used)
        if "state.path" in {*paths(file), *overrides}:
            place = "the command line" if "state.path" in overrides else "the configuration"
            environment.without_state_url(said, place)
        below_command_line = lay(nested(said.values), file)
        # A copy, because validation cuts out what is wrong.
        tree = deepcopy(lay(below_command_line, nested(overrides)))
        origins = dict(said.origins) | _completed(tree, env)
        # A value that a stronger layer gave does not come from the variable.
        for place in (*paths(file), *document.unresolved, *overrides):
            origins.pop(place, None)
        settings, found = _validated(tree, [*unknown, *document.unresolved.items()])
        refused = dict(_to_ignore(found, origins))
        if not refused.keys() - ignored.keys():
            break
        ignored |= refused
    problems = [*said.problems, *(_told(problem, origins, overrides) for problem in found)]
    if problems:
        raise ConfigError([redact(problem) for problem in problems])
    for variable, sentence in ignored.items():
        said.ignore(variable, redact(sentence))
    return _resolved(settings, (*document.warnings, *said.warnings), origins)


def _completed(tree: Tree, env: Mapping[str, str]) -> dict[str, str]:
    """Fill in what organizations do not say but the environment does; by path, the variables it
    came from.
    """
    organizations = tree.setdefault("organizations", [{}])
    origins = {}
    for index, one in enumerate(organizations if isinstance(organizations, list) else ()):
        if not isinstance(one, dict):
            continue
        alone = len(organizations) == 1
        for key, (variable, value) in environment.organization(env, alone=alone).items():
            # The file's choice of a key file must not end in two keys.
            has_key_file = key == "admin_key" and "admin_key_file" in one
            if key not in one and not has_key_file:
                one[key] = value
                origins[f"organizations[{index}].{key}"] = variable
    return origins


def _outside(file: Tree) -> list[_Problem]:
    return [
        (key, "there is no such key") for key in OUTSIDE_THE_FILE if file.pop(key, None) is not None
    ]


def _validated(tree: Tree, problems: list[_Problem]) -> tuple[Settings, list[_Problem]]:
    """The settings, with defaults where something is wrong, and all that is wrong: so one mistake
    hides no other.
    """
    problems = list(problems)
    while True:
        try:
            settings = Settings.model_validate(tree)
            break
        except ValidationError as error:
            for loc, sentence in described(error):
                problems.append((dotted(loc), sentence))
                cut(tree, loc)
    # A rule about a value that was cut out would speak of its default.
    wrong = tuple(place for place, _ in problems)
    broken = [problem for problem in rules.broken(settings) if not problem[0].startswith(wrong)]
    return settings, [*problems, *broken]


def _told(problem: _Problem, origins: Mapping[str, str], overrides: Mapping[str, object]) -> str:
    """The problem as one sentence, which begins with where the value was given."""
    place, sentence = problem
    if place in overrides:
        return f"{place} (on the command line): {sentence}"
    return f"{_variable(place, origins) or place}: {sentence}"


def _variable(place: str, origins: Mapping[str, str]) -> str | None:
    """The variable that gave the value at a path, or the mapping that it is in."""
    return origins.get(place) or origins.get(place.rpartition(".")[0])


def _to_ignore(
    problems: Sequence[_Problem], origins: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """The variables whose values the settings refuse, but which only need to be reported."""
    for place, sentence in problems:
        variable = _variable(place, origins)
        if variable and environment.may_be_ignored(variable, place):
            yield variable, sentence


def _resolved(settings: Settings, warnings: Sequence[str], origins: Mapping[str, str]) -> Settings:
    """The settings with the endpoint that is really talked to, and with what is worth knowing about
    them.
    """
    verbatim = origins.get("otlp.endpoint") == environment.METRICS_ENDPOINT
    otlp = settings.otlp.model_copy(update={"endpoint": _endpoint(settings.otlp, verbatim)})
    off = _without_admin_key(settings)
    if off:
        warnings = (*warnings, _LEGACY_ONLY.format(", ".join(off)))
    resolved = settings.model_copy(update={"otlp": otlp, **off})
    notes = (*warnings, *rules.noteworthy(resolved))
    return resolved.model_copy(update={"warnings": notes})


_LEGACY_ONLY = (
    "only an ordinary key is set, so only the legacy source is read (legacy.enabled): requests and"
    " tokens of the current day by model. {} need an admin key: set OPENAI_ADMIN_KEY to get exact"
    " usage by project, key, user and model, costs, names and limits"
)


def _without_admin_key(settings: Settings) -> dict[str, Section]:
    """The sections to switch off because only the legacy source has a key; by name.

    A section that was enabled explicitly stays: that it lacks a key is a mistake worth an error.
    """
    if settings.has_admin_key or not settings.reads_legacy or settings.legacy.api_key is None:
        return {}
    off: dict[str, Section] = {}
    for name in needs_key(settings):
        section: Section = getattr(settings, name)
        if "enabled" not in section.model_fields_set:
            off[name] = section.model_copy(update={"enabled": False})
    return off


def _endpoint(otlp: Otlp, verbatim: bool) -> str | None:
    http = otlp.protocol == "http/protobuf"
    # OpenTelemetry takes the endpoint for metrics alone as it is, and appends a path to the other.
    if not otlp.on or verbatim:
        return otlp.endpoint
    port = 4318 if http else 4317
    endpoint = otlp.endpoint or f"http://localhost:{port}"
    if not http:
        return endpoint
    url = urlsplit(endpoint)
    path = url.path.rstrip("/")
    if path.endswith("/v1/metrics"):
        return endpoint
    return url._replace(path=f"{path}/v1/metrics").geturl()
