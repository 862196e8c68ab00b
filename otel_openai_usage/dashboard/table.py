"""The table as CSV: every line of it, exact numbers, safe to open in a spreadsheet."""

from collections.abc import Sequence

from otel_openai_usage.dashboard.queries import Entry, Report
from otel_openai_usage.dashboard.view import DAY
from otel_openai_usage.domain.model import utc
from otel_openai_usage.domain.spreadsheet import row, safe


def render(report: Report) -> str:
    """The table of a report, in its order."""
    money = report.data.currency
    head = [
        "from",
        "to",
        report.view.by,
        f"{report.view.by}_id",
        f"cost_{money}",
        "basis",
        f"cost_before_{money}",
        f"estimated_{money}",
        "requests",
        "input_tokens",
        "input_cached_tokens",
        "output_tokens",
    ]
    first, last = (f"{utc(day):%Y-%m-%d}" for day in (report.asked.start, report.asked.end - DAY))
    lines: list[Sequence[str | int]] = [head]
    lines += [[first, last, *_cells(entry, report.basis)] for entry in report.entries]
    return "".join(row(line, "\r\n") for line in lines)


def _cells(entry: Entry, basis: str) -> Sequence[str | int]:
    return [
        safe(entry.label),
        safe(entry.id or ""),
        _money(entry.cost),
        basis if entry.cost is not None else "",
        _money(entry.before),
        _money(entry.estimated),
        entry.requests,
        entry.input,
        entry.cached,
        entry.output,
    ]


def _money(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
