"""How verbs end that run until they are told to stop."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def ending_at_once() -> Iterator[None]:
    """End with 0 on SIGTERM and SIGINT until somebody else listens to them.

    Starting takes a second on a small machine, and there is nothing yet that would have to be ended
    in order. The first process of a container does not even notice a SIGTERM that it does not
    handle.
    """
    before = {
        number: signal.signal(number, lambda *_: sys.exit(0))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def until_stopped(work: Any) -> None:
    """Do it until SIGTERM or SIGINT."""
    import asyncio

    task = asyncio.ensure_future(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await task
