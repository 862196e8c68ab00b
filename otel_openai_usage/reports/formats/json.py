"""Usage and cost history as JSON lines."""

from otel_openai_usage.reports import records, tables
from otel_openai_usage.reports.formats import TableFormat

FORMAT = TableFormat(
    summary="the columns of csv as JSON lines",
    columns=records.COLUMNS,
    records=records.of_day,
    text=tables.json_line,
    has_header=False,
)
