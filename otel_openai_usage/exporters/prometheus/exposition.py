"""Snapshot → Prometheus bytes, ready to be served: the same bytes as the stock exporter prints.

The sample lines of the text format (0.0.4) and of OpenMetrics (1.0.0) are the same, only the
comments differ. So the lines are rendered and compressed once for both.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from prometheus_client.utils import floatToGoString

from otel_openai_usage.domain.instruments import Instrument
from otel_openai_usage.domain.snapshot import AttributeValue, Point, Series, Snapshot
from otel_openai_usage.exporters.prometheus.gzip_member import CompressedText, segment

PIECE_LINES = 400
"""Lines in a piece, about 100 kB. A piece is rendered as one, and written to a socket as one."""

_EMPTY = CompressedText.of((), ())
_UNIT_NAMES = {"s": "seconds", "By": "bytes"}


@dataclass(frozen=True, slots=True)
class Pages:
    """One snapshot in both formats, each without its end."""

    text: CompressedText
    openmetrics: CompressedText


class Exposition:
    """Renders snapshots. Remembers what it rendered. For one thread at a time.

    With `created` counters have `_created` samples in OpenMetrics.
    """

    def __init__(self, instruments: Mapping[str, Instrument], *, created: bool = False) -> None:
        self._families = {name: Family(row) for name, row in instruments.items()}
        self._created: dict[str, Family] = {}
        """Counters in OpenMetrics, where their lines are not those of the text format."""
        if created:
            self._created = {
                name: CreatedFamily(row)
                for name, row in instruments.items()
                if row.kind == "counter"
            }

    def render(self, snapshot: Snapshot) -> Pages:
        """Return both formats. A family without points is left out, as by the stock exporter."""
        text: list[CompressedText] = []
        openmetrics: list[CompressedText] = []
        for name, family in self._families.items():
            points = snapshot.points.get(name, ())
            samples = family.render(points)
            if points:
                text += [family.text, samples]
                if name in self._created:
                    samples = self._created[name].render(points)
                openmetrics += [family.openmetrics, samples]
        return Pages(CompressedText.joined(text), CompressedText.joined(openmetrics))


class Family:
    """One metric family: its comments in both formats, and its sample lines.

    All points of a family have the same labels: the union of theirs. Those that a point lacks are
    empty.
    """

    def __init__(self, instrument: Instrument) -> None:
        self._name = instrument.prometheus
        self.text = CompressedText.from_text(_text_comments(instrument))
        self.openmetrics = CompressedText.from_text(_openmetrics_comments(instrument))
        self._points: Sequence[Point] = ()
        self._pieces: list[tuple[bytes, bytes]] = []
        """The lines of `_points`, plain and as deflate segments."""
        self._samples = _EMPTY
        self._label_names: list[str] = []
        self._line_starts: dict[Series, str] = {}
        """The line of each series up to its value."""

    def render(self, points: Sequence[Point]) -> CompressedText:
        """Return the sample lines. Pieces in which nothing changed are not rendered again."""
        # An instrument whose points did not change has the same sequence in the next snapshot.
        if points is self._points:
            return self._samples
        self._update_line_starts(points)
        firsts = range(0, len(points), PIECE_LINES)
        self._pieces = [self._piece(points, first) for first in firsts]
        self._points = points
        plain = [piece for piece, _ in self._pieces]
        segments = [deflated for _, deflated in self._pieces]
        self._samples = CompressedText.of(plain, segments)
        return self._samples

    def _piece(self, points: Sequence[Point], first: int) -> tuple[bytes, bytes]:
        """Return some lines, plain and as a deflate segment."""
        part = points[first : first + PIECE_LINES]
        last_part = self._points[first : first + PIECE_LINES]
        if part == last_part:
            return self._pieces[first // PIECE_LINES]
        lines = self._lines(part)
        # A text that is not Unicode must not fail the scrape of all the others.
        plain = "".join(lines).encode(errors="replace")
        return plain, segment(plain)

    def _lines(self, points: Sequence[Point]) -> list[str]:
        starts = self._line_starts
        return [f"{starts[point.series]}{number(point.value)}\n" for point in points]

    def _update_line_starts(self, points: Sequence[Point]) -> None:
        """Have the line starts of exactly these series."""
        known = self._line_starts
        if len(points) == len(known) and all(point.series in known for point in points):
            return
        label_names = _label_names(points)
        if label_names != self._label_names:
            # Every line changes, so neither line starts nor pieces can be used again.
            self._label_names = label_names
            self._points = ()
            known = {}
        line_starts: dict[Series, str] = {}
        for point in points:
            series = point.series
            line_starts[series] = known.get(series) or self._line_start(series)
        self._line_starts = line_starts

    def _line_start(self, series: Series) -> str:
        return f"{self._name}{_labels(series.attributes, self._label_names)} "


class CreatedFamily(Family):
    """A counter in OpenMetrics, with the time at which each series was 0, where there is one.

    A series that continues another's total has none: a reader would count that total once more.
    """

    def _lines(self, points: Sequence[Point]) -> list[str]:
        lines = []
        for point, line in zip(points, super()._lines(points), strict=True):
            lines.append(line)
            series = point.series
            if series.start and not series.continues:
                lines.append(self._created_line(series))
        return lines

    def _created_line(self, series: Series) -> str:
        name = self._name.removesuffix("_total")
        seconds = floatToGoString(series.start / 1e9)  # type: ignore[no-untyped-call]
        return f"{name}_created{_labels(series.attributes, self._label_names)} {seconds}\n"


def _label_names(points: Sequence[Point]) -> list[str]:
    """Return the labels of all these points, sorted."""
    # Most points have the same keys, so these are compared before they become labels.
    key_sets = {tuple(point.series.attributes) for point in points}
    names: set[str] = set()
    for keys in key_sets:
        names.update(map(label, keys))
    return sorted(names)


def number(value: float) -> str:
    """Return a sample value as prometheus_client prints it."""
    # Most values are small whole numbers, and this is four times as fast for them.
    if type(value) is int and 0 <= value < 1_000_000:
        return f"{value}.0"
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


@lru_cache(maxsize=4096)
def label(key: str) -> str:
    """Return the label name of an attribute key, as the stock exporter makes it."""
    if key[:1].isdigit():
        key = "_" + key[1:]
    return re.sub(r"[^a-zA-Z0-9]+", "_", key)


def labelled(attributes: Mapping[str, AttributeValue]) -> str:
    """Return the labels of a series that stands alone, in braces."""
    return _labels(attributes, sorted(map(label, attributes)))


def _labels(attributes: Mapping[str, AttributeValue], names: Collection[str]) -> str:
    if not names:
        return ""
    values = {label(key): _label_value(value) for key, value in attributes.items()}
    pairs = [f'{name}="{_escape(values.get(name, ""))}"' for name in names]
    return "{" + ",".join(pairs) + "}"


def _label_value(value: AttributeValue) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _text_comments(instrument: Instrument) -> str:
    # Unlike OpenMetrics, the text format has no escape for quotation marks.
    description = instrument.description.replace("\\", r"\\").replace("\n", r"\n")
    return _comments(instrument.prometheus, description, instrument.kind)


def _openmetrics_comments(instrument: Instrument) -> str:
    name = instrument.prometheus
    if instrument.kind == "counter":
        name = name.removesuffix("_total")
    comments = _comments(name, _escape(instrument.description), instrument.kind)
    unit = _UNIT_NAMES.get(instrument.unit)
    if unit is not None:
        comments += f"# UNIT {name} {unit}\n"
    return comments


def _comments(name: str, description: str, kind: str) -> str:
    return f"# HELP {name} {description}\n# TYPE {name} {kind}\n"
