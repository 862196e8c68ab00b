"""CSV that a spreadsheet may open, whatever people call their projects."""

import csv
import io
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otel_openai_usage.domain.spreadsheet import row, safe, safe_json

SIGNS = "=+-@＝＋－＠"
TEXT = st.text(st.sampled_from(" ,;|\t\r\n\"'\x00\u00a0\u200b\ufeff=+-@＝ab1"), max_size=12)


def begins_a_formula(cell: str) -> bool:
    """Whether a spreadsheet runs a cell: blanks and invisible characters before the sign count for
    nothing.
    """
    return cell.lstrip("\x00\u200b\ufeff\u00a0 \t\r\n").startswith(tuple(SIGNS))


def cells(text: str, separator: str, quote: str) -> list[str]:
    """What a spreadsheet makes of a file with this separator, with quotes or without."""
    if not quote:
        lines = text.replace("\r", "\n").replace('"', "\n").split("\n")
        return [cell for line in lines for cell in line.split(separator)]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quotechar=quote)
    return [cell for line in reader for cell in line]


@given(st.lists(TEXT, min_size=1, max_size=4))
@example(["\r=1+1"])
@example(["a\r=1+1"])
@example(["a;=1+1"])
@example(["a\t=1+1"])
@example(['a"=1+1'])
@example(["a\n\ufeff@SUM(1)"])
def test_no_cell_is_a_formula(texts: list[str]) -> None:
    """Whichever separator a spreadsheet takes, and whether it knows quotes or not, no cell is a
    formula.
    """
    line = row([safe(text) for text in texts], "\n")
    for separator in ",;\t|":
        for quote in ('"', ""):
            assert not any(map(begins_a_formula, cells(line, separator, quote))), (separator, quote)


@given(st.lists(TEXT, min_size=2, max_size=4))
def test_a_row_is_read_back(texts: list[str]) -> None:
    """A CSV reader gets the cells that were written."""
    reader = csv.reader(io.StringIO(row(texts, "\n"), newline=""))
    assert list(reader) == [texts]


@given(st.dictionaries(TEXT, TEXT, max_size=3))
def test_json_means_the_same(value: dict[str, str]) -> None:
    """JSON in a cell is read back as it was, and no sign stands where a cell may begin."""
    text = safe_json(value)
    assert json.loads(text) == value
    assert safe(text) == text


@pytest.mark.parametrize(
    "text", ["gpt-4o", "2026-11-01", "o'neill", "a=b", "x, y", "Ärger & Söhne"]
)
def test_ordinary_text_stays(text: str) -> None:
    """What is no formula is written as it is."""
    assert safe(text) == text
