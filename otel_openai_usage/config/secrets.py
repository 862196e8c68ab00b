"""Keeps secrets out of what is printed."""

import re

MASK = "****"
_SIGN = "[A-Za-z0-9_*-]"
# `sk-admin-…` alone names a sort of key and is no secret.
_KEY = re.compile(
    rf"\bsk-(?!(?:admin|proj|svcacct)-(?!{_SIGN})){_SIGN}{{3,}}|(?<=[Bb]earer )[^\s\"',]+"
)
_USERINFO = re.compile(r"//[^/@\s]+@")


def redact(text: str, secret: str = "") -> str:
    """The text with OpenAI keys, bearer tokens, logins in URLs and `secret` itself masked."""
    if secret:
        text = text.replace(secret, MASK)
    text = _KEY.sub(MASK, text)
    return _USERINFO.sub(f"//{MASK}@", text)
