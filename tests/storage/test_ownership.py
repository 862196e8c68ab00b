"""One state has one writer, whatever the name of its file; and a missing state file is noticed."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from otel_openai_usage.domain.model import Width
from otel_openai_usage.errors import StateError, StateInUse
from otel_openai_usage.storage.sqlite.store import Store
from tests.domain.shelf import read, totals, who
from tests.storage.test_files import child, filled
from tests.storage.test_store import NOON, opened


def by_symbolic_link(path: Path) -> Path:
    """Another name by a symbolic link to the file."""
    other = path.parent / "link.db"
    other.symlink_to(path)
    return other


def by_linked_folder(path: Path) -> Path:
    """Another name by a symbolic link to the folder."""
    other = path.parent.parent / f"{path.parent.name}-link"
    other.symlink_to(path.parent)
    return other / path.name


def by_hard_link(path: Path) -> Path:
    """Another name by a hard link."""
    other = path.parent / "hard.db"
    os.link(path, other)
    return other


def by_parent(path: Path) -> Path:
    """Another name by way of the parent folder."""
    return path.parent / ".." / path.parent.name / path.name


NAMES: list[Callable[[Path], Path]] = [by_symbolic_link, by_linked_folder, by_hard_link, by_parent]


@pytest.mark.parametrize("other_name", NAMES)
def test_one_state_has_one_process_by_any_name(
    tmp_path: Path, other_name: Callable[[Path], Path]
) -> None:
    """While a process has the state open, another process cannot open the same file by another
    name.
    """
    if other_name is by_hard_link and sys.platform != "linux":
        pytest.skip("only Linux keeps the two kinds of file locks apart")
    path = filled(tmp_path / "state.db")
    other = other_name(path)
    holder = child(f"""
        import time
        from otel_openai_usage.storage.sqlite.store import Store
        store = Store({str(path)!r})
        print("mine", flush=True)
        time.sleep(60)
    """)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "mine\n"
        with pytest.raises(StateInUse, match="in use by another"):
            Store(other)
    finally:
        holder.kill()
        holder.wait()
    Store(other).close()


@pytest.mark.parametrize("other_name", NAMES)
def test_one_state_has_one_store_in_a_process(
    tmp_path: Path, other_name: Callable[[Path], Path]
) -> None:
    """A process cannot open the same state twice, and the refusal leaves the first store working."""
    path = filled(tmp_path / "state.db")
    store = Store(path)
    other = other_name(path)
    with pytest.raises(StateInUse):
        Store(other)
    source_state = opened(store)
    read(store, source_state, Width.MINUTE, {NOON + 3600: {who("later"): (5, 1)}}, NOON + 7200)
    assert totals(source_state)[who("later")] == (5, 1)
    store.close()


def test_a_link_that_leads_nowhere_yet_becomes_a_state(tmp_path: Path) -> None:
    """A symbolic link to a missing file creates the state at its target, with the lock beside it."""
    (tmp_path / "data").mkdir()
    link = tmp_path / "state.db"
    link.symlink_to(tmp_path / "data" / "real.db")
    Store(link).close()
    assert (tmp_path / "data" / "real.db").stat().st_size
    assert (tmp_path / "data" / "real.db.lock").exists()
    assert not (tmp_path / "state.db.lock").exists()


def test_a_hard_link_without_the_log_of_its_other_name_is_refused(tmp_path: Path) -> None:
    """SQLite keeps the newest writes beside the name that was used.

    So a state that was killed under one name is refused under another: those writes would be
    missing.
    """
    path = tmp_path / "state.db"
    killed = child(f"""
        import os
        from pathlib import Path
        from otel_openai_usage.domain.model import Width
        from otel_openai_usage.storage.sqlite.store import Store
        from tests.domain.shelf import read, who
        from tests.storage.test_store import NOON, opened
        store = Store(Path({str(path)!r}))
        book = opened(store)
        read(store, book, Width.MINUTE, {{NOON: {{who("a"): (5, 1)}}}}, NOON + 60)
        os._exit(9)
    """)
    killed.wait()
    other = by_hard_link(path)
    with pytest.raises(StateError, match=r"state\.db-wal"):
        Store(other)
    store = Store(path)
    assert totals(opened(store)) == {who("a"): (5, 1)}
    store.close()
    again = Store(other)
    assert totals(opened(again)) == {who("a"): (5, 1)}
    again.close()


# --- a state that is gone


def delete(path: Path) -> None:
    """Delete the state and its lock file."""
    path.unlink()
    path.with_name(f"{path.name}.lock").unlink()


def replace_by_copy(path: Path) -> None:
    """Put another file in its place."""
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    copy.rename(path)


def rename_folder(path: Path) -> None:
    """Rename the folder that it is in."""
    path.parent.rename(path.parent.with_name("elsewhere"))


def delete_log(path: Path) -> None:
    """Delete the write-ahead log."""
    path.with_name(f"{path.name}-wal").unlink()


@pytest.mark.parametrize(
    ("remove", "said"),
    [
        (delete, "deleted or moved"),
        (replace_by_copy, "replaced by another file"),
        (rename_folder, "deleted or moved"),
        (delete_log, "write-ahead log"),
    ],
)
def test_a_state_that_is_gone_is_noticed(
    tmp_path: Path, remove: Callable[[Path], None], said: str
) -> None:
    """While the file is not where it was opened, the store says why and counts nothing more: it
    would be lost.
    """
    path = tmp_path / "folder" / "state.db"
    store = Store(path)
    source_state = opened(store)
    read(store, source_state, Width.MINUTE, {NOON: {who("a"): (5, 1)}}, NOON + 60)
    assert store.gone() is None
    remove(path)
    assert said in (store.gone() or "")
    with pytest.raises(StateError, match=said):
        read(store, source_state, Width.MINUTE, {NOON + 60: {who("a"): (5, 1)}}, NOON + 120)
    assert totals(source_state) == {who("a"): (5, 1)}
    store.close()


def test_a_state_that_comes_back_is_used_again(tmp_path: Path) -> None:
    """When its folder has its old name again, the same store works again."""
    path = tmp_path / "folder" / "state.db"
    store = Store(path)
    source_state = opened(store)
    rename_folder(path)
    assert store.gone()
    (tmp_path / "elsewhere").rename(tmp_path / "folder")
    assert store.gone() is None
    read(store, source_state, Width.MINUTE, {NOON: {who("a"): (5, 1)}}, NOON + 60)
    assert totals(source_state) == {who("a"): (5, 1)}
    store.close()


def test_a_state_in_memory_is_never_gone() -> None:
    """A state in memory has no file that can be missing."""
    store = Store(":memory:")
    assert store.gone() is None
    store.close()
