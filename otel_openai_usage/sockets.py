"""Listening sockets, and every way in which an address cannot be had, in sentences."""

import errno
import ipaddress
import socket
from contextlib import ExitStack

from otel_openai_usage.errors import ListenError, PortInUse

_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address or name; names in any case, with or without
    the dot at their end.
    """
    name = host.lower().rstrip(".").strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def bind(host: str, port: int) -> list[socket.socket]:
    """Listening sockets on every address of the host; one that this machine does not have (IPv6
    off) is left out.
    """
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise ListenError(
            f"listen on {host}:{port}: {error.strerror or error}; name an address of this machine"
        ) from error
    with ExitStack() as stack:
        sockets: list[socket.socket] = []
        missing: OSError | None = None
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                sockets.append(
                    stack.enter_context(_listening(family, (address[0], port, *address[2:])))
                )
            except OSError as error:
                if error.errno not in _NO_SUCH_ADDRESS:
                    kind = PortInUse if error.errno == errno.EADDRINUSE else ListenError
                    raise kind(f"listen on {host}:{port}: {_reason(error)}") from error
                missing = error
            else:
                port = port or sockets[0].getsockname()[1]
        if missing and not sockets:
            raise ListenError(f"listen on {host}:{port}: {_reason(missing)}") from missing
        stack.pop_all()
    return sockets


def _listening(family: int, address: tuple[str | int, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(
                socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1
            )  # 0.0.0.0 has a socket of its own
        sock.bind(address)
        sock.listen(128)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "the address is in use; stop the other process, or choose another port"
        case errno.EACCES:
            return "not permitted; choose a port above 1023"
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return "this machine does not have that address; name one of its own"
    return f"{error.strerror or error}; choose another address"
