"""One writer of a state: a row with an owner and a token that only grows (table `leases`).

The owner renews the row. Another process takes the row over only after it has itself seen it
unchanged for the length of the lease, by its own monotonic clock: no clock of another machine is
compared. Every transaction of the owner checks its token, so a deposed owner commits nothing.
"""

import os
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from otel_openai_usage.errors import StateInUse

SCOPE = "state"
HELD: set[str] = set()
"""The owners that this process is at the moment."""
_LOOKS = 10
"""How often a candidate looks at the row while it waits for one lease."""


class _Row(NamedTuple):
    owner: str
    token: int
    renewals: int


class Lease:
    """The right to write, after `take` returned. `seconds` is how long an owner may be silent."""

    def __init__(self, shown: str, seconds: float) -> None:
        self._shown = shown
        self.seconds = seconds
        self.token = 0
        self._owner = f"{this_process()} {uuid.uuid4().hex}"

    def take(
        self,
        connection: psycopg.Connection[Any],
        *,
        mono: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Become the owner. Raises StateInUse if another process is alive, at most after a lease."""
        connection.execute(
            "INSERT INTO leases VALUES (%s, '', 0, 0) ON CONFLICT (scope) DO NOTHING", (SCOPE,)
        )
        seen = self._read(connection)
        since = mono()
        while True:
            is_silent = mono() - since >= self.seconds
            if (is_silent or _is_free(seen)) and self._replace(connection, seen):
                break
            now = self._read(connection)
            if now != seen and not _is_free(now):
                raise self._in_use(now.owner)
            seen = now
            if not _is_free(seen):
                sleep(self.seconds / _LOOKS)
        self.token = seen.token + 1
        HELD.add(self._owner)

    def _read(self, connection: psycopg.Connection[Any]) -> _Row:
        sql = "SELECT owner, token, renewals FROM leases WHERE scope = %s"
        found = connection.execute(sql, (SCOPE,)).fetchone()
        return _Row(*found) if found else _Row("", 0, 0)

    def _replace(self, connection: psycopg.Connection[Any], seen: _Row) -> bool:
        """Take the row if it is still the one that was seen."""
        sql = (
            "UPDATE leases SET owner = %s, token = token + 1, renewals = 0"
            " WHERE scope = %s AND token = %s AND renewals = %s"
        )
        values = (self._owner, SCOPE, seen.token, seen.renewals)
        return connection.execute(sql, values).rowcount == 1

    def renew(self, connection: psycopg.Connection[Any]) -> None:
        """Say that the owner lives. In a transaction it also checks that nobody else owns it.

        Raises StateInUse if somebody does.
        """
        sql = "UPDATE leases SET renewals = renewals + 1 WHERE scope = %s AND token = %s"
        if connection.execute(sql, (SCOPE, self.token)).rowcount != 1:
            raise self._in_use(self._read(connection).owner)

    def release(self, connection: psycopg.Connection[Any]) -> None:
        """Let the next process begin at once."""
        sql = "UPDATE leases SET owner = '' WHERE scope = %s AND token = %s"
        connection.execute(sql, (SCOPE, self.token))

    def drop(self) -> None:
        """This process does not write any more. In the database the lease is still taken."""
        HELD.discard(self._owner)

    def require_free(self, connection: psycopg.Connection[Any]) -> None:
        """Raise StateInUse if a process has the whole state for itself. Waits for a silent one."""
        seen = self._read(connection)
        deadline = time.monotonic() + self.seconds
        while not _is_free(seen) and time.monotonic() < deadline:
            time.sleep(self.seconds / _LOOKS)
            now = self._read(connection)
            if now != seen and not _is_free(now):
                raise self._in_use(now.owner)
            seen = now

    def _in_use(self, owner: str) -> StateInUse:
        who = owner.partition(" ")[0] or "another process"
        return StateInUse(
            f"the state in {self._shown} is in use by another otel-openai-usage ({who});"
            " end that one or set another state.url"
        )


def _is_free(row: _Row) -> bool:
    return not row.owner or has_ended(row.owner)


def this_process() -> str:
    """The host and process, with what tells two boots and two containers of one name apart."""
    where = f"{socket.gethostname()}:{os.getpid()}"
    return f"{where} {_namespace()} {_started(os.getpid())}"


def _namespace() -> str:
    """Which boot of the machine and which PID namespace; empty where the system does not say."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    return ""


def _started(pid: int) -> str:
    """When a process started, in clock ticks since the boot; empty if there is none."""
    with suppress(OSError, IndexError):
        # The name of the program, in brackets, may have blanks.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def has_ended(owner: str) -> bool:
    """Whether the owner is a process of this machine that has ended, so nobody need wait for it."""
    parts = owner.split(" ")
    if len(parts) != 4 or not parts[1] or parts[1] != _namespace():
        return False
    where, _, started, _ = parts
    pid = where.rpartition(":")[2]
    if pid == str(os.getpid()) and started == _started(os.getpid()):
        return owner not in HELD
    return pid.isdigit() and _started(int(pid)) != started
