"""Where a process begins and ends: forks, the exit of the interpreter, and children that end
without it.
"""

import atexit
import logging
import os
import sys
from importlib import import_module
from typing import Any, Protocol

log = logging.getLogger(__name__)

_PRIORITY = 10
"""Finalizers with a priority of at least 0 run before a process waits for its own children."""


class Closable(Protocol):
    """What ends with its process, and begins anew in a forked one."""

    def close(self) -> None: ...

    def restart(self) -> None: ...


class _Anchor:
    """Registrations of multiprocessing last as long as the object that they are for: this one is
    never let go.
    """


# Held until they are closed: one that its owner forgot still has something to send.
_meters: set[Closable] = set()
_anchor = _Anchor()
_hooked: set[tuple[int, str]] = set()
is_killable: bool | None = False
"""This process is a worker of a Pool, or another daemonic child of multiprocessing: its parent ends
it with SIGTERM, which Python does not catch. None while a spawned child imports: call
`find_killable` then.
"""


def register(meter: Closable) -> None:
    """Close it when this process ends, and restart it in a forked one."""
    _meters.add(meter)
    _hook_libraries()


def forget(meter: Closable) -> None:
    """It is closed."""
    _meters.discard(meter)


def _close_all(*_: object, **__: object) -> None:
    for meter in list(_meters):
        meter.close()


def _forked() -> None:
    """A forked child has no thread of ours, and the parent sends what waited."""
    for meter in list(_meters):
        meter.restart()
    _hook_libraries()


def _hook_libraries() -> None:
    """Hook into what is loaded and ends children with os._exit(), without atexit's functions.
    billiard, celery's multiprocessing, uses the finalizers of the standard one.
    """
    for loaded, name, hook in (
        ("multiprocessing", "multiprocessing.util", _hook_finalizers),
        ("celery", "celery.signals", _hook_celery),
    ):
        key = (os.getpid(), name)
        if loaded not in sys.modules or key in _hooked:
            continue
        _hooked.add(key)
        try:
            hook(import_module(name))
        except Exception as error:  # noqa: BLE001 - it is another library's, of whatever version
            log.info("no hook in %s: %r", name, error)


def _hook_finalizers(util: Any) -> None:
    """A child forgets its parent's finalizers, and those of the fork itself, when it begins; then
    it runs what is registered for after the fork.
    """

    def add(_: object) -> None:
        find_killable()
        util.Finalize(None, _close_all, exitpriority=_PRIORITY)

    add(None)
    # of spawned children this is not called: their finalizers stay, see `is_killable`
    util.register_after_fork(_anchor, add)


def find_killable() -> bool:
    """Find out whether this process may be killed. False while that is not known yet."""
    global is_killable  # noqa: PLW0603 - it is the process's
    process = import_module("multiprocessing").current_process()
    is_killable = process.daemon
    if not process.daemon and hasattr(process, "_inheriting"):
        is_killable = None  # a spawned child learns after its imports what it is
    return bool(is_killable)


def _hook_celery(signals: Any) -> None:
    signals.worker_process_shutdown.connect(_close_all, weak=False)


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
