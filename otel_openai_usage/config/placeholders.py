"""`${env:NAME}` and `${env:NAME:-default}` in values, as the OpenTelemetry Collector replaces them."""

import re
from collections.abc import Callable, Iterator, Mapping

_NAME = re.compile(r"(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?=:-|\})")

_BARE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)\}")


class Expanded(str):
    """Text of which all came from one placeholder; `typed` is what YAML makes of it.

    Kept as text too, because a field that wants text should get `007`, not 7.
    """

    __slots__ = ("typed",)
    typed: object


class Unresolved(ValueError):
    """A placeholder that cannot be replaced."""


def expand(text: str, env: Mapping[str, str], typed: Callable[[str], object]) -> object:
    """`text` with its placeholders replaced; `$$` is a plain `$`.

    A variable that is not set and has no default is replaced by nothing, as the Collector does.
    What a variable holds is taken as it is and not looked at for placeholders again; a default may
    hold some. None if the text was one placeholder for nothing. Raises Unresolved.
    """
    if text.startswith("${"):
        value, end = _placeholder(text, 0, env)
        if end == len(text):
            return _whole(value, typed(value))
    return _replace(text, 0, env, inside=False)[0]


def _whole(text: str, typed: object) -> object:
    if typed is None or isinstance(typed, str):
        return typed
    expanded = Expanded(text)
    expanded.typed = typed
    return expanded


def _replace(text: str, at: int, env: Mapping[str, str], inside: bool) -> tuple[str, int]:
    """Replace from `at` on, `inside` a placeholder up to its closing brace; the text and where it
    ended.
    """
    parts = []
    while at < len(text) and not (inside and text[at] == "}"):
        if text.startswith("$$", at):
            part = "$"
            at = at + 2
        elif text.startswith("${", at):
            part, at = _placeholder(text, at, env)
        else:
            part = text[at]
            at = at + 1
        parts.append(part)
    return "".join(parts), at


def _placeholder(text: str, at: int, env: Mapping[str, str]) -> tuple[str, int]:
    """Replace the placeholder that begins at `at`; what stands there and where it ended."""
    match = _NAME.match(text, at + 2)
    if match is None:
        raise Unresolved(
            f"expected ${{env:NAME}} or ${{env:NAME:-default}}, got {text[at : at + 24]!r}; a plain $ is written $$"
        )
    at = match.end()
    default = None
    if text.startswith(":-", at):
        default, at = _replace(text, at + 2, env if match[1] not in env else _ANYTHING, inside=True)
    if at >= len(text):
        raise Unresolved(f"${{env:{match[1]} has no closing brace")
    return env.get(match[1], default or ""), at + 1


def unset(text: str, env: Mapping[str, str]) -> list[str]:
    """The variables that the text asks for without a default and that are not set: they are
    replaced by nothing.
    """
    return [match[1] for match in _BARE.finditer(text.replace("$$", "")) if match[1] not in env]


class _Anything(Mapping[str, str]):
    """Stands for the environment inside a default that is not needed: there nothing can be missing."""

    def __getitem__(self, name: str) -> str:
        return ""

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


_ANYTHING = _Anything()
