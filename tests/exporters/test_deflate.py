"""Checksums of what is strung together."""

from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st

from otel_openai_usage.exporters.prometheus.deflate import followed, shift


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_a_checksum_of_two_texts_needs_neither(one: bytes, other: bytes) -> None:
    """It follows from the checksum of each, and from how long the second is."""
    assert followed(crc32(one), crc32(other), shift(len(other))) == crc32(one + other)


def test_long_texts_too() -> None:
    """Sizes beyond 2**24 are met at a million series."""
    assert followed(crc32(b"a"), crc32(bytes(40_000_001)), shift(40_000_001)) == crc32(
        b"a" + bytes(40_000_001)
    )
