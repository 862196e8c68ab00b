"""Our own components, drawn by assets/components.js (why: docs/decisions/0004-charts.md)."""

from otel_openai_usage.dashboard.dash_adapter import FastComponent


class Chart(FastComponent):
    """A chart as `figures` lays it out. `height` is in pixels."""

    properties = (
        "id", "className", "height", "label", "marks", "up", "places", "rows", "across", "titles",
    )  # fmt: skip


class Plain(FastComponent):
    """A tree of html components, links and charts that no callback asks for, drawn at once."""

    properties = ("id", "className", "tree")
