"""How every command ends on SIGTERM, SIGINT and SIGHUP, from the first line of our code to the last.

One handler is in place all the time, and what it does changes: it ends the process at once while
there is nothing to flush, raises `Stopped` in a command that does one piece of work, and calls back
in a command that runs until it is stopped. A second signal ends the process at once with 130.

The first process of a container does not even notice a SIGTERM that it does not handle, so this
module imports next to nothing and is used before anything else is imported.
"""

import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import current_thread, main_thread
from types import FrameType
from typing import Any, NoReturn

TWICE = 130
"""The exit code after a second signal: nothing is waited for. What is committed is safe."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SERVERS = ("run", "simulate", "demo", "dashboard")


class Stopped(SystemExit):
    """A signal came while a command did its work. asyncio hands on no other kind of exception from
    within a running loop.
    """

    event = "stopped"

    def __init__(self, name: str) -> None:
        super().__init__(1)
        self._name = name

    def __str__(self) -> str:
        return f"stopped by {self._name} before the work was done"


class _State:
    installed = False
    asked = False
    action: Callable[[str], None]


def install(arguments: Sequence[str]) -> None:
    """Handle the signals of a command line from now on: end at once, with 0 for a command that runs
    until it is stopped, otherwise with 1, because its work is not done.
    """
    code = 0 if _is_server(arguments) else 1
    _State.action = lambda _: exit_now(code)
    _State.installed = True
    _handle()


@contextmanager
def raising() -> Iterator[None]:
    """Raise `Stopped` in the main thread on a signal, so that the work is ended in order."""

    def stop(name: str) -> None:
        raise Stopped(name)

    with _acting(stop):
        yield


@contextmanager
def calling(stop: Callable[[], object]) -> Iterator[None]:
    """Call `stop` on a signal. It runs in a signal handler, so it must only note the wish."""

    def note(_: str) -> None:
        stop()

    with _acting(note):
        yield


async def until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Do it until a signal comes."""
    import asyncio

    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    with calling(lambda: loop.call_soon_threadsafe(task.cancel)), suppress(asyncio.CancelledError):
        await task


def finished(code: int) -> None:
    """Nothing is left to do: a signal that comes now changes nothing."""
    _State.action = lambda _: exit_now(code)


def exit_now(code: int) -> NoReturn:
    """End the process without waiting for anything."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the signal may have come in the middle of a write
            stream.flush()
    os._exit(code)


@contextmanager
def _acting(action: Callable[[str], None]) -> Iterator[None]:
    if current_thread() is not main_thread():  # there Python has no signals
        yield
        return
    if _State.installed:
        before = _State.action
        _State.action = action
        try:
            yield
        finally:
            _State.action = before
        return
    # Within somebody else's process, such as a test's: leave everything as it was.
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    _State.action = action
    _State.asked = False
    _handle()
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _handle() -> None:
    for number in _SIGNALS:
        # `nohup` has SIGHUP ignored, and means it.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _received)


def _received(number: int, _: FrameType | None) -> None:
    if _State.asked:
        exit_now(TWICE)
    _State.asked = True
    _State.action(signal.Signals(number).name)


def _is_server(arguments: Sequence[str]) -> bool:
    command = next((each for each in arguments if not each.startswith("-")), "")
    return command in SERVERS and "--once" not in arguments
