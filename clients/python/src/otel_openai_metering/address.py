"""The address that events are sent to, from the URL of a server; and how it is shown."""

import base64
import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

PATH = "/api/v1/events"
LONGEST = 200
"""Characters of an address, or of an error, that are shown."""
_SCHEMES = ("http", "https")
_IN_PATH = "/%:@!$&'()*+,;=~-._"
_IN_QUERY = _IN_PATH + "?"
_NO_HOST = frozenset(' "<>\\^`{|}%')


@dataclass(frozen=True, slots=True)
class Address:
    """Where to POST. `shown` has neither user, password nor query, and is the only form for logs
    and errors. `basic` is the value of an Authorization header, None where the URL has no user.
    """

    shown: str
    url: str = field(repr=False)
    basic: str | None = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, url: str) -> "Address":
        """The events endpoint of a server's URL, or of its own. Raises ValueError, which does not
        show the URL: it may have a password.
        """
        parts, host, port = _split(url)
        authority = f"[{host}]" if ":" in host else host
        if port is not None:
            authority = f"{authority}:{port}"
        path = quote(parts.path.rstrip("/"), safe=_IN_PATH)
        if not path.endswith("/events"):
            path += PATH
        query = quote(parts.query, safe=_IN_QUERY)
        basic = None
        secrets = [query, parts.query]
        if parts.username or parts.password:
            user = unquote(parts.username or "")
            password = unquote(parts.password or "")
            digits = base64.b64encode(f"{user}:{password}".encode()).decode()
            basic = f"Basic {digits}"
            secrets += [digits, password, parts.password or ""]
        return cls(
            urlunsplit((parts.scheme, authority, path, "", "")),
            urlunsplit((parts.scheme, authority, path, query, "")),
            basic,
            tuple(secret for secret in secrets if secret),
        )


def _split(url: str) -> tuple[SplitResult, str, int | None]:
    """The parts of a URL, its host as the network has it, and its port. Raises ValueError."""
    try:
        parts = urlsplit(url.strip())
        host = parts.hostname or ""
    except (ValueError, AttributeError):  # its text may quote the password
        raise _invalid("it is no URL") from None
    if parts.scheme not in _SCHEMES:
        raise _invalid("its scheme is another")
    try:
        port = parts.port
    except ValueError:
        raise _invalid("its port is no number up to 65535") from None
    try:
        if ":" not in host:  # no IPv6 address
            host = host.encode("idna").decode()
    except UnicodeError:
        raise _invalid("its host is no name that the network has") from None
    if not host or not host.isprintable() or _NO_HOST & set(host.partition("%")[0]):
        raise _invalid("its host is missing or no name that the network has")
    return parts, host, port


def _invalid(why: str) -> ValueError:
    return ValueError(
        f"url: expected http://host or https://host, but {why}; its value is not shown"
    )


def shown(url: str) -> str:
    """An address that somebody else said, without user, password and query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "another address"
    authority = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, authority, parts.path, "", ""))[:LONGEST]


def folder(spool: Path | str) -> Path:
    """The path of a folder. Raises ValueError for one that no file system can have."""
    try:
        path = Path(spool)
        if b"\0" not in os.fsencode(path):
            return path
    except (TypeError, UnicodeError):
        pass
    raise ValueError(f"spool: expected the path of a folder, got {spool!r}")
