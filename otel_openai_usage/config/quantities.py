"""Durations and sizes as they are written in the configuration."""

import re
from datetime import timedelta

_MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_DURATION = re.compile(
    r"(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m(?!s))?(?:([0-9]+)s)?(?:([0-9]+)ms)?"
)
_LONGEST = timedelta(days=36_500)

_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE = re.compile(r"([0-9]{1,18})(B|KiB|MiB|GiB|KB|MB|GB)?")

DURATION_PATTERN = r"^(?=[0-9])([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$"
SIZE_PATTERN = r"^[0-9]+(B|KiB|MiB|GiB|KB|MB|GB)?$"


def parse_duration(text: object) -> timedelta:
    """The duration written as `500ms`, `30s`, `5m`, `3h`, `7d`, or several of them from long to
    short (`1h30m`).

    Whole numbers only, and at most a hundred years. Raises ValueError.
    """
    if isinstance(text, timedelta):
        return text
    match = _DURATION.fullmatch(text) if isinstance(text, str) and text else None
    if match is None:
        raise ValueError(
            f"expected a duration such as 500ms, 30s, 5m, 3h or 7d, got {_shown(text)}"
        )
    found = 0
    for digits, unit in zip(match.groups(), _MILLISECONDS.values(), strict=True):
        # 18 digits are already too long for any unit, and int() refuses thousands of digits with
        # an error of its own.
        significant = (digits or "0").lstrip("0")[:18]
        found += int(significant or 0) * unit
    if found > _LONGEST // timedelta(milliseconds=1):
        raise ValueError(
            f"expected a duration of at most {format_duration(_LONGEST)}, got {text!r}"
        )
    return timedelta(milliseconds=found)


def format_duration(duration: timedelta) -> str:
    """The duration in the largest unit that makes it a whole number (to the millisecond): 90 s are
    `90s`, 60 s `1m`.
    """
    milliseconds = duration // timedelta(milliseconds=1)
    unit = next(
        unit
        for unit, size in _MILLISECONDS.items()
        if milliseconds % size == 0 and (milliseconds or unit == "s")
    )
    return f"{milliseconds // _MILLISECONDS[unit]}{unit}"


def parse_size(value: object) -> int:
    """The bytes written as a number, or as `64KiB`, `1MiB`, `10MB`. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"expected a size such as 64KiB, 1MiB or 10MB, got {_shown(value)}")
    return int(match[1]) * _BYTES[match[2] or "B"]


def format_size(size: int) -> str:
    """The shortest text that `parse_size` reads as this many bytes."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


def _shown(value: object) -> str:
    """What was found; a bare number gets the hint that its unit is missing."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value} without a unit"
    return repr(value)
