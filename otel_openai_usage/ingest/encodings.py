"""Bodies that come compressed."""

import zlib

from aiohttp import web

from otel_openai_usage.ingest.parser import Refused

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
ENCODINGS = (*_WINDOWS, "identity")


def plain(body: bytes, encoding: str, most: int) -> bytes:
    """The body as it was before it was compressed. Raises Refused, and as aiohttp does for one of
    more than `most` bytes.
    """
    if encoding == "identity":
        return body
    inflate = zlib.decompressobj(_WINDOWS[encoding])
    try:
        found = inflate.decompress(body, most + 1)
    except zlib.error as error:
        raise Refused(f"the body is not {encoding}, as Content-Encoding says: {error}") from error
    if len(found) > most:  # a bomb is larger still; no more of it was made
        raise web.HTTPRequestEntityTooLarge(most, len(found))
    if not inflate.eof or inflate.unused_data:
        raise Refused(f"the body is not one whole {encoding} stream, as Content-Encoding says")
    return found
