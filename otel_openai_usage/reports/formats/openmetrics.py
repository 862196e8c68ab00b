"""The past as OpenMetrics with timestamps, for `promtool tsdb create-blocks-from openmetrics`.

Every part of a series has a sample a millisecond after it begins and one when it ends, so
`increase()` over whole hours or days is right to a hundred-millionth: Prometheus leaves out a
sample at the very start of a range, and guesses where samples are sparse.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from otel_openai_usage.domain.model import Amount
from otel_openai_usage.reports.formats import SeriesFormat

if TYPE_CHECKING:
    from otel_openai_usage.reports.past import PastSeries


def lines(series: "Iterable[PastSeries]") -> Iterator[str]:
    """The text, in pieces. `series` comes instrument by instrument."""
    from otel_openai_usage.exporters.prometheus.exposition import Family, labelled

    for instrument, group in groupby(series, lambda past: past.instrument):
        head = Family(instrument).openmetrics.pieces
        yield "".join(piece.decode() for piece in head)
        for past in group:
            yield _samples(past, f"{instrument.prometheus}{labelled(past.attributes)}")
    yield "# EOF\n"


def _samples(past: "PastSeries", name: str) -> str:
    """Two samples for each part of a series."""
    from otel_openai_usage.reports.past import plus

    is_counter = past.instrument.kind == "counter"
    total: Amount = 0
    samples: list[str] = []
    for start, end, amount in past.parts():
        before = total
        total = plus(total, amount) if is_counter else amount
        first = before if is_counter else total
        samples.append(f"{name} {_number(first)} {start}.001\n")
        samples.append(f"{name} {_number(total)} {end}\n")
    return "".join(samples)


def _number(amount: Amount) -> str:
    """A number as OpenMetrics spells it."""
    return str(amount) if isinstance(amount, int) else repr(float(amount))


FORMAT = SeriesFormat(summary="Write it as OpenMetrics with timestamps; - is stdout.", text=lines)
