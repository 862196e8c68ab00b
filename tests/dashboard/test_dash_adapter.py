"""The dashboard goes on without what it knows of Dash's inside."""

import json
from pathlib import Path
from typing import Any

import pytest
from dash import Dash, dcc, html
from dash.development.base_component import Component

from otel_openai_usage.dashboard import dash_adapter
from otel_openai_usage.dashboard.components import Chart, Plain
from otel_openai_usage.dashboard.content import content, layout
from otel_openai_usage.dashboard.dash_adapter import Application, FastComponent
from otel_openai_usage.dashboard.store_watcher import StoreWatcher


def as_json(made: Any) -> Any:
    """A tree as a browser gets it."""
    return json.loads(json.dumps(made, default=lambda component: component.to_plotly_json()))


def test_this_dash_allows_the_fast_way() -> None:
    """The installed version sends unchecked attributes, so no page pays for the check."""
    assert not FastComponent.is_checked


def test_the_page_is_the_same_the_public_way(
    watcher: StoreWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checked by Dash, a page has the same content, and all its properties are known."""
    fast = as_json([content(watcher, "").body, layout(watcher)])
    monkeypatch.setattr(FastComponent, "is_checked", True)
    assert as_json([content(watcher, "").body, layout(watcher)]) == fast
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        Chart(colour="red")


def test_a_dash_that_keeps_components_otherwise_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the private attributes the public way is chosen."""

    def without_private_members(self: Component) -> dict[str, Any]:
        raise AttributeError("_prop_names")

    monkeypatch.setattr(Component, "to_plotly_json", without_private_members)
    assert not dash_adapter.sends_unchecked_attributes()
    monkeypatch.setattr(Component, "to_plotly_json", lambda self: {"type": "Probe"})
    assert not dash_adapter.sends_unchecked_attributes()


def test_scripts_that_dash_no_longer_has_are_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page asks early for the late scripts of dcc, and only for those that there are."""
    assert dash_adapter.late_scripts() == ["async-dropdown.js", "async-datepicker.js"]
    monkeypatch.setattr(dcc, "__file__", str(tmp_path / "__init__.py"))
    assert dash_adapter.late_scripts() == []


def test_unknown_parts_of_the_page_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page whose parts have other names is passed on as it is."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(Dash, "interpolate_index", lambda self, **parts: given.update(parts))
    app = Application("otel_openai_usage.dashboard")
    app.interpolate_index(body="<p>", scripts='<script src="/polyfill@7.js"></script>')
    assert given == {"body": "<p>", "scripts": ""}


def test_a_tree_may_hold_components(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Plain` takes one component, or several, as its tree."""
    monkeypatch.setattr(FastComponent, "is_checked", True)
    for tree in (html.P("one"), [html.P("one"), html.P("two")]):
        assert as_json(Plain(id="page", tree=tree))["props"]["tree"] == as_json(tree)
