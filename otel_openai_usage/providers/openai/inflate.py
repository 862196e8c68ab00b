"""Bodies unpacked in pieces, so that a small answer that unpacks to gigabytes is noticed early."""

import asyncio
import zlib
from collections.abc import AsyncIterator

from otel_openai_usage.errors import Unavailable

PIECE = 256 * 1024
"""Bytes that are unpacked at a time; the event loop is free in between."""
_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


async def unpacked(pieces: AsyncIterator[bytes], encoding: str, call: str) -> AsyncIterator[bytes]:
    """The body that packed pieces hold, `encoding` being the Content-Encoding. Raises Unavailable
    for what is packed otherwise, is broken, or ends too early.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        async for piece in pieces:
            yield piece
        return
    if name not in _WINDOW:
        raise Unavailable(
            f"{call}: the answer has Content-Encoding {encoding[:40]!r}, which was not asked for;"
            " check base_url and the proxy"
        )
    unpacker = zlib.decompressobj(_WINDOW[name])
    async for piece in pieces:
        rest = piece
        while rest and not unpacker.eof:
            try:
                # In a thread only where it takes long: most bodies are small.
                if len(rest) < PIECE // 64:
                    part = unpacker.decompress(rest, PIECE)
                else:
                    part = await asyncio.to_thread(unpacker.decompress, rest, PIECE)
            except zlib.error as error:
                raise _broken(call) from error
            rest = unpacker.unconsumed_tail
            yield part
            await asyncio.sleep(0)
    # What is left inside comes out in pieces, too.
    while not unpacker.eof and (part := unpacker.decompress(unpacker.unconsumed_tail, PIECE)):
        yield part
    if not unpacker.eof:
        raise _broken(call)


def _broken(call: str) -> Unavailable:
    return Unavailable(
        f"{call}: the answer broke off or could not be unpacked; check base_url and the network"
    )
