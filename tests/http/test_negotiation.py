"""Which format and encoding a scraper gets."""

import pytest
from prometheus_client.exposition import choose_encoder

from otel_openai_usage.http.negotiation import gzip_accepted, negotiate

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    "accept",
    ["", "*/*", "text/html", "text/plain", "text/plain;version=0.0.4", "text/plain; version=1.0.0", "application/openmetrics-text",
     "application/openmetrics-text; version=1.0.0; escaping=underscores", "application/openmetrics-text;version=0.0.1, text/plain",
     "text/plain;version=1.0.0;escaping=allow-utf-8", PROMETHEUS_2, PROMETHEUS_3],
)  # fmt: skip
def test_formats_are_chosen_as_prometheus_client_does(accept: str) -> None:
    """Content-Type, and with it the format, is what prometheus_client answers to the same Accept."""
    form, content_type = negotiate(accept)
    assert content_type == choose_encoder(accept)[1]
    assert (form == "openmetrics") == content_type.startswith("application/openmetrics-text")


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (
            "text/plain;version=1.0.0;q=0.9, application/openmetrics-text;version=1.0.0;q=0.5",
            "text",
        ),
        (
            "text/plain;version=1.0.0;q=0.5, application/openmetrics-text;version=1.0.0;q=0.9",
            "openmetrics",
        ),
        ("text/plain;q=0.9, application/openmetrics-text;q=0.5", "text"),
        ("text/plain;version=1.0.0, application/openmetrics-text", "text"),
        ("application/openmetrics-text;q=0", "text"),
        ("application/openmetrics-text;q=0.0, text/plain;q=0.1", "text"),
        ("application/openmetrics-text;q=odd", "openmetrics"),
    ],
)
def test_the_greatest_weight_wins(accept: str, form: str) -> None:
    """The greatest weight wins, then the first; 0 excludes, and an invalid weight counts as 1."""
    assert negotiate(accept)[0] == form


def test_an_unsupported_escaping() -> None:
    """A request for the escaping `dots` is answered with `underscores`, and says so."""
    assert negotiate("text/plain;version=1.0.0;escaping=dots")[1].endswith("escaping=underscores")


@pytest.mark.parametrize(
    ("accept", "yes"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000, br", False),
    ],
)
def test_gzip_only_if_it_is_accepted(accept: str, yes: bool) -> None:
    """gzip is used if the header names it with a weight above 0."""
    assert gzip_accepted(accept) is yes
