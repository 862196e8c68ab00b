"""The components of our own, drawn by assets/components.js (why: docs/decisions/0004-charts.md)."""

from typing import Any

from dash.development.base_component import Component


class _Ours(Component):
    """What it is given is sent as it is: Dash's own check would import and ask this package once
    for every property.
    """

    _namespace = "otel_openai_usage"

    def __init__(self, **properties: Any) -> None:  # without Dash's, on purpose
        self._type = type(self).__name__
        self._prop_names = list(properties)
        self._valid_wildcard_attributes = []
        self.__dict__.update(properties)


class Chart(_Ours):
    """A chart as `figures` lays it out: its properties are a figure's, `id`, `height` in pixels,
    and `className`.
    """


class Plain(_Ours):
    """A tree of html components, links and charts that no callback asks for, drawn at once: `id`,
    `className`, `tree`.
    """
