"""A private PostgreSQL: a cluster in a temporary folder, on a free port, as an unprivileged user."""

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from otel_openai_usage.config.location import DatabaseLocation
from tests.real.processes import free_port, wait_for

_BIN = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
USER = "usage"
_schemas = itertools.count()


class Postgres:
    """A cluster that can be killed and started again. `fsync` is off unless a test needs it."""

    def __init__(self, *, fsync: bool = False) -> None:
        assert _BIN is not None, "PostgreSQL is not installed; `make servers` does it"
        self._user = "postgres" if os.geteuid() == 0 else None
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="usage-postgres-"))
        if self._user:
            os.chown(self._folder, pwd.getpwnam(self._user).pw_uid, -1)
        self._data = self._folder / "data"
        self._log = self._folder / "log"
        self._fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-D", self._data, "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8")

    def _run(self, program: str, *arguments: object) -> None:
        command = [f"{_BIN}/{program}", *map(str, arguments)]
        subprocess.run(command, user=self._user, cwd=self._folder, check=True, capture_output=True)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        command = [
            f"{_BIN}/postgres", "-D", str(self._data), "-p", str(self.port),
            "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self._folder}",
            "-c", f"fsync={'on' if self._fsync else 'off'}", "-c", "max_connections=100",
        ]  # fmt: skip
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                command, user=self._user, cwd=self._folder, stdout=output, stderr=output
            )
        wait_for(self._answers, "PostgreSQL")

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.Error:
            return False
        return True

    def kill(self) -> None:
        """kill -9 of the server and of every process of it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """End the server at once, as a shutdown for a restart does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
            self._process = None

    def url(self, schema: str = "public", database: str = "postgres") -> str:
        """The URL of one schema."""
        return (
            f"postgresql://{USER}@127.0.0.1:{self.port}/{database}?options=-csearch_path%3D{schema}"
        )

    def location(self, lease: float = 2.0) -> DatabaseLocation:
        """A new, empty schema."""
        schema = f"state{next(_schemas)}"
        self.execute(f"CREATE SCHEMA {schema}")
        return DatabaseLocation(self.url(schema), lease=lease)

    def execute(self, sql: str, schema: str = "public") -> list[tuple[object, ...]]:
        """Run SQL. The rows that it returns."""
        with psycopg.connect(self.url(schema), autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        """Stop the server and remove everything."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One cluster for all tests; each takes a schema of its own with `location`."""
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A cluster for a test that kills it. What it confirmed survives."""
    server = Postgres(fsync=True)
    try:
        server.start()
        yield server
    finally:
        server.close()


class Pgbouncer:
    """pgbouncer in transaction mode before a cluster: each transaction may get another connection."""

    def __init__(self, server: Postgres) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="usage-pgbouncer-"))
        user = "postgres" if os.geteuid() == 0 else None
        settings = self._folder / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port} user={USER}\n"
            "[pgbouncer]\npool_mode = transaction\nauth_type = any\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
        )
        if user:
            shutil.chown(self._folder, user)
        self._process = subprocess.Popen(
            ["pgbouncer", "-q", str(settings)],
            user=user,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def location(self, database: str, lease: float = 2.0) -> DatabaseLocation:
        """A database that exists on the server."""
        return DatabaseLocation(
            f"postgresql://{USER}@127.0.0.1:{self.port}/{database}", lease=lease
        )

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait(10)
        shutil.rmtree(self._folder, ignore_errors=True)
