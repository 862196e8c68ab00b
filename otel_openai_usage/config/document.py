"""A YAML file, read strictly: the tree of its values, with every placeholder replaced."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import yaml

from otel_openai_usage.config.placeholders import Unresolved, expand, unset
from otel_openai_usage.errors import ConfigError

Tree: TypeAlias = dict[str, Any]
"""Nested mappings as YAML gives them; typed by `Settings`."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's idea of scalars: `no` and `2026-01-01` are text, `010` is ten; a key may stand
    only once.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A dict; a key that stands twice raises, where PyYAML would keep the last."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_decimal(self, node: yaml.ScalarNode) -> int:
        """A whole number; a leading zero does not make it octal."""
        return int(self.construct_scalar(node))


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]{1,18}", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first
    )
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_decimal)


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says: its tree, and by path which placeholders could not be replaced (they are
    None in the tree).
    """

    tree: Tree
    unresolved: Mapping[str, str]
    warnings: tuple[str, ...] = ()


def read(path: Path, env: Mapping[str, str]) -> Document:
    """The document at `path`. Raises ConfigError if it cannot be read or is not YAML."""
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(
            [f"{path}: there is no such file; name the configuration with -c FILE, or leave it out"]
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            [f"{path}: the file must be UTF-8, but byte {error.start} is not"]
        ) from None
    except OSError as error:
        raise ConfigError([f"{path}: reading it: {error.strerror or error}"]) from None
    return parse(text, env, str(path))


def parse(text: str, env: Mapping[str, str], name: str = "configuration") -> Document:
    """The document of a YAML text; `name` is what problems call it. An empty text is an empty tree."""
    try:
        tree = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError([_problem(name, error)]) from None
    except (RecursionError, ValueError) as error:
        raise ConfigError([f"{name}: the YAML cannot be read: {type(error).__name__}"]) from None
    if tree is None:
        return Document({}, {})
    if not isinstance(tree, dict):
        raise ConfigError(
            [f"{name}: expected a mapping such as `usage:` at the top, got {_noun(tree)}"]
        )
    return expanded(tree, env)


def _problem(name: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"{name}, line {mark.line + 1}, column {mark.column + 1}" if mark else name
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
    return f"{where}: {what}; the file must be YAML"


def _noun(value: object) -> str:
    return "a list" if isinstance(value, list) else "a single value"


def typed(text: str) -> object:
    """What YAML makes of the value of a placeholder; the text itself where it is not YAML."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError):
        return text


def expanded(tree: Tree, env: Mapping[str, str]) -> Document:
    """The document of a tree of values, with every placeholder replaced. The tree stays as it is."""
    unresolved: dict[str, str] = {}
    warnings: list[str] = []

    def walk(value: object, path: str) -> object:
        if isinstance(value, dict):
            replaced = {}
            for raw_key, item in value.items():
                # YAML types keys, too; every key of ours is text.
                key = _characters(str(raw_key))
                replaced[key] = walk(item, f"{path}.{key}" if path else key)
            return replaced
        if isinstance(value, list):
            return [walk(item, f"{path}[{index}]") for index, item in enumerate(value)]
        if isinstance(value, str):
            warnings.extend(
                f"{path}: the environment variable {name} is not set, so nothing stands for it"
                for name in unset(value, env)
            )
        try:
            return expand(_characters(value), env, typed) if isinstance(value, str) else value
        except Unresolved as error:
            unresolved[path] = str(error)
            return None

    try:
        return Document(cast(Tree, walk(tree, "")), unresolved, tuple(warnings))
    except RecursionError:
        raise ConfigError(["the configuration is nested too deeply, or in itself"]) from None


def _characters(text: str) -> str:
    """The text with whole characters: `"\\ud83d\\ude00"` is one, half of one is replaced."""
    if text.isascii():
        return text
    # YAML escapes can give one half of a character each, which UTF-8 cannot encode.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
