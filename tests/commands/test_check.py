"""`check`: what it finds about keys, scopes, clocks, collectors and state files, and that it
changes nothing.
"""

import asyncio
import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from aiohttp import web

from otel_openai_usage.commands.check import Finding, findings
from otel_openai_usage.config import load
from otel_openai_usage.storage.sqlite.store import Store
from tests.exporters.collectors import grpc_collector, http_collector
from tests.storage.test_marker import Time, killed
from tests.storage.test_store import NOON

SCOPE = {
    "error": {
        "message": "You have insufficient permissions for this operation. Missing scopes: api.management.read."
    }
}
EMPTY = {"object": "page", "data": [], "has_more": False, "next_page": None}


class Upstream:
    """OpenAI by script: per path a status and a body; remembers what it was asked. `date` is its
    clock.
    """

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, dict[str, Any]]] = {}
        self.date: str | None = None
        self.asked: list[str] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        """What the script says; an empty page where it says nothing."""
        path = request.path.removeprefix("/v1/organization/")
        self.asked.append(path)
        status, body = self.answers.get(path, (200, EMPTY))
        return web.json_response(
            body, status=status, headers={"Date": self.date} if self.date else {}
        )

    @asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        """Serve it on a free port."""
        app = web.Application()
        app.router.add_get("/{path:.*}", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        yield
        await runner.cleanup()


@pytest.fixture
def upstream() -> Any:
    """A scripted OpenAI, in a thread of its own, because `findings` runs a loop itself."""
    up = Upstream()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    ready = asyncio.run_coroutine_threadsafe

    async def life(started: asyncio.Event) -> None:
        async with up.served():
            started.set()
            await stop.wait()

    started = asyncio.Event()
    thread = Thread(target=loop.run_until_complete, args=(life(started),))
    thread.start()
    ready(started.wait(), loop).result(10)
    yield up
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


Look = Callable[..., dict[str, list[Finding]]]


@pytest.fixture
def look(upstream: Upstream, tmp_path: Path) -> Look:
    """What `check` finds, by subject."""

    def found(text: str = "", offline: bool = False, **env: str) -> dict[str, list[Finding]]:
        file = tmp_path / "config.yaml"
        file.write_text("prices: {enabled: false}\n" + text)
        given = {
            "OPENAI_ADMIN_KEY": "sk-admin-hush",
            "OPENAI_BASE_URL": upstream.url,
            "XDG_STATE_HOME": str(tmp_path),
            "OTEL_EXPORTER_PROMETHEUS_PORT": "0",
        } | env
        result: dict[str, list[Finding]] = {}
        for finding in findings(load(file, given), given, offline=offline):
            result.setdefault(finding.subject.removeprefix("default: "), []).append(finding)
        return result

    return found


def levels(found: dict[str, list[Finding]]) -> dict[str, list[str]]:
    """The levels, by subject."""
    return {subject: [finding.level for finding in several] for subject, several in found.items()}


def test_all_is_well(look: Look, upstream: Upstream, tmp_path: Path) -> None:
    """A good key with every scope: everything is ok, five cheap calls are made, and no state file
    appears.
    """
    assert levels(look()) == {
        "configuration": ["ok"],
        "key": ["ok"],
        "usage": ["ok"],
        "costs": ["ok"],
        "names": ["ok", "ok"],
        "limits": ["ok"],
        "clock": ["ok"],
        "state": ["ok"],
        "disk": ["ok"],
        "prometheus": ["ok"],
    }
    assert sorted(upstream.asked) == [
        "costs",
        "projects",
        "spend_limit",
        "usage/completions",
        "users",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml"]


def test_missing_scopes_are_named(look: Look, upstream: Upstream) -> None:
    """A scope that names and limits need is a warning, one that usage needs a failure; both say
    which.
    """
    upstream.answers = dict.fromkeys(
        ("projects", "users", "spend_limit", "usage/completions"), (403, SCOPE)
    )
    found = look()
    assert (levels(found)["usage"], levels(found)["names"], levels(found)["limits"]) == (
        ["fail"],
        ["warn", "warn"],
        ["warn"],
    )
    assert "api.management.read" in found["names"][0].told
    assert "names.enabled: false" in found["names"][0].told


def test_the_organization_is_told(look: Look, upstream: Upstream) -> None:
    """Costs tell whose key it is; another id in the configuration is a warning."""
    results = [{"organization_id": "org-1"}, {"organization_id": "org-1"}]
    upstream.answers = {"costs": (200, EMPTY | {"data": [{"results": results}]})}
    assert [finding.told for finding in look()["organization"]] == ["org-1"]
    other = look(OPENAI_ORG_ID="org-2")["organization"][0]
    assert other.level == "warn"
    assert "org-1" in other.told
    assert "org-2" in other.told


def test_a_wrong_key_is_said_once(look: Look, upstream: Upstream) -> None:
    """A key that is refused everywhere is one failure, and is not shown."""
    upstream.answers = {
        "usage/completions": (
            401,
            {"error": {"message": "Incorrect API key provided: sk-admin-hush"}},
        )
    }
    found = look()
    assert levels(found)["key"] == ["ok", "fail"]
    assert "hush" not in str(found)
    assert upstream.asked == ["usage/completions"]


@pytest.mark.parametrize(
    ("secret", "level"),
    [
        ("sk-proj-hush", "fail"),
        ("sk-svcacct-hush", "fail"),
        ("hush", "warn"),
        ("sk-admin-hush", "ok"),
    ],
)
def test_the_kind_of_key_is_seen(look: Look, upstream: Upstream, secret: str, level: str) -> None:
    """A key of a project cannot work and is refused before anybody is asked; an odd one is tried."""
    found = look(OPENAI_ADMIN_KEY=secret)
    assert levels(found)["key"] == [level]
    assert bool(upstream.asked) is (level != "fail")
    assert "hush" not in str(found)


def test_only_enabled_sources_are_tried(look: Look, upstream: Upstream) -> None:
    """What is switched off is not asked for."""
    look("names: {enabled: false}\nlimits: {enabled: false}\ncosts: {enabled: false}")
    assert upstream.asked == ["usage/completions"]


def test_no_limit_is_fine(look: Look, upstream: Upstream) -> None:
    """404 for the spend limit means that there is none."""
    upstream.answers = {"spend_limit": (404, {"error": {"message": "no limit"}})}
    assert levels(look())["limits"] == ["ok"]


def test_a_clock_that_is_off_is_noticed(look: Look, upstream: Upstream) -> None:
    """More than half a minute between our clock and OpenAI's is a warning; a Date that is none,
    too.
    """
    upstream.date = "Sun, 06 Nov 1994 08:49:37 GMT"
    assert "ahead" in look()["clock"][0].told
    upstream.date = "yesterday"
    assert levels(look())["clock"] == ["warn"]


def test_nobody_there_is_told(look: Look) -> None:
    """With nobody at the base URL, usage and costs fail with a sentence."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found = look(
            "api: {timeout: 2s}\nnames: {enabled: false}\nlimits: {enabled: false}",
            OPENAI_BASE_URL=f"http://127.0.0.1:{free.getsockname()[1]}/v1",
        )
    assert (levels(found)["usage"], levels(found)["costs"]) == (["fail"], ["fail"])


def test_offline_asks_nobody(look: Look, upstream: Upstream) -> None:
    """With --offline neither OpenAI nor the collector is asked."""
    found = look(offline=True, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1")
    assert levels(found) == {
        "configuration": ["ok"],
        "key": ["ok"],
        "otlp": ["ok"],
        "state": ["ok"],
        "disk": ["ok"],
        "prometheus": ["ok"],
    }
    assert upstream.asked == []


def test_the_collector_is_tried(look: Look, upstream: Upstream) -> None:
    """An empty export is sent: nobody there, a name that is none, a server that speaks no gRPC and
    a TLS server that is none fail, and a Collector is ok.
    """
    plain = upstream.url.removesuffix("/v1")
    with grpc_collector() as collector:
        for endpoint, level in (
            (collector.url, "ok"),
            (plain, "fail"),
            ("http://127.0.0.1:1", "fail"),
            ("http://nowhere.invalid:4317", "fail"),
            (plain.replace("http", "https"), "fail"),
        ):
            found = look(
                "usage: {enabled: false}\notlp: {timeout: 3s}",
                OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            )
            assert levels(found)["otlp"] == [level], endpoint
        assert len(collector.requests) == 1


@pytest.mark.parametrize(
    ("answer", "level", "words"),
    [
        ((200, {}, b""), "ok", "takes exports"),
        ((308, {"Location": "https://x/v1/metrics"}, b""), "fail", "308: redirects to https://x"),
        ((401, {"Content-Type": "text/plain"}, b"who are you?"), "fail", "401: who are you?"),
        ((503, {}, b""), "fail", "503"),
        ((200, {"Content-Type": "text/html"}, b"<p>Hello"), "warn", "is it an OTLP endpoint?"),
    ],
)
def test_what_an_http_collector_answers_is_told(
    look: Look, answer: tuple[int, dict[str, str], bytes], level: str, words: str
) -> None:
    """Only a 2xx answer is ok, and the finding says what came instead; a query is not shown."""
    with http_collector() as collector:
        collector.answers = [answer]
        (finding,) = look(
            "usage: {enabled: false}",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"{collector.url}?key=hush",
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        )["otlp"]
        assert collector.paths == ["/v1/metrics?key=hush"]
    assert (finding.level, words in finding.told, "hush" in finding.told) == (level, True, False)


def test_what_is_noteworthy_is_a_warning(look: Look) -> None:
    """Warnings of the configuration and features that are not built yet are shown."""
    found = look("legacy: {enabled: true}\nprometheus: {enabled: false}", offline=True)
    assert [finding.level for finding in found["configuration"]] == ["ok", "warn", "warn"]
    assert any(
        finding.told.startswith("legacy: reads an endpoint that OpenAI does not document")
        for finding in found["configuration"]
    )


def test_a_state_that_is_something_else_fails(look: Look, tmp_path: Path) -> None:
    """A foreign file as state is a failure, and stays as it is; keeping it in memory is a warning."""
    (tmp_path / "diary").write_text("dear diary\n" * 100)
    assert levels(look(f"state: {{path: {tmp_path / 'diary'}}}", offline=True))["state"] == ["fail"]
    assert (tmp_path / "diary").read_text() == "dear diary\n" * 100
    assert levels(look("state: {path: ':memory:'}", offline=True))["state"] == ["warn"]


def test_a_state_of_another_user_fails(
    look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state in a folder that this user may not read is a failure; the other checks go on."""
    stat = Path.stat

    def refused(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path.is_relative_to(tmp_path / "private"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", refused)
    found = look(f"state: {{path: {tmp_path / 'private' / 'state.db'}}}", offline=True)
    assert levels(found)["state"] == ["fail"]
    assert levels(found)["disk"] == ["ok"]
    assert "prometheus" in found


def test_a_key_file_is_read(look: Look, tmp_path: Path) -> None:
    """The key may come from a file; one with two lines fails without showing them."""
    (tmp_path / "key").write_text("sk-admin-hush\n")
    text = f"organizations: [{{admin_key_file: {tmp_path / 'key'}}}]"
    assert levels(look(text))["key"] == ["ok"]
    (tmp_path / "key").write_text("sk-admin-hush\nsecond line\n")
    found = look(text)
    assert levels(found)["key"] == ["fail"]
    assert "hush" not in str(found)


def test_a_finding_is_one_line() -> None:
    """A finding is level, subject and what to do, in columns."""
    assert str(Finding("ok", "state", "fine")) == "ok    state: fine"


@pytest.mark.parametrize(
    ("status", "level"), [(200, "ok"), (401, "fail"), (403, "fail"), (404, "fail"), (429, "warn")]
)
def test_the_legacy_key_is_tried(upstream: Upstream, look: Look, status: int, level: str) -> None:
    """With an ordinary key only, one request to /v1/usage says whether the key is good."""
    upstream.answers["/v1/usage"] = (status, {"object": "list", "data": []})
    found = look(OPENAI_ADMIN_KEY="", OPENAI_API_KEY="sk-proj-x")
    assert levels(found)["legacy: key"] == [level]
    assert upstream.asked == ["/v1/usage"]
    if status in (401, 403):
        assert "legacy.api_key" in found["legacy: key"][0].told


def test_a_state_that_lost_something_is_a_warning(look: Look, tmp_path: Path) -> None:
    """A state that is older than its marker is a warning, with `state.strict` a failure; `check`
    changes nothing.
    """
    path = tmp_path / "state.db"
    text = f"state: {{path: {path}}}"
    killed(path, range(10), Time(NOON))
    assert levels(look(text, offline=True))["state"] == ["ok"]
    path.with_name("state.db-wal").unlink()
    for _ in range(2):
        (found,) = look(text, offline=True)["state"]
        assert found.level == "warn"
        assert "but the last commit here was number" in found.told
    assert levels(look(f"state: {{path: {path}, strict: true}}", offline=True))["state"] == ["fail"]


def test_a_taken_port_fails(look: Look) -> None:
    """A port that somebody else has fails, for metrics and for events; a free one is ok."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        taken = f"{{enabled: true, host: 127.0.0.1, port: {port}}}"
        for section in ("prometheus", "events"):
            found = look(f"{section}: {taken}", offline=True)
            assert levels(found)[section] == ["fail"]
            assert str(port) in found[section][0].told
    assert levels(look(f"prometheus: {taken}", offline=True))["prometheus"] == ["ok"]


def test_a_web_config_that_cannot_be_used_fails(look: Look, tmp_path: Path) -> None:
    """The web config file is read as `run` reads it."""
    (tmp_path / "web.yml").write_text("basic_auth_users: {prom: secret}")
    found = look(f"prometheus: {{web_config_file: {tmp_path / 'web.yml'}}}", offline=True)
    assert levels(found)["prometheus"][0] == "fail"
    assert "basic_auth_users.prom" in found["prometheus"][0].told


def test_another_exporter_with_this_state_fails(look: Look, tmp_path: Path) -> None:
    """An exporter that has the state, and listens elsewhere, would stop `run`."""
    path = tmp_path / "held.db"
    store = Store(path)
    try:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        text = f"state: {{path: {path}}}\nprometheus: {{host: 127.0.0.1, port: {port}}}"
        assert levels(look(text, offline=True))["running exporter"] == ["fail"]
    finally:
        store.close()
    assert "running exporter" not in look(text, offline=True)


def test_the_running_exporter_is_told_as_that(look: Look, tmp_path: Path) -> None:
    """Beside `run` with the same state and ports everything is ok; with another state its port is
    taken.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = (
        f"state: {{path: {tmp_path / 'own.db'}}}\nprometheus: {{host: 127.0.0.1, port: {port}}}\n"
    )
    (tmp_path / "run.yaml").write_text(text + "usage: {enabled: false}\ncosts: {enabled: false}\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "otel_openai_usage", "run", "-c", str(tmp_path / "run.yaml")],
        stderr=subprocess.DEVNULL,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parent.parent),
            "OPENAI_ADMIN_KEY": "sk-admin-x",
            "OPENAI_BASE_URL": "http://127.0.0.1:1/v1",
        },
    )
    try:
        deadline = time.monotonic() + 20
        while "running exporter" not in (found := look(text, offline=True)) or (
            found["prometheus"][0].level != "ok"
        ):
            assert time.monotonic() < deadline
        assert "the running exporter listens" in found["prometheus"][0].told
        assert levels(found)["running exporter"] == ["ok"]
        other = text.replace("own.db", "other.db")
        assert levels(look(other, offline=True))["prometheus"] == ["fail"]
        options = ["-c", str(tmp_path / "run.yaml")]
        done = subprocess.run(
            [sys.executable, "-m", "otel_openai_usage", "healthcheck", *options],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parent.parent)},
        )
        assert (done.returncode, done.stdout) == (0, "ok\n")
    finally:
        process.terminate()
        process.wait(10)


def test_a_long_key_is_named_by_its_end(look: Look) -> None:
    """The last four characters of a key of ordinary length name it; no more of it is shown."""
    secret = "sk-admin-" + "abcdefgh" * 8 + "WXYZ"
    told = look(OPENAI_ADMIN_KEY=secret, offline=True)["key"][0].told
    assert told == "an admin key (…WXYZ)"
