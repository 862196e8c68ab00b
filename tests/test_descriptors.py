"""Running out of file descriptors."""

import asyncio
import errno
import logging
import resource
import socket
import subprocess
import sys

import pytest

from otel_openai_usage.descriptors import LOG_AGAIN_AFTER, ExhaustionHandler


def test_the_soft_limit_is_raised() -> None:
    """A process that starts with 64 descriptors may have as many as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    code = (
        "import resource; from otel_openai_usage.descriptors import raise_limit;"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard})); raise_limit();"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == (65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536))


async def test_a_listener_without_descriptors_is_one_sentence_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accepting fails hundreds of times a second: one line without a trace, and a minute later
    another.
    """
    caplog.set_level(logging.INFO)
    now = 0.0
    failed = asyncio.Event()
    loop = asyncio.get_running_loop()
    handler = ExhaustionHandler(lambda: now)

    def counting(inner: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        handler(inner, context)
        failed.set()

    loop.set_exception_handler(counting)
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, backlog=100)
    address = server.sockets[0].getsockname()

    def refuse(_: socket.socket) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as full:
        full.setattr(socket.socket, "accept", refuse)
        client = socket.create_connection(address)
        await failed.wait()
    lines = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(lines) == 1
    assert lines[0].exc_info is None
    now = LOG_AGAIN_AFTER
    handler(loop, {"message": "m", "exception": OSError(errno.EMFILE, "Too many open files")})
    handler(loop, {"message": "m", "exception": OSError(errno.EMFILE, "Too many open files")})
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 2
    client.close()
    server.close()


async def test_other_troubles_of_the_loop_are_told_as_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is no exhaustion goes to the default handler."""
    handler = ExhaustionHandler(lambda: 0.0)
    handler(asyncio.get_running_loop(), {"message": "odd", "exception": KeyError("x")})
    assert [record.getMessage().splitlines()[0] for record in caplog.records] == ["odd"]
