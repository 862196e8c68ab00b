"""Makes text that OpenAI sent usable as a label: replaces what is no Unicode, and cuts long text."""

import re
from dataclasses import dataclass

import msgspec

from otel_openai_usage.providers.openai.answers import Body

LONGEST = 1024
"""Characters of an id or a name; more is cut."""
_BOM = b"\xef\xbb\xbf"
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair, as it should be
    rb"|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|.)",
    re.DOTALL,
)
_REPLACEMENT = b"\\ufffd"
_ANY_TEXT = msgspec.json.Decoder(str)


@dataclass(slots=True)
class Odd:
    """How many values of an answer were replaced, or left out."""

    replaced: int = 0
    left_out: int = 0

    def __bool__(self) -> bool:
        return bool(self.replaced or self.left_out)


def mend(body: bytearray) -> int:
    """Remove a byte order mark from a JSON text and replace halves of surrogate pairs, in place.

    Returns the number of halves. They come from programs that cut a text in the middle of an emoji;
    no JSON parser accepts them.
    """
    if body.startswith(_BOM):
        del body[: len(_BOM)]
    # Most answers escape nothing, and one byte is found thirty times as fast as a longer text.
    if b"\\" not in body or (b"\\ud" not in body and b"\\uD" not in body):
        return 0
    lone = [match.start() for match in _ESCAPE.finditer(body) if match["lone"]]
    for start in lone:
        body[start : start + len(_REPLACEMENT)] = _REPLACEMENT
    return len(lone)


def plain(raw: Body) -> str | None:
    """The text of a JSON string, whatever its bytes are; None for what is no JSON string."""
    text = bytearray(bytes(raw).decode("utf-8", "replace").encode())
    mend(text)
    try:
        return _ANY_TEXT.decode(text)
    except msgspec.DecodeError:
        return None


def cut(text: str) -> str:
    """The text, not longer than a label may be."""
    return text if len(text) <= LONGEST else text[:LONGEST]
