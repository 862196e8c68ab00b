"""Addresses on the command line."""

import click


def address(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, int] | None:
    """Host and port of `HOST:PORT`, `[::1]:PORT`, or `:PORT` for every interface."""
    if value is None:
        return None
    host, colon, port = value.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and int(port) <= 65535) or (
        ":" in host and host[0] + host[-1] != "[]"
    ):
        raise click.BadParameter(
            f"expected HOST:PORT such as localhost:9185 or :9185, got {value!r}"
        )
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - what `:9185` asks for
