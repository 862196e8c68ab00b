"""Where a state is."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit, urlunsplit

_SECRET_PARAMETERS = ("password", "sslpassword")


@dataclass(frozen=True, slots=True)
class DatabaseLocation:
    """A database server. `str` of it has no password.

    `lease` is in seconds; see `state.lease`. `connections` is how many one process opens at most.
    A `standby` never owns anything.
    """

    url: str = field(repr=False)
    password_file: Path | None = None
    lease: float = 15.0
    connections: int = 3
    standby: bool = False

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        login, at, hosts = parts.netloc.rpartition("@")
        user = login.partition(":")[0]
        kept = [
            parameter
            for parameter in parts.query.split("&")
            if parameter.partition("=")[0] not in _SECRET_PARAMETERS
        ]
        return urlunsplit(parts._replace(netloc=f"{user}{at}{hosts}", query="&".join(kept)))


def location_of(text: str) -> "Location":
    """The location that a path or a URL names."""
    if text.startswith(("postgresql://", "postgres://")):
        return DatabaseLocation(text)
    return Path(text).expanduser()


Location: TypeAlias = Path | DatabaseLocation
"""A file, or a database server. The path `:memory:` is a state that is lost when the process ends."""
