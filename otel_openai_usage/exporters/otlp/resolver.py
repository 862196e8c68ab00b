"""Looks up host names without keeping the process from ending."""

import asyncio
import socket
from contextlib import suppress
from threading import Thread
from typing import Any, TypeAlias

from aiohttp.abc import AbstractResolver, ResolveResult

_Addresses: TypeAlias = list[Any]
"""What `socket.getaddrinfo` returns."""


class DaemonResolver(AbstractResolver):
    """Looks up each name in a daemon thread.

    asyncio would use its thread pool, whose threads the interpreter waits for at its end, however
    long a look-up takes.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host. Raises OSError."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[_Addresses] = loop.create_future()

        def set_result(addresses: _Addresses, error: OSError | None) -> None:
            if found.done():
                return
            if error is None:
                found.set_result(addresses)
            else:
                found.set_exception(error)

        def look_up() -> None:
            addresses: _Addresses = []
            failure: OSError | None = None
            try:
                addresses = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                failure = OSError(f"{host}: {error}")
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(set_result, addresses, failure)

        Thread(target=look_up, name="otlp-resolver", daemon=True).start()
        results = []
        for address_family, _, protocol, _, address in await found:
            result = ResolveResult(
                hostname=host,
                host=address[0],
                port=address[1],
                family=address_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            results.append(result)
        return results

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""
