"""Processes that begin, end and die in every way: what was recorded arrives, and nothing hangs."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from clients.python.tests.conftest import Endpoint
from otel_openai_metering import Counts, Meter
from otel_openai_metering.journal import Journal
from otel_openai_metering.sender import Outcome
from otel_openai_metering.spool import Spool
from tests.real.processes import free_port

HEAD = """
import multiprocessing, os, sys, time
from otel_openai_metering import Meter
meter = Meter({url!r}, source="app", spool={spool!r}, env={{}})

def work(number):
    meter.record({{"id": f"r{{number}}", "usage": {{"input_tokens": 1}}}}, "alice")
    return number
"""
PROCESSES = """
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    processes = [context.Process(target=work, args=(number,)) for number in range(3)]
    [process.start() for process in processes]
    [process.join() for process in processes]
"""
EXECUTOR = """
from concurrent.futures import ProcessPoolExecutor
if __name__ == "__main__":
    with ProcessPoolExecutor(2, multiprocessing.get_context({method!r})) as pool:
        assert sorted(pool.map(work, range(3))) == [0, 1, 2]
"""
CHILDREN_OF_CHILDREN = """
def parent(number):
    work(number)
    if number:
        child = multiprocessing.get_context({method!r}).Process(target=parent, args=(number - 1,))
        child.start()
        child.join()

if __name__ == "__main__":
    process = multiprocessing.get_context({method!r}).Process(target=parent, args=(2,))
    process.start()
    process.join()
"""
BILLIARD = """
import billiard
if __name__ == "__main__":
    processes = [billiard.Process(target=work, args=(number,)) for number in range(3)]
    [process.start() for process in processes]
    [process.join() for process in processes]
"""


def wait_for(is_so: Callable[[], bool], seconds: float = 15) -> None:
    """Wait until something is so."""
    ends = time.monotonic() + seconds
    while not is_so() and time.monotonic() < ends:
        time.sleep(0.02)
    assert is_so()


def ids(endpoint: Endpoint) -> list[str]:
    """The ids of what arrived."""
    return sorted(event["id"] for event in endpoint.events)


def run(program: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, which must be a good one."""
    file = folder / "program.py"
    file.write_text(program)
    command = [sys.executable, str(file), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("program", [PROCESSES, EXECUTOR, CHILDREN_OF_CHILDREN])
def test_children_of_multiprocessing_lose_nothing(
    endpoint: Endpoint, tmp_path: Path, program: str, method: str
) -> None:
    """They end without atexit's functions; also without a spool all of it arrives, once."""
    run(HEAD.format(url=endpoint.url, spool=False) + program.format(method=method), tmp_path)
    assert ids(endpoint) == ["r0", "r1", "r2"]


def test_a_meter_of_a_child_loses_nothing(endpoint: Endpoint, tmp_path: Path) -> None:
    """One that is made, and even imported, in the child only."""
    program = """
import multiprocessing

def work(number):
    from otel_openai_metering import Meter
    Meter({url!r}, spool=False, env={{}}).record({{"id": f"r{{number}}", "usage": {{}}}}, "alice")
"""
    run(program.format(url=endpoint.url) + PROCESSES.format(method="fork"), tmp_path)
    assert ids(endpoint) == ["r0", "r1", "r2"]


def test_children_of_billiard_lose_nothing(endpoint: Endpoint, tmp_path: Path) -> None:
    """Celery's own multiprocessing."""
    run(HEAD.format(url=endpoint.url, spool=False) + BILLIARD, tmp_path)
    assert ids(endpoint) == ["r0", "r1", "r2"]


POOL = """
def held(number):
    work(number)
    while meter.counts.waiting < 1 or meter._queue.qsize():
        time.sleep(0.01)

if __name__ == "__main__":
    from otel_openai_metering import worker
    worker.LINGER = 60.0
    # A worker that is killed while it takes over another's journal would leave events twice.
    worker.LOOK = 60.0
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(held, range(5))
"""


def test_a_pool_that_is_terminated_leaves_its_events_to_the_parent(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    """`with Pool()` kills its workers: what they held is sent at the end of the parent, which
    recorded nothing itself.
    """
    spool = tmp_path / "spool"
    run(HEAD.format(url=endpoint.url, spool=str(spool)) + POOL, tmp_path)
    assert ids(endpoint) == [f"r{number}" for number in range(5)]
    assert list(spool.iterdir()) == []


DAEMONS = """
def killed(number):
    for part in range(5):
        meter.record({{"id": f"r{{number}}{{part}}", "usage": {{"input_tokens": 1}}}}, "alice")
    list(meter.stream(iter([{{"id": f"s{{number}}", "choices": [{{"delta": {{"content": "text"}}}}]}}]), "alice"))
    os.kill(os.getpid(), 9)

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    processes = [context.Process(target=killed, args=(number,), daemon=True) for number in range(3)]
    [process.start() for process in processes]
    [process.join() for process in processes]
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_daemonic_child_writes_down_before_record_returns(
    endpoint: Endpoint, tmp_path: Path, method: str
) -> None:
    """A Pool kills its workers at any time after their tasks returned: nothing that was recorded
    before is lost, nor is a stream without usage.
    """
    program = HEAD.format(url=endpoint.url, spool=str(tmp_path / "spool"))
    run(program + DAEMONS.format(method=method), tmp_path)
    records = [f"r{number}{part}" for number in range(3) for part in range(5)]
    assert ids(endpoint) == [*records, "s0", "s1", "s2"]


def test_a_new_journal_that_another_process_took_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that looks for what was left may find the file before it is locked; the event that opened
    it is written all the same.
    """
    other = Journal(tmp_path)
    lock = fcntl.flock
    others = iter([other])

    def flock(descriptor: int, operation: int) -> None:
        for each in others:
            each.take_over(len)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    journal = Journal(tmp_path)
    journal.add({"id": "r0"})
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["id"] == "r0"


CELERY = """
from celery import Celery
app = Celery("program", broker="filesystem://", task_ignore_result=True)
app.conf.broker_transport_options = {{name: {folder!r} for name in ("data_folder_in", "data_folder_out")}}
app.conf.broker_transport_options["control_folder"] = {folder!r}
task = app.task(name="work")(work)
"""


def test_workers_of_celery_lose_nothing(endpoint: Endpoint, tmp_path: Path) -> None:
    """Processes of its prefork pool end with os._exit(), after a signal of celery's."""
    folder = tmp_path / "queue"
    folder.mkdir()
    program = HEAD.format(url=endpoint.url, spool=False) + CELERY.format(folder=str(folder))
    program += "if __name__ == '__main__': [task.delay(number) for number in range(3)]"
    # no thread sends by itself within the test: what arrives was sent at the end
    program += "\nfrom otel_openai_metering import worker\nworker.LINGER = 60.0\n"
    run(program, tmp_path)
    command = ["-m", "celery", "-A", "program", "worker", "-c", "2", "--without-gossip", "--without-mingle", "-l", "info"]  # fmt: skip
    with (tmp_path / "log").open("w") as log:
        celery = subprocess.Popen([sys.executable, *command], cwd=tmp_path, stdout=log, stderr=log)
        try:
            succeeded = (tmp_path / "log").read_text
            wait_for(lambda: succeeded().count("succeeded in") == 3, 40)
            celery.terminate()
            assert celery.wait(30) == 0
        finally:
            celery.kill()
    assert ids(endpoint) == ["r0", "r1", "r2"]


GUNICORN = """
{patch_before}
from otel_openai_metering import Meter, worker
worker.LINGER = 60.0
meter = Meter({url!r}, source="app", spool=False, env={{}})

def application(environ, start_response):
    meter.record({{"id": environ["PATH_INFO"][1:], "usage": {{"input_tokens": 1}}}}, "alice")
    start_response("204 No Content", [])
    return []
"""


@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent"])
def test_workers_of_gunicorn_lose_nothing(endpoint: Endpoint, tmp_path: Path, kind: str) -> None:
    """The application is loaded before the fork (with gevent: also before it replaces threads)."""
    (tmp_path / "web.py").write_text(GUNICORN.format(url=endpoint.url, patch_before=""))
    port = free_port()
    command = ["-m", "gunicorn", "--preload", "-k", kind, "-w", "2", "-b", f"127.0.0.1:{port}", "web:application"]  # fmt: skip
    with (tmp_path / "log").open("w") as log:
        gunicorn = subprocess.Popen(
            [sys.executable, *command], cwd=tmp_path, stdout=log, stderr=log
        )
        try:
            asked = f"import urllib.request as u; [u.urlopen(f'http://127.0.0.1:{port}/r{{n}}', timeout=5) for n in range(6)]"
            asking = [sys.executable, "-c", asked]
            wait_for(
                lambda: subprocess.run(asking, capture_output=True, check=False).returncode == 0, 30
            )
            gunicorn.terminate()
            gunicorn.wait(60)  # it gives its workers 30 s
        finally:
            gunicorn.kill()
    assert set(ids(endpoint)) == {f"r{number}" for number in range(6)}


GEVENT = """
import gevent
from gevent import monkey

def patch():
    monkey.patch_all()

{before}
from otel_openai_metering import Meter
{between}
meter = Meter({url!r}, source="app", spool=False, env={{}})
{after}
def work(number):
    meter.record({{"id": f"r{{number}}", "usage": {{"input_tokens": 1}}}}, "alice")
    gevent.sleep(0.01)

gevent.joinall([gevent.spawn(work, number) for number in range(3)])
ticks = []
def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.001)
ticking = gevent.spawn(tick)
assert meter.flush(5), "it hangs"
ticking.kill()
meter.record({{"id": "r3", "usage": {{}}}}, "alice")
"""


@pytest.mark.parametrize("place", ["before", "between", "after", "late"])
def test_gevent_may_patch_at_any_time(endpoint: Endpoint, tmp_path: Path, place: str) -> None:
    """Before the import, after it, or after the Meter was made: nothing hangs, all arrives."""
    places = dict.fromkeys(("before", "between", "after"), "")
    places |= (
        {place: "patch()"}
        if place != "late"
        else {
            "after": "meter.record({'id': 'r9', 'usage': {}}, 'alice'); assert meter.flush(5); patch()"
        }
    )
    run(GEVENT.format(url=endpoint.url, **places), tmp_path)
    assert ids(endpoint) == ["r0", "r1", "r2", "r3"] + ["r9"] * (place == "late")


KILLED = (
    HEAD
    + """
for number in range(3):
    work(number)
while meter.counts.waiting < 3 or meter._queue.qsize():
    time.sleep(0.01)
print("written", flush=True)
"""
)
ENDS = {
    "kill": f"os.kill(os.getpid(), {int(signal.SIGKILL)})",
    "terminate": f"os.kill(os.getpid(), {int(signal.SIGTERM)})",
    "_exit": "os._exit(0)",
}


@pytest.mark.parametrize("end", ENDS)
def test_what_a_process_held_that_died_is_sent_by_the_next(
    endpoint: Endpoint, tmp_path: Path, end: str
) -> None:
    """Killed while it waited for more: the next process sends it when it starts, without a record
    of its own.
    """
    spool = tmp_path / "spool"
    program = KILLED.format(url="http://127.0.0.1:1", spool=str(spool)) + ENDS[end]
    file = tmp_path / "program.py"
    file.write_text(program)
    # nothing listens on port 1, and the first try comes after a second: nothing is spooled yet
    died = subprocess.run(
        [sys.executable, file], capture_output=True, text=True, timeout=30, check=False
    )
    assert "written" in died.stdout
    assert list(spool.glob("[0-9]*.json")) == []
    with Meter(endpoint.url, spool=spool, env={}):
        wait_for(lambda: len(endpoint.events) == 3)
    assert ids(endpoint) == ["r0", "r1", "r2"]
    assert list(spool.iterdir()) == []


def test_the_spool_of_an_ended_process_is_sent_at_the_start(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    """Nobody has to record anything for it."""
    Spool(tmp_path, 2**20).put([{"id": "r0"}])
    with Meter(endpoint.url, spool=tmp_path, env={}) as meter:
        wait_for(lambda: meter.counts == Counts(sent=1))
    assert ids(endpoint) == ["r0"]


def test_a_running_process_sends_what_another_leaves(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks now and then, also when it has nothing to send itself."""
    monkeypatch.setattr("otel_openai_metering.worker.LOOK", 0.2)
    with Meter(endpoint.url, spool=tmp_path, env={}) as meter:
        meter.record({"id": "r0", "usage": {}}, "alice")
        assert meter.flush()
        Spool(tmp_path, 2**20).put([{"id": "r1"}])
        wait_for(lambda: len(endpoint.events) == 2)


def test_a_living_process_keeps_its_journal(tmp_path: Path) -> None:
    """Only what nobody holds is taken over; a line that was cut is left out; a forked child does
    not touch its parent's.
    """
    mine = Journal(tmp_path)
    mine.add({"id": "mine"})
    other = Journal(tmp_path)
    taken: list[object] = []

    def keep(events: list[dict[str, object]]) -> int:
        taken.extend(events)
        return 0

    other.take_over(keep)
    assert taken == []
    child = os.fork()
    if not child:
        mine.leave()
        os._exit(0)
    os.waitpid(child, 0)
    other.take_over(keep)
    assert taken == []
    with next(tmp_path.glob("journal-*")).open("a") as file:
        file.write('{"id": "cu')
    mine.leave()
    other.take_over(lambda events: keep(events) + len(events))  # the disk is full
    assert len(list(tmp_path.glob("journal-*"))) == 1
    other.take_over(keep)
    assert taken == [{"id": "mine"}] * 2
    assert list(tmp_path.iterdir()) == []


def test_a_journal_that_cannot_be_written_breaks_nothing(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    """The folder is a file: events are sent as without one."""
    (tmp_path / "spool").write_text("")
    with Meter(endpoint.url, spool=tmp_path / "spool", env={}) as meter:
        meter.record({"id": "r0", "usage": {}}, "alice")
        assert meter.flush()
    assert ids(endpoint) == ["r0"]


def test_sent_events_leave_the_journal(endpoint: Endpoint, tmp_path: Path) -> None:
    """While a server does not answer they are in it, afterwards not, and it goes with its meter."""
    with Meter(endpoint.url, spool=tmp_path, env={}) as meter:
        endpoint.down = True
        meter.record({"id": "r0", "usage": {}}, "alice")
        wait_for(lambda: bool(endpoint.requests))
        (file,) = tmp_path.iterdir()
        assert json.loads(file.read_text())["id"] == "r0"
        assert file.stat().st_mode & 0o077 == 0
        endpoint.down = False
        assert meter.flush()
        assert file.read_text() == ""
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no journal then, and no file is left for each event."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    journal = Journal(tmp_path)
    for number in range(3):
        journal.add({"id": str(number)})
    assert list(tmp_path.iterdir()) == []
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_the_thread_survives_what_nobody_expected(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that is none of the network's ends neither the thread nor a flush, and loses nothing."""
    meter = Meter(endpoint.url, spool=tmp_path, env={})
    send = meter._sender.send
    failures = iter([RuntimeError("odd")] * 2)

    def sometimes(events: Sequence[dict[str, object]]) -> Outcome:
        for failure in failures:
            raise failure
        return send(events)

    monkeypatch.setattr(meter._sender, "send", sometimes)
    meter.record({"id": "r0", "usage": {}}, "alice")
    wait_for(lambda: len(endpoint.events) == 1)
    meter.close()
    assert (ids(endpoint), meter.counts) == (["r0"], Counts(sent=1))
