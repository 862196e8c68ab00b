"""How old what is shown is: said small when all is well, and large when it is not."""

from collections.abc import Sequence
from typing import Any

from dash import html

from otel_openai_usage.dashboard import units
from otel_openai_usage.dashboard.data import Data
from otel_openai_usage.domain.model import utc

STALE = {"costs": 3 * 3600 + 900, "legacy": 3600}
"""Seconds without a success after which a source counts as stale. Successes are written down every
15 minutes.
"""
STALE_USAGE = 2700


def stale(data: Data) -> list[tuple[str, float]]:
    """The sources that were read once and have not been for too long, and for how many seconds."""
    ages = [
        (status.source, data.now - status.last_success)
        for status in data.statuses
        if status.last_success is not None
    ]
    return [(source, age) for source, age in ages if age > STALE.get(source, STALE_USAGE)]


def freshness(data: Data, trouble: str | None) -> Sequence[Any]:
    """A line about the newest data, or a warning."""
    old = stale(data)
    newest = max(
        (
            status.newest_bucket
            for status in data.statuses
            if status.newest_bucket and status.source != "costs"
        ),
        default=None,
    )
    parts = []
    if newest:
        parts.append(
            f"Usage until {units.day(min(newest, data.now))} {utc(min(newest, data.now)):%H:%M} UTC"
        )
    elif data.used_until:
        parts.append(f"Usage until {units.day(data.used_until - 1)}")
    if data.billed_until:
        parts.append(f"{'b' if parts else 'B'}illed until {units.day(data.billed_until - 1)}")
    line = html.P(" · ".join(parts) or "No usage yet", className="fresh", id="fresh")
    warnings = []
    if trouble:
        warnings.append(f"What you see is what was read last: {trouble}")
    if old and len(old) == sum(status.last_success is not None for status in data.statuses):
        latest = min(age for _, age in old)
        warnings.append(
            f"Nothing new was read from OpenAI for {units.ago(latest)}. Is the exporter running?"
        )
    elif old:
        names = ", ".join(f"{name} ({units.ago(age)})" for name, age in old[:4])
        more = f" and {len(old) - 4} more" if len(old) > 4 else ""
        warnings.append(f"Not read lately: {names}{more}.")
    return [line, *(html.P(text, className="warning", role="status") for text in warnings)]
