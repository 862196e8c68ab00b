"""Texts that are compressed apart, and sent as one."""

import gzip
from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st

from otel_openai_usage.exporters.prometheus.gzip_member import (
    CompressedText,
    crc32_combine_gen,
    crc32_combine_op,
)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_the_crc_of_two_texts_follows_from_the_crc_of_each(first: bytes, second: bytes) -> None:
    """Besides the two CRC-32 only the size of the second text is needed."""
    operator = crc32_combine_gen(len(second))
    assert crc32_combine_op(crc32(first), crc32(second), operator) == crc32(first + second)


def test_the_crc_of_a_long_text_can_be_combined() -> None:
    """A million series have more than 2**24 bytes."""
    long = bytes(40_000_001)
    operator = crc32_combine_gen(len(long))
    assert crc32_combine_op(crc32(b"a"), crc32(long), operator) == crc32(b"a" + long)


@given(st.lists(st.text(max_size=50), max_size=5), st.binary(max_size=50))
def test_joined_texts_are_one_gzip_member(texts: list[str], more: bytes) -> None:
    """Decompressed, the member is every text in order, and what was added last."""
    joined = CompressedText.joined(map(CompressedText.from_text, texts))
    member = b"".join(joined.gzip_member(more))
    assert gzip.decompress(member) == "".join(texts).encode() + more
