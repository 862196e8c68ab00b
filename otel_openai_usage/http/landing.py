"""The page at /: links, and how each source does. One file of HTML, nothing fetched from elsewhere."""

from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape

from otel_openai_usage.domain.snapshot import AttributeValue, Snapshot

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>otel-openai-usage</title>
<style>
:root {{ color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --line: #e0e1e6; --paper: #fff; --good: #18794e; --bad: #cd2b31; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #edeef0; --soft: #b0b4ba; --line: #363a3f; --paper: #111113; --good: #3dd68c; --bad: #ff9592; }}
}}
body {{ font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }}
body {{ max-width: 46rem; margin: 3rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; margin: 0; }} p {{ color: var(--soft); margin: .25rem 0 1.5rem; }}
nav a {{ margin-right: 1.25rem; color: inherit; }}
table {{ border-collapse: collapse; width: 100%; margin-top: 2rem; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; padding: .4rem .75rem .4rem 0; border-bottom: 1px solid var(--line); }}
th {{ color: var(--soft); font-weight: 500; }} .up {{ color: var(--good); }} .down {{ color: var(--bad); }}
</style>
</head>
<body>
<h1>otel-openai-usage</h1>
<p>What OpenAI says you used and spent. Version {version}</p>
<nav><a href="{path}">Metrics</a><a href="/healthz">Health</a><a href="/readyz">Readiness</a></nav>
{sources}
</body>
</html>
"""


def landing(snapshot: Snapshot, path: str, version: str) -> str:
    """The page as HTML; times are UTC."""
    return _PAGE.format(path=escape(path), version=escape(version), sources=_table(snapshot))


def _table(snapshot: Snapshot) -> str:
    seen = {
        _who(point.series.attributes): float(point.value)
        for point in snapshot.points.get("openai.api.last_success", ())
    }
    rows = [
        _row(who, up=bool(point.value), seen=seen.get(who))
        for point in snapshot.points.get("openai.api.up", ())
        for who in (_who(point.series.attributes),)
    ]
    if not rows:
        return "<p>No source was asked yet.</p>"
    return f"<table><tr><th>Organization<th>Source<th>State<th>Last success</tr>\n{''.join(rows)}</table>"


def _who(attributes: Mapping[str, AttributeValue]) -> tuple[str, str]:
    return str(attributes.get("organization", "")), str(attributes.get("source", ""))


def _row(who: tuple[str, str], *, up: bool, seen: float | None) -> str:
    state = '<td class="up">up' if up else '<td class="down">down'
    when = "never" if seen is None else f"{datetime.fromtimestamp(seen, UTC):%Y-%m-%d %H:%M:%S} UTC"
    return f"<tr><td>{escape(who[0])}<td>{escape(who[1])}{state}<td>{when}</tr>\n"
