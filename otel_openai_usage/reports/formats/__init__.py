"""The formats of reports, by name.

A format is one module of this package: its name is the format's name, and its constant `FORMAT`
describes it. Nothing else lists the formats. The choices and the help of the commands, and so
docs/cli.md, are made from here.

The modules import what is slow to load inside their functions: the command line imports all of them
to print its help.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, TypeAlias, TypeVar

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

    from otel_openai_usage.exporters.otlp.exporter import Exporter
    from otel_openai_usage.reports.formats.otlp import Outcome
    from otel_openai_usage.reports.past import PastSeries
    from otel_openai_usage.reports.tables import Export, Line


@dataclass(frozen=True, slots=True)
class TableFormat:
    """Stored history as lines of text, for `export --format NAME`."""

    summary: str
    """What a reader gets, for the help of the command."""
    columns: Sequence[str]
    records: "Callable[[Export, date], Iterator[Line]]"
    """The lines of one UTC day. Raises StateError."""
    text: "Callable[[Sequence[str], Line], str]"
    """A line in these columns as text, its line break included."""
    has_header: bool = True
    """Whether the names of the columns come first."""
    only_by_day: str = ""
    """Why there are no lines by the hour; empty if there are."""
    versions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The columns of each version of the format, if it has several."""

    def columns_of(self, version: str | None) -> Sequence[str]:
        """The columns of a version; of the format if it has none."""
        return self.versions[version] if version and self.versions else self.columns


@dataclass(frozen=True, slots=True)
class SeriesFormat:
    """Past series as text with timestamps, for `backfill --NAME FILE`."""

    summary: str
    text: "Callable[[Iterable[PastSeries]], Iterator[str]]"
    """The text, in pieces. The series come instrument by instrument."""


@dataclass(frozen=True, slots=True)
class SeriesProtocol:
    """Past series over a network protocol, for `backfill --NAME`."""

    summary: str
    send: "Callable[[Iterable[PastSeries], Exporter, Resource], Outcome]"
    """Sends all series. Raises ExporterError."""


Format: TypeAlias = TableFormat | SeriesFormat | SeriesProtocol
_Kind = TypeVar("_Kind", TableFormat, SeriesFormat, SeriesProtocol)


def load(name: str, kind: type[_Kind]) -> _Kind:
    """The format of this name. Raises LookupError if there is none of this kind."""
    if name not in _names():
        raise LookupError(f"looked up the format {name!r}: known are {', '.join(_names())}")
    format_ = _import(name)
    if not isinstance(format_, kind):
        raise LookupError(f"looked up the format {name!r}: it is no {kind.__name__}")
    return format_


def table_formats() -> dict[str, TableFormat]:
    """The formats of `export` by name, in the order of their names."""
    found = {name: _import(name) for name in _names()}
    return {name: each for name, each in found.items() if isinstance(each, TableFormat)}


def _names() -> list[str]:
    """The names of all formats, in order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def _import(name: str) -> Format:
    """The format of a module of this package."""
    module = importlib.import_module(f"{__name__}.{name}")
    format_: Format = module.FORMAT
    return format_
