"""The URL that a Meter is given: where events go, what is shown of it, and what is refused."""

import base64
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from clients.python.tests.conftest import in_thread
from otel_openai_metering import Meter
from otel_openai_metering.address import Address
from otel_openai_metering.sender import Sender
from otel_openai_usage.simulator.server import running

SECRETS = ("s3cret", "p%40ss", "p@ss", "k3y")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://h", "http://h/api/v1/events"), ("http://h:8888/", "http://h:8888/api/v1/events"),
        ("https://h/a/", "https://h/a/api/v1/events"), ("http://h/a/events/", "http://h/a/events"),
        ("http://h?q=1", "http://h/api/v1/events?q=1"), ("http://h/a/?q=1&r=%20/", "http://h/a/api/v1/events?q=1&r=%20/"),
        ("http://h/a/events?q=1", "http://h/a/events?q=1"), ("http://h/a#part", "http://h/a/api/v1/events"),
        ("http://h/#part?q", "http://h/api/v1/events"), (" HTTP://H/a b ", "http://h/a%20b/api/v1/events"),
        ("http://[::1]:8888", "http://[::1]:8888/api/v1/events"), ("http://h\u00e9.invalid", "http://xn--h-bga.invalid/api/v1/events"),
    ],
)  # fmt: skip
def test_the_path_is_put_where_a_path_belongs(url: str, address: str) -> None:
    """Before a query; a fragment is no part of a request."""
    made = Address.of(url)
    assert (made.url, made.shown) == (address, address.partition("?")[0])


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x", "localhost:8888", "not a url", "http://", "http://:80", "http://[::1", "http://[x]", "http://h:99999", "http://h:port",
        "http://a..b", "http://" + "a" * 70 + ".example", "http://a b", "http://a\0b", "http://u:s3cret@", "http://u:s3cret/x@h",
        "http://u:s3cret?@h:x", "//u:s3cret@h", "s3cret:s3cret@h", "http://u:s3cret\u2100@h", "http://u:s3cret@[::1",
    ],
)  # fmt: skip
def test_a_url_that_no_request_can_have_is_refused_at_the_start(url: str) -> None:
    """By a sentence that does not show it: it may have a password in any place."""
    with pytest.raises(
        ValueError, match=r"^url: expected http://host or https://host, but"
    ) as error:
        Meter(url, spool=False, env={})
    assert "s3cret" not in repr(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None


@pytest.mark.parametrize("spool", ["\0", "a\0b", "\ud800", 5])
def test_a_spool_that_no_file_system_can_have_is_refused_at_the_start(spool: str) -> None:
    """Later it would end in a traceback at every batch."""
    with pytest.raises(ValueError, match=r"^spool: expected the path of a folder"):
        Meter("http://h", spool=spool, env={})


def test_a_user_and_a_token_exclude_each_other() -> None:
    """There is one Authorization header."""
    with pytest.raises(ValueError, match=r"^url: it has a user, and there is a token too"):
        Sender("http://u:s3cret@h", "token")


def test_a_user_is_sent_and_shown_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As basic authentication, with its percent signs decoded; whatever the server answers, even
    with what it was sent, no log has the password or the query.
    """
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []
    answers = [503, 400, 302, 200, 401, 204]

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        said = f"{request.headers['Authorization']} {request.path_qs} p@ss"
        headers = {"Location": "http://u:p%40ss@elsewhere/x?k3y#k3y"}
        return web.Response(status=answers.pop(0), headers=headers, text=said)

    @asynccontextmanager
    async def serve() -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        async with running(app) as url:
            yield url

    with in_thread(serve) as url:
        sender = Sender(url.replace("//", "//us%3Ar:p%40ss@") + "?key=k3y", None)
        outcomes = [sender.send([{"id": "1"}]) for _ in range(6)]
        basic = base64.b64encode(b"us:r:p@ss").decode()
    outcomes.append(sender.send([{"id": "1"}]))  # nothing listens any more
    assert seen == [f"Basic {basic}"] * 6
    assert [outcome.what for outcome in outcomes] == [
        "later", "refused", "later", "later", "later", "sent", "later",
    ]  # fmt: skip
    assert "redirects to http://elsewhere/x;" in outcomes[2].why
    with Meter("http://u:p%40ss@127.0.0.1:1/?k3y", spool=tmp_path, env={}) as meter:
        meter.record({"id": "1", "usage": {"input_tokens": 5}}, "alice")
        meter.flush()
        shown = (
            f"{outcomes} {caplog.text} {meter!r} {vars(meter)} {vars(meter._sender)['_address']!r}"
        )
    assert "http://127.0.0.1:1/api/v1/events: " in caplog.text
    for secret in (*SECRETS, basic):
        assert secret not in shown


def test_a_proxy_s_password_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """An odd proxy variable is an error of the network, said without the variable."""
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    for proxy in ("http:s3cret", "http://u:s3cret@h:port", "http://u:s3cret@[::1"):
        monkeypatch.setenv("http_proxy", proxy)
        outcome = Sender("http://h.invalid", None).send([{"id": "1"}])
        assert outcome.what == "later"
        assert "s3cret" not in outcome.why


def test_nothing_that_is_refused_at_the_start_delays_the_exit(tmp_path: Path) -> None:
    """A spool in a place that is none is an outage of the disk, and ends with the meter."""
    (tmp_path / "file").write_text(json.dumps({}))
    began = time.monotonic()
    with Meter("http://127.0.0.1:1", spool=tmp_path / "file" / "x", env={}) as meter:
        meter.record({"id": "1", "usage": {"input_tokens": 5}}, "alice")
    assert time.monotonic() - began < 3
    assert meter.counts.dropped == 1
