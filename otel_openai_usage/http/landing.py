"""The page at /: links, and the state of each source. HTML without anything to fetch."""

from datetime import UTC, datetime
from html import escape
from typing import TypeAlias

from otel_openai_usage.domain.snapshot import Point, Snapshot

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>otel-openai-usage</title>
<style>
:root {{
  color-scheme: light dark;
  --ink: #1c2024; --soft: #60646c; --line: #e0e1e6; --paper: #fff;
  --good: #18794e; --bad: #cd2b31;
}}
@media (prefers-color-scheme: dark) {{
  :root {{
    --ink: #edeef0; --soft: #b0b4ba; --line: #363a3f; --paper: #111113;
    --good: #3dd68c; --bad: #ff9592;
  }}
}}
body {{ font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }}
body {{ max-width: 46rem; margin: 3rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; margin: 0; }} p {{ color: var(--soft); margin: .25rem 0 1.5rem; }}
nav a {{ margin-right: 1.25rem; color: inherit; }}
table {{ border-collapse: collapse; width: 100%; margin-top: 2rem; }}
table {{ font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; padding: .4rem .75rem .4rem 0; border-bottom: 1px solid var(--line); }}
th {{ color: var(--soft); font-weight: 500; }}
.up {{ color: var(--good); }} .down {{ color: var(--bad); }}
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


_NO_SOURCES = "<p>No source was polled yet.</p>"
_TABLE_HEAD = "<tr><th>Organization<th>Source<th>State<th>Last success</tr>"

_Source: TypeAlias = tuple[str, str]
"""Organization and name of a source."""


def landing(snapshot: Snapshot, path: str, version: str) -> str:
    """Return the page as HTML. Times are UTC."""
    sources = _source_table(snapshot)
    return _PAGE.format(path=escape(path), version=escape(version), sources=sources)


def _source_table(snapshot: Snapshot) -> str:
    last_success: dict[_Source, float] = {}
    for point in snapshot.points.get("openai.api.last_success", ()):
        last_success[_source(point)] = float(point.value)
    rows: list[str] = []
    for point in snapshot.points.get("openai.api.up", ()):
        source = _source(point)
        rows.append(_row(source, last_success.get(source), is_up=bool(point.value)))
    if not rows:
        return _NO_SOURCES
    return f"<table>{_TABLE_HEAD}\n{''.join(rows)}</table>"


def _source(point: Point) -> _Source:
    attributes = point.series.attributes
    return str(attributes.get("organization", "")), str(attributes.get("source", ""))


def _row(source: _Source, last_success: float | None, *, is_up: bool) -> str:
    organization, name = source
    state = "up" if is_up else "down"
    when = "never"
    if last_success is not None:
        when = f"{datetime.fromtimestamp(last_success, UTC):%Y-%m-%d %H:%M:%S} UTC"
    return (
        f"<tr><td>{escape(organization)}<td>{escape(name)}"
        f'<td class="{state}">{state}<td>{when}</tr>\n'
    )
