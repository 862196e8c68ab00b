"""Writes stored history as lines of text, in a format of `reports.formats`."""

from collections.abc import Collection, Iterator, Mapping
from datetime import date, timedelta

from otel_openai_usage.domain.model import utc
from otel_openai_usage.domain.pseudonyms import NO_PSEUDONYMS, Pseudonyms
from otel_openai_usage.reports.formats import TableFormat, load
from otel_openai_usage.reports.tables import By, Export, csv_row
from otel_openai_usage.storage.ports import OpenQueries, Queries


def lines(
    open_queries: OpenQueries,
    since: date,
    until: date,
    format_name: str,
    by: By = "day",
    organization_ids: Mapping[str, str] | None = None,
    *,
    version: str | None = None,
    allocates: bool = True,
    hashed: Collection[str] = (),
) -> Iterator[str]:
    """The text of the UTC days from `since` to `until`, both included, day by day.

    `organization_ids` are OpenAI's ids of organizations by name, where the configuration has them.
    `version` is of the format, if it has several. `allocates` says whether bills are divided among
    customers. `hashed` are the attributes that are shown as keyed hashes. Raises StateError, and LookupError for an unknown format.
    """
    chosen = load(format_name, TableFormat)
    columns = chosen.columns_of(version)
    with open_queries() as stored:
        shown = NO_PSEUDONYMS
        if hashed:
            shown = Pseudonyms(frozenset(hashed), stored.hash_key())
        # Only now: a store that cannot be opened must not leave a file with a header alone.
        if chosen.has_header:
            yield csv_row(columns)
        export = Export(stored, by, organization_ids or {}, allocates, shown)
        for day in _days(stored, since, until):
            for line in chosen.records(export, day):
                yield chosen.text(columns, line)


def _days(stored: Queries, since: date, until: date) -> Iterator[date]:
    """The asked days between the first and the last stored row, so that all time can be asked."""
    span = stored.span()
    if span is None:
        return
    first_start, last_start = span
    day = max(since, utc(first_start).date())
    last = min(until, utc(last_start).date())
    while day <= last:
        yield day
        day += timedelta(days=1)
