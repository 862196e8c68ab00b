"""`run --once` by cron: one poll, one page, and what the next run shows."""

import json
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from otel_openai_usage.cli import cli
from otel_openai_usage.cli.files import replace
from otel_openai_usage.composition import app
from otel_openai_usage.config import load
from otel_openai_usage.errors import ExporterError
from tests.clocks.test_zero_first import Api, api_server, tokens


class Cron:
    """Runs the exporter once, on one state and one fake of OpenAI."""

    def __init__(self, url: str, api: Api, path: Path) -> None:
        self.api = api
        self.path = path
        self.pages: list[bytes] = []
        self.given: dict[str, Any] = {
            "api.retries": 0,
            "usage.endpoints": ["embeddings"],
            "usage.group_by": ["project_id"],
            "costs.enabled": False,
            "limits.enabled": False,
            "names.enabled": False,
            "prices.enabled": False,
            "state.path": str(path / "state.db"),
        }
        self.env = {"OPENAI_ADMIN_KEY": "sk-admin-x", "OPENAI_BASE_URL": url}

    async def run(self, *, quiet: bool = False) -> int:
        """The exit code; the page is in `pages`."""
        settings = load(None, self.env, self.given)
        write = None if quiet else self.pages.append
        return await app._run(settings, once=True, write=write)

    def shown(self) -> dict[str, float]:
        return tokens(self.pages[-1])


@pytest.fixture
async def cron(tmp_path: Path) -> AsyncIterator[Cron]:
    """Cron on a new state."""
    api = Api(int(time.time()) // 86400 * 86400)
    async with api_server(api) as url:
        yield Cron(url, api, tmp_path)


async def test_a_new_project_is_zero_once(cron: Cron) -> None:
    """What the first run finds has its value; a later series is 0 in the run that finds it, and has
    its value in the next.
    """
    cron.api.tokens = {"a": 500}
    assert await cron.run() == 0
    assert cron.shown() == {"a": 500}
    cron.api.tokens = {"a": 510, "b": 7}
    assert await cron.run() == 0
    assert cron.shown() == {"a": 510, "b": 0}
    cron.api.tokens = {"a": 510, "b": 9, "c": 3}
    assert await cron.run() == 0
    assert cron.shown() == {"a": 510, "b": 9, "c": 0}
    assert await cron.run() == 0
    assert cron.shown() == {"a": 510, "b": 9, "c": 3}


async def test_a_run_whose_page_nobody_gets_releases_nothing(cron: Cron) -> None:
    """A page that could not be written, or was not asked for, has shown no 0: the next run shows it."""
    cron.api.tokens = {"a": 500}
    assert await cron.run() == 0
    cron.api.tokens = {"a": 510, "b": 7}
    assert await cron.run(quiet=True) == 0
    settings = load(None, cron.env, cron.given)

    def full(page: bytes) -> None:
        raise ExporterError("wrote it: no room")

    with pytest.raises(ExporterError):
        await app._run(settings, once=True, write=full)
    assert await cron.run() == 0
    assert cron.shown() == {"a": 510, "b": 0}
    assert await cron.run() == 0
    assert cron.shown() == {"a": 510, "b": 7}


@pytest.mark.parametrize(("status", "code"), [(404, 0), (401, 1), (403, 1), (500, 1)])
async def test_a_source_that_fails_is_exit_1_unless_it_is_not_offered(
    cron: Cron, status: int, code: int
) -> None:
    """The page is written all the same, with what was counted before."""
    cron.api.tokens = {"a": 500}
    assert await cron.run() == 0
    cron.api.status = status
    assert await cron.run() == code
    assert cron.shown() == {"a": 500}
    assert b'openai_api_up{organization="default",source="usage/embeddings"} 0' in cron.pages[-1]


def test_the_page_is_written_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """-o writes the page and prints nothing; the file appears whole, readable as the umask says."""
    folder = tmp_path / "textfile"
    folder.mkdir()
    result = run_with(tmp_path, monkeypatch, "-o", str(folder / "openai.prom"))
    page = (folder / "openai.prom").read_text()
    assert "openai_api_up" not in result.output
    assert "openai_api_up{" in page
    assert page.endswith("\n")
    assert [file.name for file in folder.iterdir()] == ["openai.prom"]


def test_quiet_prints_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--quiet prints nothing; without it the page is printed."""
    assert "openai_api_up" not in run_with(tmp_path, monkeypatch, "--quiet").output
    assert "openai_api_up{" in run_with(tmp_path, monkeypatch).output


def run_with(path: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> Any:
    """`run --once` against an address where nobody answers: the sources are down, the page is made."""
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-x")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    config = path / "config.yaml"
    config.write_text(
        json.dumps({"api": {"retries": 0}, "state": {"path": str(path / "state.db")}})
    )
    result = CliRunner().invoke(
        cli, ["run", "-c", str(config), "--once", *options], standalone_mode=False
    )
    assert result.exception is None, result.exception
    assert result.return_value == 1
    return result


@pytest.mark.parametrize("options", [["-o", "x.prom"], ["--quiet"]])
def test_the_options_belong_to_once(options: list[str]) -> None:
    """Without --once they are wrong usage."""
    result = CliRunner().invoke(cli, ["run", *options])
    assert result.exit_code == 2
    assert "--once" in result.output


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    """A link stays a link, the mode stays, and a failure leaves the old content and no other file."""
    file = tmp_path / "a.prom"
    link = tmp_path / "b.prom"
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    replace(link, b"new")
    assert (file.read_text(), link.is_symlink()) == ("new", True)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    with pytest.raises(ExporterError, match=r"wrote .*none/a\.prom"):
        replace(tmp_path / "none" / "a.prom", b"x")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.prom", "b.prom"]
