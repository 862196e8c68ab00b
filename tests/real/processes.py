"""Processes that a test starts, waits for and surely stops."""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def get(url: str, headers: Mapping[str, str] | None = None, timeout: float = 10) -> tuple[int, str]:
    """Status and body of a GET, whatever the status. OSError without an answer."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=dict(headers or {})), timeout=timeout
        ) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def wait_for(ask: Callable[[], T | None], what: str, seconds: float = 30, every: float = 0.1) -> T:
    """The first answer of `ask` that is true; refused connections count as not yet."""
    end = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < end:
        try:
            if answer := ask():
                return answer
            last = answer
        except OSError as error:
            last = error
        time.sleep(every)
    raise AssertionError(f"waited {seconds:g} s for {what}; the last answer was {last!r}")


class Process:
    """A started process. Its output goes to `log`, so that no pipe can fill up."""

    def __init__(
        self, command: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = Path(command[0]).name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(os.environ if env is None else env),
                start_new_session=True,
                cwd=log.parent,
            )

    @property
    def output(self) -> str:
        """All it has said so far."""
        return self.log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it is still there."""
        return self._process.poll() is None

    def ready(self, url: str, seconds: float = 30, status: int = 200) -> None:
        """Wait until GET `url` answers with `status`; in vain, then it is ended."""
        self.started(lambda: get(url)[0] == status, f"{status} from {url}", seconds)

    def started(self, ask: Callable[[], bool], what: str, seconds: float = 30) -> None:
        """Wait until `ask` is true; in vain, then it is ended."""
        try:
            self.until(ask, what, seconds)
        except AssertionError:
            self.kill()
            raise

    def until(self, ask: Callable[[], T | None], what: str, seconds: float = 30) -> T:
        """The first true answer of `ask`; AssertionError with its output if it ends before, or in
        vain.
        """

        def ask_the_living() -> T | None:
            assert self.running, f"{self.name} ended with {self._process.returncode}"
            return ask()

        try:
            return wait_for(ask_the_living, what, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output[-4000:]}") from None

    def wait(self, seconds: float = 30) -> int:
        """Its exit code; AssertionError if it does not end in time."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.name} still runs after {seconds:g} s:\n{self.output[-4000:]}"
            ) from None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def stop(self, seconds: float = 10) -> int:
        """End it by SIGTERM, after `seconds` with force, children included; its exit code."""
        if self.running:
            self._process.terminate()
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """End it and its children at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait(10)
