"""`state info`, `accept`, `backup` and `restore`: output, changes and exit codes."""

import asyncio
import errno
import json
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from otel_openai_usage.cli import answer
from otel_openai_usage.engine.recorder import Clock
from otel_openai_usage.engine.state_watch import StateCare
from otel_openai_usage.storage.sqlite.backup import back_up
from otel_openai_usage.storage.sqlite.store import Store
from tests.domain.shelf import HOUR, totals, who
from tests.storage.test_files import child, overwrite
from tests.storage.test_marker import Time, count, killed
from tests.storage.test_store import NOON, opened
from tests.testing.test_harness import scene, settled, values


@dataclass
class Said:
    """The output of a command and its exit code."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `state …` on the state of the test."""
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"state": {"path": str(tmp_path / "state.db")}}))

    root = logging.getLogger()
    handlers = list(root.handlers)
    level = root.level

    def run(verb: str, *arguments: str | Path) -> Said:
        capsys.readouterr()
        code = answer(["state", verb, "-c", str(config), *map(str, arguments)])
        said = capsys.readouterr()
        root.handlers[:] = handlers  # the command let the log go to what is stderr just now
        root.setLevel(level)
        return Said(code, said.out, said.err)

    return run


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state that counted for ten minutes and was closed."""
    path = tmp_path / "state.db"
    store = Store(path, now=Time(NOON + HOUR))
    for minute in range(10):
        count(store, minute)
    store.close()
    return path


def total_input(path: Path) -> int:
    """The input tokens of the only series."""
    store = Store(path, now=Time(NOON + HOUR))
    try:
        return int(totals(opened(store))[who("a")][0])
    finally:
        store.close()


@pytest.mark.parametrize("verb", ["info", "accept", "backup", "restore"])
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` of every command has an example."""
    assert answer(["state", verb, "--help"]) == 0
    assert f"otel-openai-usage state {verb}" in capsys.readouterr().out.split("\n", 3)[-1]


def test_info_says_what_the_state_is(command: Command, state: Path) -> None:
    """`state info` prints location, size, start of counting, organizations, last write and marker."""
    said = command("info")
    assert said.code == 0
    for part in (
        f"location        {state}",
        "counting since  2026-11-02T00:00:00Z",
        "organizations   default",
        "last write      2026-11-02T13:00:00Z",
        "in use          no",
        "losses          none",
    ):
        assert part in said.out


def test_info_of_no_state_fails(command: Command) -> None:
    """Without a state `state info` fails and creates none."""
    for verb in ("info", "accept"):
        said = command(verb)
        assert said.code == 1
        assert "there is none" in said.err
    assert "Traceback" not in said.err


def test_info_beside_a_running_exporter(command: Command, state: Path) -> None:
    """While an exporter has the state open, `state info` says so and sees its commits."""
    holder = child(f"""
        import time
        from pathlib import Path
        from otel_openai_usage.storage.sqlite.store import Store
        from tests.storage.test_marker import Time, count
        from tests.storage.test_store import NOON
        store = Store(Path({str(state)!r}), now=Time(NOON + 7200))
        count(store, 30)
        print("mine", flush=True)
        time.sleep(60)
    """)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "mine\n"
        said = command("info")
        assert "in use          by a running exporter" in said.out
        assert "last write      2026-11-02T14:00:00Z" in said.out
        assert "losses          none" in said.out
        said = command("accept")
        assert (said.code, said.out) == (0, "nothing to accept: no loss is reported\n")
    finally:
        holder.kill()
        holder.wait()


def test_a_loss_is_shown_and_accepted(command: Command, tmp_path: Path) -> None:
    """`state info` shows a loss before and after the start that reports it, until it is accepted."""
    path = tmp_path / "state.db"
    killed(path, range(10), Time(NOON))
    path.with_name("state.db-wal").unlink()
    assert "the next start will report: the state is of commit" in command("info").out
    Store(path).close()
    assert "not accepted: the state is of commit" in command("info").out
    said = command("accept")
    assert said.code == 0
    assert said.out.startswith("accepted: the state is of commit")
    assert "losses          none" in command("info").out
    assert command("accept").out == "nothing to accept: no loss is reported\n"


def test_accepting_sets_changed_totals_right(command: Command, state: Path) -> None:
    """After `state accept` a changed total is the sum of its rows."""
    with sqlite3.connect(state) as db:
        db.execute("UPDATE dims SET total = '[7, 10]'")
    db.close()
    said = command("accept")
    assert "input 7 instead of 50" in said.out
    assert total_input(state) == 50


# --- backups


def test_a_backup_of_a_running_state_is_consistent(command: Command, state: Path) -> None:
    """A backup during many commits is the state of one commit: totals are the sums of their rows."""
    writer = child(f"""
        from pathlib import Path
        from otel_openai_usage.storage.sqlite.store import Store
        from tests.storage.test_marker import count
        store = Store(Path({str(state)!r}))
        print("mine", flush=True)
        for minute in range(10, 100000):
            count(store, minute % 1000)
            count(store, 1000 + minute)
    """)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "mine\n"
        for number in range(5):
            said = command("backup", state.with_name(f"copy-{number}.db"))
            assert said.code == 0, said.err
            assert said.out.startswith(f"wrote {state.with_name(f'copy-{number}.db')}: ")
    finally:
        writer.kill()
        writer.wait()
    for number in range(5):
        copy = state.with_name(f"copy-{number}.db")
        assert copy.stat().st_mode & 0o777 == 0o600
        assert not copy.with_name(f"{copy.name}-wal").exists()
        store = Store(copy)
        assert store.losses == []
        assert all(event == "state_marker_missing" for event, _ in store.opening.warnings)
        store.close()


def test_a_backup_overwrites_nothing_unasked(command: Command, state: Path) -> None:
    """A backup replaces an existing file only with --replace, and never the state itself."""
    target = state.with_name("copy.db")
    target.write_text("precious")
    said = command("backup", target)
    assert said.code == 1
    assert "there is a file already" in said.err
    assert target.read_text() == "precious"
    assert command("backup", "--replace", target).code == 0
    assert target.read_bytes().startswith(b"SQLite format 3")
    for same in (state, state.parent / "." / state.name):
        assert command("backup", "--replace", same).code == 1
    assert command("backup", state.parent).code == 1
    assert command("backup", state.parent / "no" / "folder.db").code == 1
    assert total_input(state) == 50


@pytest.mark.parametrize(
    "ending", ["", "-wal", "-shm", "-journal", ".lock", ".marker", ".marker.new", ".accept"]
)
def test_a_backup_never_replaces_a_file_of_the_state(
    command: Command, state: Path, ending: str
) -> None:
    """The state and the files beside it are refused as targets, and stay as they are."""
    target = Path(f"{state}{ending}")
    before = target.read_bytes() if target.exists() else None
    said = command("backup", "--replace", target)
    assert said.code == 1
    assert "belongs to it" in said.err
    assert (target.read_bytes() if target.exists() else None) == before


def test_a_backup_never_replaces_a_link_to_the_state(command: Command, state: Path) -> None:
    """A hard link to the state is refused as a target."""
    link = state.with_name("other.db")
    link.hardlink_to(state)
    said = command("backup", "--replace", link)
    assert said.code == 1
    assert "a link to the state" in said.err


def test_a_backup_deletes_no_file_beside_its_target(tmp_path: Path) -> None:
    """A file, even the state itself, that is called as the target with `.new` stays as it is."""
    for name in ("usage.new", "usage.db"):
        Store(tmp_path / name).close()
    beside = (tmp_path / "usage.new").read_bytes()
    back_up(tmp_path / "usage.new", tmp_path / "usage", replace=False)
    back_up(tmp_path / "usage.db", tmp_path / "usage", replace=True)
    assert (tmp_path / "usage.new").read_bytes() == beside


def test_a_restored_copy_stays_whatever_its_name(command: Command, state: Path) -> None:
    """The copy that is restored may be called as the state with `.new`."""
    copy = state.with_name("state.db.new")
    assert command("backup", copy).code == 0
    assert command("restore", copy).code == 0
    assert copy.exists()
    assert total_input(state) == 50


@pytest.mark.parametrize("verb", ["info", "accept", "backup", "restore"])
def test_a_folder_of_another_user_is_refused_with_a_sentence(
    command: Command, state: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """A state in a folder that this user may not read is no bug of the program."""
    arguments = {"backup": [state.with_name("copy.db")], "restore": [state.with_name("copy.db")]}
    stat = Path.stat

    def refused(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if path.name.endswith(".db"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", refused)
    said = command(verb, *arguments.get(verb, []))
    assert said.code == 1
    assert "Permission denied; check the path and its permissions" in said.err
    assert "bug" not in said.err


async def test_a_failing_round_of_care_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in looking after the state is logged, and the next round comes."""
    rounds = 0

    async def sleep(_: float) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            raise asyncio.CancelledError

    async def broken(_: StateCare) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(StateCare, "take_acceptance", broken)
    recorder = SimpleNamespace(clock=Clock(lambda: 0.0, lambda: 0.0, sleep))
    with pytest.raises(asyncio.CancelledError):
        await StateCare(recorder, None).forever()  # type: ignore[arg-type]
    events = [record.event for record in caplog.records]  # type: ignore[attr-defined]
    assert events == ["state_care_bug", "state_care_bug"]


def test_a_backup_of_a_damaged_state_is_none(command: Command, state: Path) -> None:
    """A damaged state is not backed up, and an older backup stays."""
    target = state.with_name("copy.db")
    assert command("backup", target).code == 0
    before = target.read_bytes()
    overwrite(state, 4096, b"\xff" * (state.stat().st_size - 4096))
    said = command("backup", "--replace", target)
    assert said.code == 1
    assert "damaged" in said.err
    assert target.read_bytes() == before
    assert sorted(path.name for path in state.parent.glob("copy.db*")) == ["copy.db"]


def test_a_restored_backup_is_used_and_reported(command: Command, state: Path) -> None:
    """After a restore the exporter continues from the backup.

    What came after it is reported, and the replaced state stays beside it.
    """
    backup = state.with_name("copy.db")
    assert command("backup", backup).code == 0
    store = Store(state, now=Time(NOON + 2 * HOUR))
    count(store, 30)
    store.close()
    said = command("restore", backup)
    assert said.code == 0
    assert "3600 s of what was counted here are missing in it" in said.out
    aside = next(state.parent.glob("state.db.replaced-*"))
    assert f"the state that was there is {aside}" in said.out
    store = Store(state, now=Time(NOON + 2 * HOUR))
    assert [loss.reason for loss in store.losses] == ["older"]
    assert store.lost_seconds == HOUR
    store.close()
    assert total_input(state) == 50
    assert total_input(aside) == 55
    assert backup.exists()


def test_a_backup_that_is_the_newest_is_no_loss(command: Command, state: Path) -> None:
    """A backup that is restored before anything else was counted lacks nothing, also if it is
    copied by hand.
    """
    backup = state.with_name("copy.db")
    assert command("backup", backup).code == 0
    assert command("restore", backup).code == 0
    for _ in range(2):
        store = Store(state, now=Time(NOON + 2 * HOUR))
        assert store.losses == []
        store.abandon()
        command("backup", "--replace", backup)
        for end in ("", "-wal", "-shm"):
            state.with_name(f"state.db{end}").unlink(missing_ok=True)
        shutil.copy(backup, state)


def test_a_restore_checks_the_copy_first(command: Command, state: Path) -> None:
    """A damaged, empty, foreign or missing copy is refused, and the state stays as it is."""
    good = state.with_name("copy.db")
    assert command("backup", good).code == 0
    bad = state.with_name("bad.db")
    before = state.read_bytes()
    for make in (
        lambda: bad.write_bytes(b""),
        lambda: bad.write_text("dear diary\n" * 100),
        lambda: bad.write_bytes(good.read_bytes()[:-8192]),
        lambda: bad.write_bytes(good.read_bytes()[:8192] + b"\xff" * (good.stat().st_size - 8192)),
        bad.unlink,
    ):
        make()
        said = command("restore", bad)
        assert said.code == 1, said
        assert len(said.err) > 40
        assert "bug" not in said.err
    assert command("restore", state).code == 1
    assert state.read_bytes() == before
    assert list(state.parent.glob("state.db.replaced*")) == []
    assert total_input(state) == 50


def test_a_restore_beside_a_running_exporter_is_refused(command: Command, state: Path) -> None:
    """While an exporter has the state open, nothing is restored."""
    backup = state.with_name("copy.db")
    assert command("backup", backup).code == 0
    store = Store(state)
    said = command("restore", backup)
    assert said.code == 1
    assert "in use by another" in said.err
    count(store, 40)
    store.close()
    assert total_input(state) == 55


def test_a_damaged_state_can_be_restored(command: Command, state: Path) -> None:
    """A backup can be restored over a damaged state, and where there is no state."""
    backup = state.with_name("copy.db")
    assert command("backup", backup).code == 0
    overwrite(state, 0, b"\xff" * state.stat().st_size)
    assert command("restore", backup).code == 0
    assert total_input(state) == 50
    for path in state.parent.glob("state.db*"):
        path.unlink()
    assert command("restore", backup).code == 0
    assert total_input(state) == 50


# --- with the whole exporter


async def test_the_exporter_goes_on_after_a_lost_log(tmp_path: Path) -> None:
    """After a kill and a lost log, OpenAI's usage is exact again after one poll.

    The metric says how much was missing until `state accept`, also while the exporter runs.
    """
    async with scene(tmp_path) as stage:
        harness = stage.harness()
        await harness.start()
        await settled(stage, harness)
        await harness.upkeep()  # what was counted so far is in the main file now
        stage.clock.time += 2 * HOUR
        await harness.poll()
        harness.kill()
        (tmp_path / "state.db-wal").unlink()
        await harness.start()
        assert lost(harness.page()) > HOUR
        expected = stage.true_requests()
        page = await settled(stage, harness)
        assert sum(values(page, "openai_api_requests_total").values()) == expected > 0
        await harness.close()
        await harness.start()
        assert lost(harness.page()) > HOUR
        exporter = harness._running()
        (tmp_path / "state.db.accept").touch()
        await StateCare(exporter.recorder, exporter.store).take_acceptance()
        assert lost(harness.page()) == 0
        assert not (tmp_path / "state.db.accept").exists()
        await harness.close()


def lost(page: bytes) -> float:
    """The value of the metric."""
    name = b"otel_openai_usage_state_lost_seconds "
    return next(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name))


async def test_accepting_in_a_running_exporter_sets_totals_right(tmp_path: Path) -> None:
    """`state accept` corrects the exported totals of a running exporter, and none falls."""
    async with scene(tmp_path) as stage:
        harness = stage.harness()
        await harness.start()
        expected = stage.true_requests()
        await settled(stage, harness)
        await harness.close()
        with sqlite3.connect(tmp_path / "state.db") as db:
            db.execute(
                "UPDATE dims SET total = '[0, 0, 0, 0, 0, 0, 0]' WHERE total LIKE '[_%,%,%,%,%,%,%]'"
            )
            db.execute("UPDATE dims SET shown = total")
        db.close()
        await harness.start()
        stage.clock.time += 61
        assert sum(values(harness.page(), "openai_api_requests_total").values()) < expected
        exporter = harness._running()
        (tmp_path / "state.db.accept").touch()
        await StateCare(exporter.recorder, exporter.store).take_acceptance()
        stage.clock.time += 61
        shown = sum(values(harness.page(), "openai_api_requests_total").values())
        assert shown == expected
        await harness.close()
