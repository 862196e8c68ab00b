"""All that we know of Dash's inside: how it keeps a component, and which scripts its page loads.

Each part has a public way that it falls back to, if a version of Dash has changed.
"""

import re
from pathlib import Path
from typing import Any

import dash
from dash import dcc
from dash.development.base_component import Component

PATHS = ("/_dash", "/_favicon", "/_reload-hash", "/assets/")
"""Dash answers paths that begin with these; they hold no page."""

_UNUSED_SCRIPT = re.compile(r"<script src=\"[^\"]*/(?:polyfill@|dash_table/)[^\"]*\"></script>")
"""Scripts for browsers of 2016, and for tables that we do not have: without them the first visit is
a tenth of a second faster.
"""
_LATE_SCRIPTS = ("async-dropdown.js", "async-datepicker.js")
"""Scripts of dcc that Dash asks for only when all others have run."""
_SUITE = "./_dash-component-suites/dash/dcc"


class FastComponent(Component):
    """A component whose properties are sent unchecked.

    The check of Dash imports this package and asks for its version once for every property. A
    subclass names its `properties`.
    """

    _namespace = "otel_openai_usage"
    _base_nodes = ["children", "tree"]  # noqa: RUF012 - Dash declares it so
    properties: tuple[str, ...] = ()
    is_checked: bool = True
    """Whether to take the public way, by `Component.__init__`."""

    def __init__(self, **values: Any) -> None:
        # Components that Dash generates set these before they call Dash.
        self._type = type(self).__name__
        self._prop_names = list(self.properties)
        self._valid_wildcard_attributes = []
        self.available_wildcard_properties = []
        if self.is_checked:
            super().__init__(**values)  # type: ignore[no-untyped-call]
        else:
            self.__dict__.update(values)


class _Probe(FastComponent):
    properties = ("id",)
    is_checked = False


def sends_unchecked_attributes() -> bool:
    """Whether this Dash sends the attributes of a component that it did not check."""
    try:
        sent = _Probe(id="probe").to_plotly_json()  # type: ignore[no-untyped-call]
    except (AttributeError, KeyError, TypeError):
        return False
    properties: dict[str, Any] = sent.get("props", {})
    return properties == {"id": "probe"}


FastComponent.is_checked = not sends_unchecked_attributes()


class Application(dash.Dash):
    """Dash, with a page that loads early what is needed early, and nothing that is not needed."""

    def interpolate_index(self, *_: Any, **parts: Any) -> Any:
        """The page around the application. Parts that Dash does not have stay as they are."""
        if "scripts" in parts:
            parts["scripts"] = _UNUSED_SCRIPT.sub("", parts["scripts"])
        if "metas" in parts:
            parts["metas"] += "".join(_preload(name) for name in late_scripts())
        return super().interpolate_index(**parts)  # type: ignore[no-untyped-call]


def late_scripts() -> list[str]:
    """The late scripts that this version of Dash has."""
    folder = Path(dcc.__file__).parent
    return [name for name in _LATE_SCRIPTS if (folder / name).is_file()]


def _preload(name: str) -> str:
    return f'<link rel="preload" as="script" href="{_SUITE}/{name}">'
