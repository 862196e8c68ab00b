"""Chance that is the same every time: numbers and bytes drawn from what they are for."""

from hashlib import blake2b, shake_128

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def draw(*parts: object) -> int:
    """64 bits that depend on `parts` alone."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "big")


def spread(amount: int, *parts: object) -> int:
    """A number from 0 to `amount` - 1 that depends on `parts` alone."""
    return draw(*parts) % amount


def noise(count: int, *parts: object) -> bytes:
    """`count` bytes that depend on `parts` alone."""
    return shake_128(repr(parts).encode()).digest(count)


def code(length: int, *parts: object) -> str:
    """Letters and digits, as in OpenAI's ids."""
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in noise(length, *parts))
