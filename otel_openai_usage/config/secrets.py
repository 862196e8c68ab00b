"""Keeps secrets out of what is printed."""

import re

MASK = "****"
_SIGN = "[A-Za-z0-9_*-]"
_KEY = re.compile(
    rf"\bsk-(?!(?:admin|proj|svcacct)-(?!{_SIGN})){_SIGN}{{3,}}|(?<=[Bb]earer )[^\s\"',]+"
)  # `sk-admin-…` is no key


def redact(text: str) -> str:
    """`text` with everything that looks like an OpenAI key or a bearer token masked."""
    return _KEY.sub(MASK, text)
