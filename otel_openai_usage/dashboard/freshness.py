"""How old the shown data is: a small line if all is well, a warning if it is not."""

from collections.abc import Sequence
from typing import Any

from dash import html

from otel_openai_usage.dashboard import units
from otel_openai_usage.dashboard.data import Data
from otel_openai_usage.domain.model import utc

STALE = {"costs": 3 * 3600 + 900, "legacy": 3600}
"""Seconds without a success after which a source counts as stale. Successes are stored every 15
minutes.
"""
STALE_USAGE = 2700
_NAMED = 4
"""So many stale sources are named."""


def stale(data: Data) -> list[tuple[str, float]]:
    """The sources that were read once and have not been for too long, and for how many seconds."""
    found: list[tuple[str, float]] = []
    for status in data.statuses:
        if status.last_success is not None:
            age = data.now - status.last_success
            if age > STALE.get(status.source, STALE_USAGE):
                found.append((status.source, age))
    return found


def freshness(data: Data, problem: str | None) -> Sequence[Any]:
    """A line about the newest data, and warnings. `problem` says why there is no newer data."""
    text = _newest(data) or "No usage yet"
    parts = [html.P(text, className="fresh", id="fresh")]
    if problem:
        parts.append(_warning(f"What you see is what was read last: {problem}"))
    stale_text = _stale_text(data)
    if stale_text:
        parts.append(_warning(stale_text))
    return parts


def _warning(text: str) -> Any:
    return html.P(text, className="warning", role="status")


def _newest(data: Data) -> str:
    """Until when usage and bill are known; empty if nothing is."""
    parts: list[str] = []
    usage_until = _newest_bucket(data)
    if usage_until is not None:
        # A clock that is ahead must not promise usage of the future.
        when = min(usage_until, data.now)
        parts.append(f"Usage until {units.day(when)} {utc(when):%H:%M} UTC")
    elif data.used_until:
        parts.append(f"Usage until {units.day(data.used_until - 1)}")
    if data.billed_until:
        word = "billed" if parts else "Billed"
        parts.append(f"{word} until {units.day(data.billed_until - 1)}")
    return " · ".join(parts)


def _newest_bucket(data: Data) -> int | None:
    buckets = [status.newest_bucket for status in data.statuses if status.source != "costs"]
    return max((bucket for bucket in buckets if bucket), default=None)


def _stale_text(data: Data) -> str:
    """Which sources are stale; empty if none is."""
    sources = stale(data)
    if not sources:
        return ""
    read_once = [status for status in data.statuses if status.last_success is not None]
    if len(sources) == len(read_once):
        newest = min(age for _, age in sources)
        return f"Nothing new was read from OpenAI for {units.ago(newest)}. Is the exporter running?"
    names = ", ".join(f"{name} ({units.ago(age)})" for name, age in sources[:_NAMED])
    more = len(sources) - _NAMED
    and_more = f" and {more} more" if more > 0 else ""
    return f"Not read lately: {names}{and_more}."
