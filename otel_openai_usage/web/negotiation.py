"""What a scraper accepts, read as prometheus_client reads it: the first match wins, weights other than 0 do not count."""

from typing import Literal

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
TEXT_1 = "text/plain; version=1.0.0; charset=utf-8"


def negotiate(accept: str) -> tuple[Literal["text", "openmetrics"], str]:
    """The format to answer in, and its Content-Type.

    All our names are valid without escaping, so `allow-utf-8` is answered with the same bytes as `underscores`.
    """
    for item in accept.split(","):
        kind, parameters = _parse(item)
        version = parameters.get("version", "")
        escaping = "allow-utf-8" if parameters.get("escaping") == "allow-utf-8" else "underscores"
        if kind == "application/openmetrics-text" and not version:
            return "openmetrics", OPENMETRICS
        if kind == "application/openmetrics-text" and _at_least_1(version):
            return "openmetrics", f"{OPENMETRICS}; escaping={escaping}"
        if kind == "text/plain" and _at_least_1(version):
            return "text", f"{TEXT_1}; escaping={escaping}"
    return "text", TEXT


def gzip_accepted(accept_encoding: str) -> bool:
    """Whether the answer may be compressed with gzip."""
    return any(kind == "gzip" and parameters.get("q", "1") not in {"0", "0.0", "0.00", "0.000"}
               for kind, parameters in map(_parse, accept_encoding.split(",")))  # fmt: skip


def _parse(item: str) -> tuple[str, dict[str, str]]:
    kind, *parameters = (part.strip() for part in item.split(";"))
    return kind.lower(), {key.strip(): value.strip() for key, _, value in (part.partition("=") for part in parameters)}


def _at_least_1(version: str) -> bool:
    major = version.partition(".")[0]
    return major.isdecimal() and int(major) >= 1
