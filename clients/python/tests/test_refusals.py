"""A server that refuses events costs few requests, and few lines of the application's log."""

import logging
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue

import pytest

from otel_openai_metering.refusals import ALLOWED, PERIOD, Refusals
from otel_openai_metering.sender import Event, Outcome, Sender
from otel_openai_metering.spool import Spool
from otel_openai_metering.usage import Context
from otel_openai_metering.worker import Flush, Job, Worker

NOW = 1_795_305_600.0


class Refusing(Sender):
    """Refuses batches that have one of `bad`; says which it is if `tells`."""

    def __init__(self, bad: set[str], *, tells: bool) -> None:
        super().__init__("http://h", None)
        self.bad = bad
        self.tells = tells
        self.requests = 0
        self.taken: list[str] = []

    def send(self, events: Sequence[Event]) -> Outcome:
        """Answer a batch."""
        self.requests += 1
        for index, event in enumerate(events):
            if event["id"] in self.bad:
                return Outcome(
                    "refused", "http://h: 400 bad", None, index if self.tells else None, "400"
                )
        self.taken += [str(event["id"]) for event in events]
        return Outcome("sent")


def worker(sender: Sender, spool: Spool | None, count: int, at: float = 0.0) -> Worker:
    """A worker that has sent so many events, all it can at the moment."""
    made = Worker(SimpleQueue(), sender, spool)
    made._refusals.clock = lambda: at
    for number in range(count):
        job = Job({"id": f"r{number}", "usage": {"input_tokens": 1}}, Context("a", "s", "t", NOW))
        made.queue.put(job)
    made.queue.put(Flush(float("inf")))
    while not made.queue.empty():
        made._step()
    return made


ALL = {f"r{number}" for number in range(250)}


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("is_spooling", [True, False])
def test_a_server_that_refuses_everything_is_asked_seldom(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, tells: bool, is_spooling: bool
) -> None:
    """One line, and fewer than fifty requests for 250 events; the rest waits in the spool."""
    sender = Refusing(ALL, tells=tells)
    spool = Spool(tmp_path, 2**20) if is_spooling else None
    made = worker(sender, spool, 250)
    assert sender.requests < 50
    waiting = made.spooled if is_spooling else 0
    assert made.dropped + waiting == 250
    assert (waiting > 200) == is_spooling
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert 1 <= len(lines) <= 2  # the second is that of the last flush
    assert lines[0].startswith("the server refused events, ")


def test_the_rest_is_tried_in_the_next_period(tmp_path: Path) -> None:
    """A server whose fault was mended gets what waited; nothing but what was refused is lost."""
    sender = Refusing(ALL, tells=False)
    made = worker(sender, Spool(tmp_path, 2**20), 250)
    sender.bad = set()
    made._refusals.clock = lambda: PERIOD
    made._next_look = 0.0
    made._go()
    assert len(sender.taken) == 250 - made.dropped
    assert list(tmp_path.glob("*.json")) == []


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("every", [2, 3, 7, 50])
def test_what_is_good_arrives_whatever_stands_beside_it(*, tells: bool, every: int) -> None:
    """Also without a spool: a server that takes some events has all bad ones found."""
    bad = {f"r{number}" for number in range(0, 250, every)}
    sender = Refusing(bad, tells=tells)
    made = worker(sender, None, 250)
    assert set(sender.taken) == ALL - bad
    assert (made.dropped, made.sent) == (len(bad), 250 - len(bad))
    if tells:
        assert sender.requests <= 2 * len(bad) + 3


def test_a_line_says_how_many_since_the_last(caplog: pytest.LogCaptureFixture) -> None:
    """One for each kind and minute, and at the end what was not said."""
    now = 0.0
    refusals = Refusals(lambda: now)
    for second in range(130):
        now = float(second)
        refusals.add("400", "bad", 2)
        if second == 50:
            refusals.add("413", "large", 1)
        refusals.report()
    refusals.report(is_last=True)
    said = [
        record.getMessage().removeprefix("the server refused events, ") for record in caplog.records
    ]
    assert said == [
        "2 of them: bad", "1 of them: large", "120 of them: bad", "120 of them: bad", "18 of them: bad",
    ]  # fmt: skip


def test_an_allowance_is_renewed_every_period() -> None:
    """Accepted requests give some of it back."""
    now = 0.0
    refusals = Refusals(lambda: now)
    assert refusals.may_ask()
    for _ in range(ALLOWED):
        refusals.asked()
    assert not refusals.may_ask()
    refusals.accepted()
    assert refusals.may_ask()
    for _ in range(ALLOWED):
        refusals.asked()
    now = PERIOD
    assert refusals.may_ask()
