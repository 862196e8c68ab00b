"""An installed package with exporters of metrics, made for a test."""

import sys
from pathlib import Path

import pytest

_CODE = '''
"""Exporters for tests: one writes what it gets, the others misbehave."""

import os
from pathlib import Path

from opentelemetry.sdk.metrics import Counter, Histogram, ObservableCounter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality, InMemoryMetricReader, MetricExporter, MetricExportResult,
    PeriodicExportingMetricReader,
)


class Witness(MetricExporter):
    """Wants delta, and writes every export to a file, as JSON."""

    def __init__(self):
        super().__init__(preferred_temporality={ObservableCounter: AggregationTemporality.DELTA})
        self._file = Path(os.environ["WITNESS_FILE"])

    def export(self, metrics_data, timeout_millis=10_000, **kwargs):
        with self._file.open("a") as file:
            file.write(metrics_data.to_json(indent=None) + "\\n")
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis=10_000):
        return True

    def shutdown(self, timeout_millis=30_000, **kwargs):
        pass


class Failing(Witness):
    """Raises at each export, with a secret in its message."""

    def export(self, metrics_data, timeout_millis=10_000, **kwargs):
        raise OSError("no route for Bearer abcdefghijklmnop")


class DeltaReader(PeriodicExportingMetricReader):
    """A reader with delta temporality."""

    def __init__(self):
        super().__init__(Witness(), export_interval_millis=3_600_000)


def broken():
    raise RuntimeError("the license has expired")


def other():
    return "no exporter"
'''
_ENTRY_POINTS = """
[opentelemetry_metrics_exporter]
witness = witness_exporters:Witness
failing = witness_exporters:Failing
broken = witness_exporters:broken
other = witness_exporters:other
missing = witness_missing:Exporter

[opentelemetry_metrics_reader]
delta_reader = witness_exporters:DeltaReader
"""


def install(folder: Path) -> Path:
    """Install the package into a folder, and return the folder, for PYTHONPATH."""
    site = folder / "site"
    information = site / "witness_exporters-1.0.dist-info"
    information.mkdir(parents=True)
    (site / "witness_exporters.py").write_text(_CODE)
    (information / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: witness-exporters\nVersion: 1.0\n"
    )
    (information / "entry_points.txt").write_text(_ENTRY_POINTS)
    return site


@pytest.fixture
def witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package, installed in this process; the file that its exporter writes."""
    monkeypatch.syspath_prepend(install(tmp_path))
    file = tmp_path / "witness.json"
    monkeypatch.setenv("WITNESS_FILE", str(file))
    monkeypatch.delitem(sys.modules, "witness_exporters", raising=False)
    return file
