"""What a scraper accepts.

Of the formats that prometheus_client would answer with, the one with the greatest weight is chosen,
and the first of several with the same weight.
"""

from dataclasses import dataclass
from typing import Literal

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
TEXT_1 = "text/plain; version=1.0.0; charset=utf-8"


@dataclass(frozen=True, slots=True)
class _Accepted:
    """One item of an Accept or Accept-Encoding header."""

    name: str
    weight: float
    version: str
    escaping: str


def negotiate(accept: str) -> tuple[Literal["text", "openmetrics"], str]:
    """Return the format to answer in, and its Content-Type.

    All our names are valid without escaping. So the answer to `allow-utf-8` has the same bytes as
    the one to `underscores`.
    """
    for item in sorted(_parse(accept), key=lambda item: item.weight, reverse=True):
        if item.weight <= 0:
            break
        is_version_1 = _is_at_least_1(item.version)
        if item.name == "application/openmetrics-text":
            if not item.version:
                return "openmetrics", OPENMETRICS
            if is_version_1:
                return "openmetrics", f"{OPENMETRICS}; escaping={item.escaping}"
        elif item.name == "text/plain":
            if is_version_1:
                return "text", f"{TEXT_1}; escaping={item.escaping}"
            # Any other version of the text format is answered with 0.0.4.
            break
    return "text", TEXT


def gzip_accepted(accept_encoding: str) -> bool:
    """Return whether the answer may be compressed with gzip."""
    return any(item.name == "gzip" and item.weight > 0 for item in _parse(accept_encoding))


def _parse(header: str) -> list[_Accepted]:
    return [_parse_item(item) for item in header.split(",")]


def _parse_item(item: str) -> _Accepted:
    name, *parts = item.split(";")
    parameters: dict[str, str] = {}
    for part in parts:
        key, _, value = part.partition("=")
        parameters[key.strip()] = value.strip()
    allows_utf_8 = parameters.get("escaping") == "allow-utf-8"
    return _Accepted(
        name=name.strip().lower(),
        weight=_weight(parameters.get("q", "1")),
        version=parameters.get("version", ""),
        escaping="allow-utf-8" if allows_utf_8 else "underscores",
    )


def _weight(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0  # as prometheus_client has it


def _is_at_least_1(version: str) -> bool:
    major = version.partition(".")[0]
    return major.isdecimal() and int(major) >= 1
