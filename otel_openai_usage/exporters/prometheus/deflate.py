"""One gzip member out of parts that were compressed long before.

Concatenated gzip members are valid, but browsers, curl and aiohttp stop after the first. So parts
are kept as raw deflate segments, each ending at a byte border and looking back at nothing, and
strung together between one gzip header and one trailer (RFC 1951 section 3.2.3, RFC 1952 section
2.3).
"""

import struct
import zlib
from collections.abc import Iterable

_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"  # deflate, no time, fastest, unknown system
_LAST = b"\x03\x00"  # an empty block that says it is the last one


def segment(text: bytes) -> bytes:
    """The raw deflate of the text, at level 1, not finished: another segment or the end may follow."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(text) + packer.flush(zlib.Z_FULL_FLUSH)


def member(segments: Iterable[bytes], crc: int, size: int) -> list[bytes]:
    """A complete gzip member of these segments; `crc` and `size` are those of the plain text."""
    return [_HEADER, *segments, _LAST, struct.pack("<LL", crc, size & 0xFFFFFFFF)]


_POLYNOMIAL = 0xEDB88320


def shift(size: int) -> int:
    """What a CRC-32 is to be multiplied with when `size` bytes follow: x to the power of 8 times
    `size`.
    """
    # x^0 and x^8; the lowest power is the highest bit
    result = 1 << 31
    square = 1 << 23
    while size:
        if size & 1:
            result = _product(result, square)
        square = _product(square, square)
        size >>= 1
    return result


def followed(before: int, after: int, shift_of_after: int) -> int:
    """The CRC-32 of two texts, one after the other, of which only the CRC-32s are known."""
    return _product(before, shift_of_after) ^ after


def _product(one: int, other: int) -> int:
    """Of two polynomials modulo that of CRC-32, as zlib's crc32_combine multiplies them."""
    result = 0
    while one:
        if one & 1 << 31:
            result ^= other
        one = one << 1 & 0xFFFFFFFF
        other = other >> 1 ^ (_POLYNOMIAL if other & 1 else 0)
    return result


def crc(pieces: Iterable[bytes], before: int = 0) -> int:
    """The CRC-32 of the pieces, after others whose CRC-32 is `before`."""
    for piece in pieces:
        before = zlib.crc32(piece, before)
    return before
