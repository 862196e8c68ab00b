"""TLS and basic auth by a web config file."""

import asyncio
import os
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import bcrypt
import pytest
from aiohttp import encode_basic_auth as basic

from otel_openai_usage.errors import ConfigError
from otel_openai_usage.exporters.prometheus.reader import PrometheusReader
from otel_openai_usage.http import access
from otel_openai_usage.http.server import Server
from otel_openai_usage.http.web_config import WebConfig, read
from tests.exporters.boards import ORGANIZATION, board
from tests.http.certificates import Authority

PASSWORD = "correct horse battery staple, of which bcrypt reads only the first seventy-two bytes"
HASH = bcrypt.hashpw(PASSWORD.encode()[:72], bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$")
SLOW = bcrypt.hashpw(b"slow", bcrypt.gensalt(12)).decode()

TLS_KEYS = (
    "cert_file",
    "key_file",
    "client_auth_type",
    "client_ca_file",
    "min_version",
    "max_version",
    "prefer_server_cipher_suites",
)
CLIENTS = ("NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert")
HEADERS = (
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
    "Content-Security-Policy",
)

Serve = Callable[[str], Awaitable[Server]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts a server with this web config file."""
    started: list[Server] = []

    async def start(text: str) -> Server:
        (tmp_path / "web.yml").write_text(text)
        shown = board(ORGANIZATION)
        server = Server(
            PrometheusReader(shown),
            shown,
            list,
            host="127.0.0.1",
            port=0,
            web_config_file=tmp_path / "web.yml",
        )
        await server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        await server.stop()


async def status(url: str, auth: str = "", tls: ssl.SSLContext | None = None) -> int:
    """The HTTP status of a GET."""
    headers = {"Authorization": auth} if auth else {}
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, ssl=tls or True, headers=headers) as answer,
    ):
        return answer.status


async def test_every_path_but_the_probes_needs_a_password(serve: Serve) -> None:
    """Without the right credentials a path is 401; /healthz and /readyz need none."""
    server = await serve(f"basic_auth_users: {{prom: {HASH}}}")
    for path in ("/healthz", "/readyz"):
        assert await status(server.url + path) == 200
        assert await status(server.url + path, basic("prom", "wrong")) == 200
    for path in ("/metrics", "/"):
        assert await status(server.url + path) == 401
        for wrong in (
            basic("prom", "wrong"),
            basic("nobody", PASSWORD),
            basic("prom", ""),
            basic("", PASSWORD),
        ):
            assert await status(server.url + path, wrong) == 401
        assert await status(server.url + path, basic("prom", PASSWORD)) == 200
    assert await status(server.url + "/nothing", basic("prom", PASSWORD)) == 404


async def test_a_refusal_names_the_scheme(serve: Serve) -> None:
    """401 has WWW-Authenticate: Basic; another scheme is refused, too."""
    server = await serve(f"basic_auth_users: {{prom: {HASH}}}")
    async with aiohttp.ClientSession() as session:
        nul = basic("prom", "a\0b")
        odd_ones = (
            "Basic",
            "Basic %%%",
            "Basic bm9jb2xvbg==",
            "Bearer x",
            "Basic gICA",
            "Basic é",
            nul,
        )
        for odd in odd_ones:
            async with session.get(server.url, headers={"Authorization": odd}) as answer:
                assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Basic")


async def test_a_password_is_compared_once(serve: Serve) -> None:
    """Only the first scrape waits for bcrypt."""
    server = await serve(f"basic_auth_users: {{prom: {SLOW}}}")
    began = time.process_time()
    assert await status(server.url + "/", basic("prom", "slow")) == 200
    first = time.process_time() - began
    began = time.process_time()
    for _ in range(5):
        assert await status(server.url + "/", basic("prom", "slow")) == 200
    assert (time.process_time() - began) / 5 < first / 2


async def test_the_loop_runs_on_while_a_password_is_compared(serve: Serve) -> None:
    """A password is compared in a thread, not in the event loop."""
    server = await serve(f"basic_auth_users: {{prom: {SLOW}}}")
    asked = asyncio.create_task(status(server.url + "/", basic("prom", "slow")))
    turns = 0
    while not asked.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 20


async def test_a_changed_file_is_used_at_once(serve: Serve, tmp_path: Path) -> None:
    """The next request needs the new password; an unusable file changes nothing."""
    server = await serve(f"basic_auth_users: {{prom: {HASH}}}")
    for text in (f"basic_auth_users: {{other: {HASH}}}", "basic_auth_users: [nonsense"):
        rewrite(tmp_path / "web.yml", text)
        assert await status(server.url, basic("prom", PASSWORD)) == 401
        assert await status(server.url, basic("other", PASSWORD)) == 200


@pytest.mark.parametrize(
    "text", ["", "\n", "{}", "basic_auth_users: {}", "basic_auth_users:", None]
)
async def test_an_emptied_file_keeps_the_passwords(
    serve: Serve, tmp_path: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """If the file is emptied or removed, that is logged and the passwords stay in force."""
    server = await serve(f"basic_auth_users: {{prom: {HASH}}}")
    if text is None:
        (tmp_path / "web.yml").unlink()
    else:
        rewrite(tmp_path / "web.yml", text)
    for _ in range(3):
        assert await status(server.url + "/metrics") == 401
        assert await status(server.url + "/metrics", basic("prom", PASSWORD)) == 200
    expected = [event for record in caplog.records if (event := record.__dict__.get("event"))]
    assert expected == ["web_config_refused"]
    (tmp_path / "web.yml").write_text(f"basic_auth_users: {{other: {HASH}}}")
    os.utime(tmp_path / "web.yml", ns=(0, 2_000_000_000))
    assert await status(server.url + "/metrics", basic("other", PASSWORD)) == 200


async def test_an_endless_file_delays_no_scrape(serve: Serve, tmp_path: Path) -> None:
    """A file of 30 MB is refused without being read to the end, and the last good one stays."""
    server = await serve(f"basic_auth_users: {{prom: {HASH}}}")
    rewrite(tmp_path / "web.yml", "# " + "x" * 30_000_000)
    began = time.monotonic()
    for _ in range(3):
        assert await status(server.url + "/metrics", basic("prom", PASSWORD)) == 200
        assert await status(server.url + "/metrics", basic("prom", "wrong")) == 401
    assert time.monotonic() - began < 5
    with pytest.raises(ConfigError, match="larger than 256 KiB"):
        read(tmp_path / "web.yml")


async def test_a_slow_reading_delays_a_scrape_by_less_than_a_second(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a changed file is still being read, the last good one is in force."""
    server = await serve(f"basic_auth_users: {{prom: {HASH}}}")
    may_end = threading.Event()

    def slow(path: Path) -> WebConfig:
        may_end.wait(20)
        return read(path)

    monkeypatch.setattr(access, "read", slow)
    rewrite(tmp_path / "web.yml", f"basic_auth_users: {{other: {HASH}}}")
    began = time.monotonic()
    assert await status(server.url + "/metrics", basic("prom", PASSWORD)) == 200
    assert time.monotonic() - began < 3
    may_end.set()


async def test_an_unusable_hash_in_a_changed_file(serve: Serve, tmp_path: Path) -> None:
    """A changed file with a hash that bcrypt refuses leaves the last good one in force."""
    server = await serve(f"basic_auth_users: {{prom: {HASH}}}")
    rewrite(tmp_path / "web.yml", f"basic_auth_users: {{prom: {HASH.replace('$04$', '$03$')}}}")
    assert await status(server.url + "/metrics", basic("prom", PASSWORD)) == 200
    assert await status(server.url + "/metrics", basic("prom", "wrong")) == 401


@pytest.mark.parametrize(
    "hashed",
    [
        HASH.replace("$2y$", "$2$"),
        HASH.replace("$04$", "$03$"),
        HASH.replace("$04$", "$32$"),
        HASH.replace("$04$", "$31$"),
        HASH[:28] + "z" + HASH[29:],
    ],
    ids=["version", "cost 3", "cost 32", "cost 31", "salt"],
)
def test_an_unusable_hash_is_an_error_at_the_start(tmp_path: Path, hashed: str) -> None:
    """A bcrypt hash that cannot be used is a ConfigError with file and user, without the hash."""
    [expected] = problems(tmp_path, f"basic_auth_users: {{prom: {hashed}}}")
    assert expected.startswith("web.yml: basic_auth_users.prom: ")
    assert hashed[8:] not in expected


async def test_wrong_passwords_delay_nobody_else(serve: Serve) -> None:
    """While many wrong passwords wait, a right one and the probes are answered."""
    server = await serve(f"basic_auth_users: {{prom: {SLOW}}}")
    assert await status(server.url + "/", basic("prom", "slow")) == 200
    guesses = [
        asyncio.create_task(status(server.url + "/", basic("prom", f"{number}")))
        for number in range(40)
    ]
    assert await status(server.url + "/healthz") == 200
    assert await status(server.url + "/", basic("prom", "slow")) == 200
    assert set(await asyncio.gather(*guesses)) == {401, 503}


def test_a_change_while_the_file_is_read_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is written between reading it and noting its time is read again."""
    path = tmp_path / "web.yml"
    header = "http_server_config: {{headers: {{X-Frame-Options: {}}}}}\n"
    path.write_text(header.format("deny"))
    protection = access.Access(path)
    asyncio.run(settled(protection))
    contents = iter(["sameorigin"])

    def read_late(file: Path) -> WebConfig:
        config = read(file)
        for value in contents:
            path.write_text(header.format(value))
        return config

    monkeypatch.setattr(access, "read", read_late)
    path.write_text(header.format("deny") + "# changed\n")
    asyncio.run(settled(protection))
    asyncio.run(settled(protection))
    assert protection.headers["X-Frame-Options"] == "sameorigin"


async def settled(protection: access.Access) -> None:
    """What a request waits for: the file is read if it changed."""
    await asyncio.wrap_future(protection._start_reading())


def rewrite(path: Path, text: str) -> None:
    """Write so that the time stamp is another in any case."""
    path.write_text(text)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000))


async def test_tls(serve: Serve, tmp_path: Path) -> None:
    """With a certificate the listener speaks TLS 1.2 or newer only, and adds the headers of the file."""
    authority = Authority(tmp_path)
    authority.issue("server")
    server = await serve("""
tls_server_config: {cert_file: server.crt, key_file: server.key, min_version: TLS12}
http_server_config: {http2: true, headers: {X-Frame-Options: deny, Strict-Transport-Security: max-age=3600}}
""")
    assert server.url.startswith("https://127.0.0.1:")
    trusting = ssl.create_default_context(cafile=str(authority.file))
    async with (
        aiohttp.ClientSession() as session,
        session.get(server.url + "/metrics", ssl=trusting) as answer,
    ):
        assert (answer.status, answer.headers["X-Frame-Options"]) == (200, "deny")
        assert (await answer.text()).startswith("# HELP openai_api_tokens_total")
    with pytest.raises(aiohttp.ClientError):
        await status(server.url.replace("https", "http"))
    with pytest.raises(aiohttp.ClientSSLError):
        await status(server.url)


async def test_a_client_needs_a_certificate(serve: Serve, tmp_path: Path) -> None:
    """RequireAndVerifyClientCert lets in clients of the CA and no others."""
    authority = Authority(tmp_path)
    stranger = Authority(tmp_path, "stranger")
    authority.issue("server")
    server = await serve("""
tls_server_config:
  cert_file: server.crt
  key_file: server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: authority.pem
""")
    for client, welcome in (
        (authority.issue("friend"), True),
        (stranger.issue("foe"), False),
        (None, False),
    ):
        context = ssl.create_default_context(cafile=str(authority.file))
        if client:
            context.load_cert_chain(*client)
        if welcome:
            assert await status(server.url, tls=context) == 200
        else:
            with pytest.raises(aiohttp.ClientError):
                await status(server.url, tls=context)


async def test_a_renewed_certificate_is_used_at_once(serve: Serve, tmp_path: Path) -> None:
    """The next connection uses a renewed certificate; one that does not fit its key is ignored."""
    authority = Authority(tmp_path)
    authority.issue("server")
    server = await serve("tls_server_config: {cert_file: server.crt, key_file: server.key}")
    port = int(server.url.rpartition(":")[2])
    loop = asyncio.get_running_loop()
    before = await loop.run_in_executor(None, ssl.get_server_certificate, ("127.0.0.1", port))
    certificate, key = authority.issue("server")
    renewed = certificate.read_text()
    assert (
        await loop.run_in_executor(None, ssl.get_server_certificate, ("127.0.0.1", port))
        == renewed
        != before
    )
    rewrite(key, "nonsense")
    assert (
        await loop.run_in_executor(None, ssl.get_server_certificate, ("127.0.0.1", port)) == renewed
    )


def problems(folder: Path, text: str) -> list[str]:
    """Return the problems of this file, without its path."""
    path = folder / "web.yml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read(path)
    return [problem.replace(f"{folder}/", "") for problem in caught.value.problems]


def test_every_problem_is_reported(tmp_path: Path) -> None:
    """All problems of a file are reported together, each with its key."""
    expected = problems(
        tmp_path,
        """
tls_servr_config: {}
rate_limit: {interval: 1s}
tls_server_config:
  cert: inline
  client_auth_type: RequestClientCert
  min_version: TLS14
  curve_preferences: [X25519]
  key_file: 5
  tls: yes
http_server_config: {http3: true, headers: {X-Frame-Options: allow, Server: me}}
basic_auth_users: {prom: plain-text-password}
""",
    )
    assert expected == [
        "web.yml: tls_servr_config: unknown key; known here are tls_server_config, http_server_config, basic_auth_users",
        "web.yml: rate_limit: not supported here; limit requests in a proxy in front",
        "web.yml: tls_server_config.cert: not supported here; put the certificate into a file and name it as cert_file",
        "web.yml: tls_server_config.curve_preferences: not supported here; Python's own choice is used",
        "web.yml: tls_server_config.tls: unknown key; known here are " + ", ".join(TLS_KEYS),
        "web.yml: tls_server_config.client_auth_type: expected one of "
        + ", ".join(CLIENTS)
        + ", got 'RequestClientCert'",
        "web.yml: tls_server_config.cert_file: expected the path of a PEM file, got ''",
        "web.yml: tls_server_config.key_file: expected the path of a PEM file, got 5",
        "web.yml: tls_server_config.min_version: expected one of TLS10, TLS11, TLS12, TLS13, got 'TLS14'",
        "web.yml: basic_auth_users.prom: expected a bcrypt hash, as `htpasswd -nBC 10 ''` prints it, not the password",
        "web.yml: http_server_config.http3: unknown key; known here are http2, headers",
        "web.yml: http_server_config.headers.Server: unknown key; known here are "
        + ", ".join(HEADERS),
        "web.yml: http_server_config.headers.X-Frame-Options: expected deny or sameorigin, got 'allow'",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("basic_auth_users: [", "not YAML"),
        ("- a list", "expected keys and values, got list"),
        ("tls_server_config: {cert_file: a.crt, key_file: a.key}", "a.crt"),
        (
            "tls_server_config: {cert_file: a.crt, key_file: a.key, client_ca_file: c.pem}",
            "needs RequireAndVerifyClientCert",
        ),
        (
            "tls_server_config: {cert_file: a.crt, key_file: a.key, client_auth_type: RequireAndVerifyClientCert}",
            "client_ca_file",
        ),
    ],
)
def test_an_unusable_file_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    """An unusable file, or one that names unusable files, is a ConfigError with the place."""
    assert expected in "\n".join(problems(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A missing web config file is a ConfigError; the listener does not start without it."""
    with pytest.raises(ConfigError, match=r"web\.yml: No such file"):
        read(tmp_path / "web.yml")


def test_an_empty_file_asks_for_nothing(tmp_path: Path) -> None:
    """An empty file means plain HTTP without passwords, as in exporter-toolkit."""
    (tmp_path / "web.yml").write_text("")
    config = read(tmp_path / "web.yml")
    assert (config.tls, config.users, config.headers) == (None, {}, {})
