"""The table as CSV: all entries, exact numbers, safe to open in a spreadsheet."""

from otel_openai_usage.dashboard.queries import Entry, Report
from otel_openai_usage.dashboard.view import DAY
from otel_openai_usage.domain.model import utc
from otel_openai_usage.domain.spreadsheet import row, safe

_LINE_END = "\r\n"


def render(report: Report) -> str:
    """All entries of a report, in its order."""
    first = f"{utc(report.asked.start):%Y-%m-%d}"
    last = f"{utc(report.asked.end - DAY):%Y-%m-%d}"
    lines = [row(_header(report), _LINE_END)]
    for entry in report.entries:
        cells = _cells(entry, report.basis)
        lines.append(row([first, last, *cells], _LINE_END))
    return "".join(lines)


def _header(report: Report) -> list[str]:
    by = report.view.by
    money = report.data.currency
    names = ["from", "to", by, f"{by}_id"]
    names += [f"cost_{money}", "basis", f"cost_before_{money}", f"estimated_{money}"]
    names += ["requests", "input_tokens", "input_cached_tokens", "output_tokens"]
    return names


def _cells(entry: Entry, basis: str) -> list[str | int]:
    """The cells of an entry, after the first and the last day."""
    name = safe(entry.label)
    id_ = safe(entry.id or "")
    cells: list[str | int] = [name, id_, _money(entry.cost)]
    cells.append(basis if entry.cost is not None else "")
    cells += [_money(entry.before), _money(entry.estimated)]
    cells += [entry.requests, entry.input, entry.cached, entry.output]
    return cells


def _money(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
