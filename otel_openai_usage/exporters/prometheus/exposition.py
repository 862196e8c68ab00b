"""Snapshot → Prometheus bytes, ready to be served: the same bytes as the stock exporter would
print.

The sample lines of the text format (0.0.4) and of OpenMetrics (1.0.0) are the same, only the
comments differ. So the lines are rendered and compressed once, whoever asks for them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from json import dumps

from prometheus_client.utils import floatToGoString

from otel_openai_usage.domain.instruments import Instrument
from otel_openai_usage.domain.snapshot import AttributeValue, Point, Series, Snapshot
from otel_openai_usage.exporters.prometheus.deflate import crc, followed, segment, shift

_LINES = 400
"""A piece holds so many lines, about 100 kB: it is written to a socket, and waited for, as one; and
rendered anew as one.
"""


@dataclass(frozen=True, slots=True)
class Block:
    """Text in pieces, plain and as a raw deflate segment; the CRC-32 of the plain text, its size,
    and what that shifts CRCs by.
    """

    plain: Sequence[bytes]
    deflated: Sequence[bytes]
    crc: int
    size: int
    shift: int

    @classmethod
    def of(cls, plain: Sequence[bytes], deflated: Sequence[bytes]) -> "Block":
        """Add up."""
        size = sum(map(len, plain))
        return cls(plain, deflated, crc(plain), size, shift(size))


_EMPTY = Block((), (), 0, 0, shift(0))


@dataclass(frozen=True, slots=True)
class Page:
    """A whole exposition without its end: pieces, deflate segments, and the CRC-32 and size of the
    plain text.
    """

    plain: Sequence[bytes]
    deflated: Sequence[bytes]
    crc: int
    size: int

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> "Page":
        """Blocks, one after the other. None of their text is looked at."""
        plain = [piece for block in blocks for piece in block.plain]
        deflated = [piece for block in blocks for piece in block.deflated]
        sum_ = reduce(lambda before, block: followed(before, block.crc, block.shift), blocks, 0)
        return cls(plain, deflated, sum_, sum(block.size for block in blocks))


@dataclass(frozen=True, slots=True)
class Pages:
    """One snapshot in both formats."""

    text: Page
    openmetrics: Page


class Exposition:
    """Renders snapshots, one after the other. Remembers what it rendered. For one thread at a time."""

    def __init__(self, rows: Mapping[str, Instrument]) -> None:
        self._families = {name: Family(row) for name, row in rows.items()}

    def render(self, snapshot: Snapshot) -> Pages:
        """Both formats. A family without points is left out, as the stock exporter does."""
        text = []
        openmetrics = []
        for name, family in self._families.items():
            samples = family.render(snapshot.points.get(name, ()))
            if samples is not _EMPTY:
                text += [family.text, samples]
                openmetrics += [family.openmetrics, samples]
        return Pages(Page.of(text), Page.of(openmetrics))


class Family:
    """One metric family: its comments, and its sample lines.

    The points of a family all have the union of the labels, those that a point lacks being empty.
    """

    def __init__(self, row: Instrument) -> None:
        self._name = row.prometheus
        self.text = _block(
            _comments(
                row, row.prometheus, row.description.replace("\\", r"\\").replace("\n", r"\n")
            )
        )
        base = row.prometheus.removesuffix("_total") if row.kind == "counter" else row.prometheus
        unit = _unit(row)
        comments = _comments(row, base, _escape(row.description)) + (
            f"# UNIT {base} {unit}\n" if unit else ""
        )
        self.openmetrics = _block(comments)
        self._points: Sequence[Point] = ()
        self._pieces: list[tuple[bytes, bytes]] = []
        self._block = _EMPTY
        self._keys: list[str] = []
        self._labels: dict[Series, str] = {}

    def render(self, points: Sequence[Point]) -> Block:
        """The sample lines; those of last time if it is the same sequence of points, and of it
        those pieces that still say the same.
        """
        if points is not self._points:
            self._know(points)
            self._pieces = [self._piece(points, at) for at in range(0, len(points), _LINES)]
            self._points = points
            self._block = Block.of(*zip(*self._pieces, strict=True)) if points else _EMPTY
        return self._block

    def _piece(self, points: Sequence[Point], at: int) -> tuple[bytes, bytes]:
        part = points[at : at + _LINES]
        if part == self._points[at : at + _LINES]:
            return self._pieces[at // _LINES]
        labels = self._labels
        return _zipped(
            "".join([f"{labels[point.series]}{number(point.value)}\n" for point in part])
        )

    def _know(self, points: Sequence[Point]) -> None:
        """Have the labels of exactly these series."""
        known = self._labels
        if len(points) == len(known) and all(point.series in known for point in points):
            return
        keys = sorted(
            {
                label(key)
                for series_index in {tuple(point.series.attributes) for point in points}
                for key in series_index
            }
        )
        if keys != self._keys:
            self._keys = keys
            self._points = ()
            known = {}
        self._labels = {
            point.series: known.get(point.series)
            or f"{self._name}{_labels(point.series.attributes, keys)} "
            for point in points
        }


def _zipped(text: str) -> tuple[bytes, bytes]:
    plain = text.encode()
    return plain, segment(plain)


def _block(text: str) -> Block:
    plain, deflated = _zipped(text)
    return Block.of((plain,), (deflated,))


def number(value: float) -> str:
    """A sample value as prometheus_client prints it; quicker than it for the many that are small
    whole numbers.
    """
    if type(value) is int and 0 <= value < 1_000_000:
        return f"{value}.0"
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


@lru_cache(maxsize=4096)
def label(key: str) -> str:
    """The label name of an attribute key, as the stock exporter makes it."""
    return re.sub(r"[^a-zA-Z0-9]+", "_", "_" + key[1:] if key[:1].isdigit() else key)


def labelled(attributes: Mapping[str, AttributeValue]) -> str:
    """The labels of one series by itself, in braces."""
    return _labels(attributes, sorted(map(label, attributes)))


def _labels(attributes: Mapping[str, AttributeValue], keys: Iterable[str]) -> str:
    values = {
        label(key): value if isinstance(value, str) else dumps(value)
        for key, value in attributes.items()
    }
    pairs = ",".join([f'{key}="{_escape(values.get(key, ""))}"' for key in keys])
    return f"{{{pairs}}}" if pairs else ""


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _comments(row: Instrument, name: str, description: str) -> str:
    return f"# HELP {name} {description}\n# TYPE {name} {row.kind}\n"


def _unit(row: Instrument) -> str:
    return {"s": "seconds", "By": "bytes"}.get(row.unit, "")
