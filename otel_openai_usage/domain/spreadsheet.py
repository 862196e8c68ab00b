"""Text that a spreadsheet shows but never runs.

People open CSV with a double click, and an attacker can name a project like a formula.
"""

import json
import re
from collections.abc import Iterable, Mapping

# A cell is a formula if it begins with one of these signs. Spreadsheets skip blanks and invisible
# characters before it, and know its full-width form. A spreadsheet with another separator, or
# without quotes, begins a cell in the middle of ours.
_BLANK = r"[\s\x00-\x1f\x7f\u00a0\u200b-\u200f\u2060\ufeff]*"
_FORMULA = re.compile(rf"""((?:^|[,;|\t\r\n"']){_BLANK})([=+\-@\uff1d\uff0b\uff0d\uff20])""")
_QUOTED = frozenset(',;|\t\r\n"')
_CONTROL = ("\t", "\r", "\n")


def safe(text: str) -> str:
    """The text with an apostrophe before everything that a spreadsheet may take for a formula."""
    marked = _FORMULA.sub(r"\1'\2", text)
    return f"'{marked}" if marked.startswith(_CONTROL) else marked


def safe_json(value: Mapping[str, object]) -> str:
    """JSON that means the same, and in which no sign stands where a formula may begin."""
    text = json.dumps(value, ensure_ascii=False)
    return _FORMULA.sub(lambda found: f"{found[1]}\\u{ord(found[2]):04x}", text)


def row(cells: Iterable[object], end: str) -> str:
    """A line of CSV. A cell with a line break, or with another program's separator, is quoted."""
    return ",".join(_quoted(str(cell)) for cell in cells) + end


def _quoted(text: str) -> str:
    if not _QUOTED & set(text):
        return text
    doubled = text.replace('"', '""')
    return f'"{doubled}"'
