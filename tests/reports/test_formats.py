"""The formats of reports are found by name; nothing but their modules lists them."""

from decimal import Decimal
from pathlib import Path

import pytest

from otel_openai_usage.cli import cli
from otel_openai_usage.composition.stores import queries_opener
from otel_openai_usage.domain.endpoints import COSTS
from otel_openai_usage.domain.model import Width
from otel_openai_usage.reports import export, formats
from otel_openai_usage.reports.formats import SeriesFormat, SeriesProtocol, TableFormat
from otel_openai_usage.storage.sqlite.store import Store
from tests.domain.shelf import MIDNIGHT
from tests.reports.test_export import TODAY, dims, keep

ROOT = Path(__file__).parent.parent.parent


def test_every_module_is_a_format() -> None:
    """Each module of the package can be loaded by its name, as one kind of format."""
    modules = {path.stem for path in Path(formats.__path__[0]).glob("[a-z]*.py")}
    tables = set(formats.table_formats())
    assert tables == {"csv", "focus", "json"}
    assert formats.load("openmetrics", SeriesFormat).summary
    assert formats.load("otlp", SeriesProtocol).summary
    assert modules == tables | {"openmetrics", "otlp"}


@pytest.mark.parametrize(
    ("name", "reason"), [("xlsx", "known are csv"), ("otlp", "no TableFormat")]
)
def test_an_unknown_format_is_refused(name: str, reason: str) -> None:
    """The error names the format, and says what is known."""
    with pytest.raises(LookupError, match=f"'{name}'.*{reason}"):
        formats.load(name, TableFormat)


def test_the_command_offers_every_table_format() -> None:
    """The choices of `export`, its help, docs/cli.md and docs/history.md have every format."""
    (option,) = (each for each in cli.commands["export"].params if each.name == "form")
    reference = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    guide = (ROOT / "docs" / "history.md").read_text(encoding="utf-8")
    names = list(formats.table_formats())
    assert option.to_info_dict()["type"]["choices"] == tuple(names)
    assert f"--format [{'|'.join(names)}]" in reference
    for name, chosen in formats.table_formats().items():
        assert f"{name}: {chosen.summary}" in " ".join(reference.split())
        assert f"| `{name}` |" in guide


def test_a_new_module_is_a_new_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in the package, and nothing else, adds a format that `export` writes."""
    source = Path(formats.__path__[0], "csv.py").read_text(encoding="utf-8")
    source = source.replace("tables.csv_line", "lambda columns, line: 'a line\\n'")
    (tmp_path / "plain.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path)])
    assert list(formats.table_formats()) == ["csv", "focus", "json", "plain"]
    store = Store(tmp_path / "state.db")
    keep(store, COSTS, Width.DAY, {MIDNIGHT: {dims(COSTS): (Decimal(6), Decimal(3))}})
    store.close()
    found = export.lines(queries_opener(tmp_path / "state.db"), TODAY, TODAY, "plain")
    assert list(found)[1:] == ["a line\n"]
