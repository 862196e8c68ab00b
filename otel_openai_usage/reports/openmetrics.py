"""The past as OpenMetrics with timestamps, for `promtool tsdb create-blocks-from openmetrics`.

Every stretch has a sample a millisecond after it begins and one when it ends, so `increase()` over
whole hours or days is right to a hundred-millionth: Prometheus leaves out a sample at the very
start of a range, and guesses where samples are sparse.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby

from otel_openai_usage.domain.model import Amount
from otel_openai_usage.exporters.prometheus.exposition import Family, labelled
from otel_openai_usage.reports.past import Past


def lines(series: Iterable[Past]) -> Iterator[str]:
    """The text, in pieces. `series` comes instrument by instrument."""
    for instrument, group in groupby(series, lambda past: past.instrument):
        yield "".join(piece.decode() for piece in Family(instrument).openmetrics.plain)
        for past in group:
            yield _samples(past, f"{instrument.prometheus}{labelled(past.attributes)}")
    yield "# EOF\n"


def _samples(past: Past, name: str) -> str:
    total: Amount = 0
    text = []
    counts = past.instrument.kind == "counter"
    for start, stop, amount in past.parts():
        before = total
        total = total + amount if counts else amount
        text.append(
            f"{name} {_number(before if counts else total)} {start}.001\n{name} {_number(total)} {stop}\n"
        )
    return "".join(text)


def _number(amount: Amount) -> str:
    return str(amount) if isinstance(amount, int) else repr(float(amount))
