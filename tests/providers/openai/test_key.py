"""The key: a secret, or a file that is read again."""
# ruff: noqa: ASYNC240 - a test may touch a file

import logging
import os
from pathlib import Path

import pytest

from otel_openai_usage.errors import ConfigError
from otel_openai_usage.providers.openai.key import Key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a key and blanks around it."""
    path = tmp_path / "key"
    path.write_text("  sk-admin-1\n")
    return path


async def test_fixed() -> None:
    """A secret is given as it is."""
    assert await Key("sk-admin-1").current() == "sk-admin-1"


async def test_a_file_is_read_again(path: Path) -> None:
    """A changed file counts from the next request on, blanks around it do not."""
    key = Key(path=path)
    assert await key.current() == "sk-admin-1"
    path.write_text("sk-admin-two\n")
    assert await key.current() == "sk-admin-two"


async def test_a_change_that_does_not_show(path: Path) -> None:
    """Same size, time and inode: only a forced reading sees the change."""
    key = Key(path=path)
    before = path.stat()
    path.write_text("  sk-admin-2\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert await key.current() == "sk-admin-1"
    assert await key.reread() == "sk-admin-2"


@pytest.mark.parametrize("content", [None, "", " \n", "two words", "line\nline", "schlüssel"])
async def test_a_bad_moment_of_rotation(
    content: str | None, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file without a key keeps the last one, is logged once, and is read again when it is good."""
    key = Key(path=path)
    path.unlink()
    if content is not None:
        path.write_text(content)
    with caplog.at_level(logging.WARNING):
        assert [await key.current() for _ in range(3)] == ["sk-admin-1"] * 3
    assert len(caplog.records) == 1
    path.write_text("sk-admin-2")
    assert await key.current() == "sk-admin-2"


@pytest.mark.parametrize("content", [None, "", "two words"])
def test_no_key_at_the_start(content: str | None, tmp_path: Path) -> None:
    """Without a key to begin with the configuration cannot be used, and the file is named."""
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"admin_key_file: .*key: "):
        Key(path=path)


def test_masked(path: Path) -> None:
    """Its repr does not hold it."""
    assert "sk-" not in repr(Key("sk-admin-1")) + repr(Key(path=path))
