"""What a scraper accepts: of the formats that prometheus_client would answer with, the one that is
weighed most, else the first.
"""

from typing import Literal

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
TEXT_1 = "text/plain; version=1.0.0; charset=utf-8"
_Item = tuple[str, dict[str, str]]
"""One of the things that are accepted, and its parameters, the weight `q` among them."""


def negotiate(accept: str) -> tuple[Literal["text", "openmetrics"], str]:
    """The format to answer in, and its Content-Type.

    All our names are valid without escaping, so `allow-utf-8` is answered with the same bytes as
    `underscores`.
    """
    for kind, parameters in sorted(map(_parse, accept.split(",")), key=_weight, reverse=True):
        if _weight((kind, parameters)) <= 0:
            break
        version = parameters.get("version", "")
        escaping = "allow-utf-8" if parameters.get("escaping") == "allow-utf-8" else "underscores"
        if kind == "application/openmetrics-text" and not version:
            return "openmetrics", OPENMETRICS
        if kind == "application/openmetrics-text" and _at_least_1(version):
            return "openmetrics", f"{OPENMETRICS}; escaping={escaping}"
        if kind == "text/plain" and _at_least_1(version):
            return "text", f"{TEXT_1}; escaping={escaping}"
        if kind == "text/plain":
            break
    return "text", TEXT


def gzip_accepted(accept_encoding: str) -> bool:
    """Whether the answer may be compressed with gzip."""
    return any(
        item[0] == "gzip" and _weight(item) > 0 for item in map(_parse, accept_encoding.split(","))
    )


def _weight(item: _Item) -> float:
    try:
        return float(item[1].get("q", "1"))
    except ValueError:
        return 1.0


def _parse(item: str) -> _Item:
    kind, *parameters = (part.strip() for part in item.split(";"))
    return kind.lower(), {
        key.strip(): value.strip() for key, _, value in (part.partition("=") for part in parameters)
    }


def _at_least_1(version: str) -> bool:
    major = version.partition(".")[0]
    return major.isdecimal() and int(major) >= 1
