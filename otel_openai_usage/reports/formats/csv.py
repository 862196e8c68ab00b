"""Usage and cost history as CSV."""

from otel_openai_usage.reports import records, tables
from otel_openai_usage.reports.formats import TableFormat

FORMAT = TableFormat(
    summary="a line for each UTC day or hour and attribute set",
    columns=records.COLUMNS,
    records=records.of_day,
    text=tables.csv_line,
)
