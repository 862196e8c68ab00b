"""pydantic's errors as sentences in our own words."""

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from otel_openai_usage.config.secrets import redact
from otel_openai_usage.config.settings import OUTSIDE_THE_FILE, Settings
from otel_openai_usage.config.unknown import nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_EXPECTED = {
    "string_type": "text; put it in quotes",
    "string_too_short": "some text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list such as [a, b]",
    "too_short": "one or more of them",
    "dict_type": "a mapping such as {{a: b}}",
    "model_type": "a mapping of its settings",
    "greater_than_equal": "a number of at least {ge}",
    "less_than_equal": "a number of at most {le}",
    "literal_error": "{expected}",
}
_SECRETS = ("admin_key", "api_key", "tokens", "headers")


def described(error: ValidationError) -> list[tuple[tuple[str | int, ...], str]]:
    """Where each problem is, and the sentence about it, without the path."""
    found: dict[tuple[str | int, ...], str] = {}
    for detail in error.errors(include_url=False):
        # The items of such a list have problems of their own.
        if detail["type"] == "too_short" and detail["input"]:
            continue
        loc = _place(detail)
        found.setdefault(loc, redact(_sentence(detail, loc)))
    return list(found.items())


def _place(detail: "ErrorDetails") -> tuple[str | int, ...]:
    """The location, without the marks that pydantic adds for branches of a union and for keys of a
    mapping.
    """
    loc = detail["loc"]
    # The values of resource attributes are a union of types: each would be a problem of its own.
    if loc[:2] == ("attributes", "resource"):
        return loc[:3]
    return tuple(part for part in loc if part != "[key]")


def _sentence(detail: "ErrorDetails", loc: Sequence[str | int]) -> str:
    kind = detail["type"]
    context = detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown(loc)
    expected = _EXPECTED.get(kind)
    if expected is None:
        return str(detail["msg"])
    # A value that may be a secret is not repeated in a log.
    is_secret = any(part in _SECRETS for part in loc)
    got = "" if is_secret else f", got {_shown(detail['input'])}"
    return f"expected {expected.format(**context)}{got}"


def _shown(value: object) -> str:
    """A value as YAML would write it, in short."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "nothing"}[value]
    if isinstance(value, dict | list | tuple):
        return f"a {'mapping' if isinstance(value, dict) else 'list'}{'' if value else ' without anything'}"
    return repr(value) if len(repr(value)) < 80 else f"{repr(value)[:77]}..."


def dotted(loc: Sequence[str | int]) -> str:
    """A location as one writes it: `organizations[0].name`."""
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc
    ).removeprefix(".")


def _unknown(loc: Sequence[str | int]) -> str:
    *section, key = loc
    siblings = _keys(section)
    return f"there is no such key; did you mean {_elsewhere(str(key)) or dotted([*section, nearest(str(key), siblings) or ''])}?"


def _elsewhere(key: str) -> str | None:
    """The path of a key of that very name in some section."""
    # Those two come last: they share names with common sections, but are seldom meant.
    sections = sorted(_keys([]), key=lambda name: name in ("legacy", "events"))
    for name in sections:
        if key in _keys([name]):
            return dotted([name, key])
    return None


def _keys(section: Sequence[str | int]) -> Collection[str]:
    """The keys that a section of the file has; none where it holds no section."""
    model: type[BaseModel] | None = Settings
    for part in section:
        if isinstance(part, str) and model is not None:
            model = (
                section_of(model.model_fields[part].annotation)
                if part in model.model_fields
                else None
            )
    return (
        []
        if model is None
        else [name for name in model.model_fields if name not in OUTSIDE_THE_FILE]
    )


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section in an annotation such as `Api`, `tuple[Organization, ...]` or `Tls | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(section_of, get_args(annotation))), None)


def sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The section in an annotation, and those inside it."""
    section = section_of(annotation)
    if section is not None:
        yield section
        for field in section.model_fields.values():
            yield from sections_in(field.annotation)
