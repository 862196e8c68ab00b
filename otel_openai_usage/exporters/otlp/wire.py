"""Fields of protocol buffers whose content is encoded already.

https://protobuf.dev/programming-guides/encoding describes the format.
"""

LENGTH_DELIMITED = 2
"""The wire type of messages and strings."""


def length_delimited_tag(field_number: int) -> bytes:
    """Return the bytes that announce a message or a string in the field with this number."""
    return varint(field_number << 3 | LENGTH_DELIMITED)


def field(tag: bytes, body: bytes) -> bytes:
    """Return a length-delimited field: its tag, the length of its body, and the body."""
    return tag + varint(len(body)) + body


def varint(number: int) -> bytes:
    """Return a number, at least 0, as groups of seven bits, the lowest group first."""
    # Nearly every length is below 2**14, and this runs once for each point.
    if number < 0x80:
        return bytes((number,))
    lowest = number & 0x7F | 0x80
    if number < 0x4000:
        return bytes((lowest, number >> 7))
    return bytes((lowest,)) + varint(number >> 7)
