"""Decompresses request bodies."""

import zlib

from aiohttp import web

from otel_openai_usage.ingest.parser import Refused

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
ENCODINGS = (*_WINDOWS, "identity")


def plain(body: bytes, encoding: str, max_size: int) -> bytes:
    """The decompressed body. Raises Refused, or HTTPRequestEntityTooLarge above `max_size` bytes."""
    if encoding == "identity":
        return body
    inflate = zlib.decompressobj(_WINDOWS[encoding])
    try:
        found = inflate.decompress(body, max_size + 1)
    except zlib.error as error:
        raise Refused(f"the body is not {encoding}, as Content-Encoding says: {error}") from error
    # A decompression bomb may be much larger: no more than one byte above the limit was unpacked.
    if len(found) > max_size:
        raise web.HTTPRequestEntityTooLarge(max_size, len(found))
    if not inflate.eof or inflate.unused_data:
        raise Refused(f"the body is not one whole {encoding} stream, as Content-Encoding says")
    return found
