"""Keeps secrets out of what is printed."""

import re

MASK = "****"
_KEY = re.compile(r"\bsk-[A-Za-z0-9_*-]{3,}|(?<=[Bb]earer )[^\s\"',]+")


def redact(text: str) -> str:
    """`text` with everything that looks like an OpenAI key or a bearer token masked."""
    return _KEY.sub(MASK, text)
