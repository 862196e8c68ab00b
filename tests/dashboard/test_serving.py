"""How the dashboard is served: its addresses, its prefix, its limits."""

import http.client
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_openai_usage.composition.stores import queries_opener
from otel_openai_usage.config import load
from otel_openai_usage.dashboard import wsgi
from otel_openai_usage.dashboard.server import Server
from otel_openai_usage.dashboard.store_watcher import StoreWatcher
from otel_openai_usage.errors import ConfigError
from tests.dashboard.scene import NOW


@pytest.fixture
def server(path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A dashboard, below the prefix that a test asks for."""
    watcher = StoreWatcher(queries_opener(path), clock=lambda: NOW)
    watcher.refresh()
    made = Server(watcher, host="127.0.0.1", port=0, prefix=getattr(request, "param", "/"))
    made.start()
    yield made
    made.close()


def port_of(server: Server) -> int:
    """Where it listens."""
    return int(server.url.split(":")[2].partition("/")[0])


def get(server: Server, path: str, host: str = "localhost") -> tuple[int, str]:
    """Status and text of a page."""
    connection = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=10)
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def connect(server: Server, sent: bytes = b"") -> socket.socket:
    """A connection on which something was sent."""
    sock = socket.create_connection(("127.0.0.1", port_of(server)), timeout=10)
    sock.sendall(sent)
    return sock


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST", "localhost.", "LocalHost.:80", "127.0.0.1", "127.1.2.3", "[::1]"],
)
def test_every_name_of_this_machine_is_answered(server: Server, host: str) -> None:
    """localhost in any case, with a dot or a port, and every loopback address."""
    assert get(server, "/", host)[0] == 200


@pytest.mark.parametrize("host", ["example.com", "localhost.example.com", "10.0.0.1", "", "a b"])
def test_a_foreign_name_is_refused(server: Server, host: str) -> None:
    """A page of another site cannot reach the dashboard by a name that it points here."""
    assert get(server, "/", host)[0] in (400, 403)


@pytest.mark.parametrize(
    "page", ["/nope", "/index.html", "/table", "/a/b?period=7d", "/%3Cscript%3E"]
)
def test_an_unknown_page_is_404_in_words(server: Server, page: str) -> None:
    """An unknown path gets an answer in words, with the path escaped."""
    status, text = get(server, page)
    assert status == 404
    assert "There is no page" in text
    assert "<script>" not in text


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("period=foo", "period: expected one of 7d, 30d"),
        ("period=2026-11-05..2026-11-01", "2026-11-01..2026-11-30"),
        ("by=colour", "by: expected one of model, project"),
        ("cost=free", "cost: expected one of billed, estimated"),
        ("sort=age", "sort: expected one of name"),
        ("rows=5", "rows: expected one of all"),
        ("colour=red&period=7d", "colour: unknown; known here are organization, period"),
    ],
)
@pytest.mark.parametrize("page", ["/", "/table.csv"])
def test_an_unknown_parameter_is_400_in_words(
    server: Server, page: str, query: str, said: str
) -> None:
    """An unknown parameter or value is named, with those that are allowed."""
    status, text = get(server, f"{page}?{query}")
    assert status == 400
    assert said in text


def test_known_parameters_are_answered(server: Server) -> None:
    """An address with every parameter is a page."""
    query = "period=2026-11-01..2026-11-20&by=project&cost=billed&sort=-cost&rows=all&model=gpt-4o"
    assert get(server, f"/?{query}")[0] == 200
    assert get(server, "/?period=")[0] == 200


@pytest.mark.parametrize("server", ["/openai/usage/"], indirect=True)
def test_a_proxy_may_keep_the_prefix_or_take_it_off(server: Server) -> None:
    """Below a prefix the page, its scripts and its CSV are found either way, and the page names
    the prefix.
    """
    assert server.url.endswith("/openai/usage")
    for start in ("/openai/usage", ""):
        status, text = get(server, f"{start}/")
        assert status == 200
        assert "requests_pathname_prefix" in text
        assert 'src="/openai/usage/_dash-component-suites/' in text
        assert get(server, f"{start}/_dash-layout")[0] == 200
        assert get(server, f"{start}/table.csv?by=project")[0] == 200
        assert get(server, f"{start}/nope")[0] == 404
    assert get(server, "/openai/usage")[0] == 308


def test_settings_say_where(tmp_path: Path) -> None:
    """`dashboard.prefix` begins and ends with a slash; what is no path is refused."""
    assert load(None, {}, {"dashboard.prefix": "/a"}).dashboard.prefix == "/a/"
    assert load(None, {}).dashboard.prefix == "/"
    for wrong in ("a", "//a", "/a?b", "http://a/"):
        with pytest.raises(ConfigError, match=r"dashboard\.prefix"):
            load(None, {}, {"dashboard.prefix": wrong})


def test_an_address_for_everybody_is_warned_about(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond loopback the log says that there is no password; on loopback it does not."""
    for host, expected in (("0.0.0.0", ["dashboard_open"]), ("127.0.0.1", [])):
        caplog.clear()
        made = Server(StoreWatcher(queries_opener(path)), host=host, port=0)
        made.start()
        made.close()
        assert [record.__dict__["event"] for record in caplog.records] == expected


def test_no_development_server(server: Server) -> None:
    """The answers are of a server that is made for production, and do not name it."""
    with connect(server, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n") as sock:
        head = sock.recv(65536).split(b"\r\n\r\n")[0].lower()
    assert b"werkzeug" not in head
    assert b"server: otel-openai-usage" in head


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nX-slow: ",
        b"POST /_dash-update-component HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n{",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\r\n\r\n",
        b"GET /_dash-layout HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20,
    ],
    ids=["silence", "head", "body", "idle", "nonsense", "unread"],
)
def test_the_page_is_answered_among_many_connections(
    server: Server, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many connections a client holds, the next one is answered."""
    monkeypatch.setattr(wsgi, "CONNECTIONS", 10)
    held = []
    for _ in range(4):
        held += [connect(server, sent) for _ in range(10)]
        deadline = time.monotonic() + 10
        while get(server, "/healthz")[0] != 200:  # served ones keep their place for a moment
            assert time.monotonic() < deadline
    for sock in held:
        sock.close()


def test_a_slow_request_is_cut_off(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head or a body that does not come to its end loses its connection."""
    monkeypatch.setattr(wsgi, "REQUEST", 0.3)
    head = (
        b"POST /_dash-update-component HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"
    )
    for sent in (b"GET / HT", head, b""):
        with connect(server, sent) as sock:
            assert sock.recv(1024) == b""


def test_a_request_that_is_too_large_is_refused(server: Server) -> None:
    """Heads over 32 KiB and bodies over 1 MiB are refused in words."""
    large = b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-a: b\r\n" * 6000 + b"\r\n"
    with connect(server) as sock:
        sock.sendall(large)
        assert b" 431 " in sock.recv(1024)
    body = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n"
    with connect(server, body) as sock:
        assert b" 413 " in sock.recv(1024)
