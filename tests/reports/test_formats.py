"""The formats of reports are found by name; nothing but their modules lists them."""

from pathlib import Path

import pytest

from otel_openai_usage.cli.verbs import cli
from otel_openai_usage.reports import formats
from otel_openai_usage.reports.formats import SeriesFormat, SeriesProtocol, TableFormat

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
