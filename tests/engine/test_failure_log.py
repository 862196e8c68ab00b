"""What the log says of failing polls."""

import logging

import pytest

from otel_openai_usage.engine.failure_log import SAY_AGAIN_AFTER, FailureLog
from otel_openai_usage.engine.loop import as_bug
from otel_openai_usage.errors import BadRequest, BadResponse, MissingScope, Rejected, Unavailable


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What was logged, from info on."""
    caplog.set_level(logging.INFO)
    return caplog


def test_one_wrong_key_is_said_once_for_all_sources(said: pytest.LogCaptureFixture) -> None:
    """A rejected key makes one line, not one for each source and poll, and one when it is over for
    all.
    """
    failure_log = FailureLog("acme")
    for mono in (0.0, 60.0, 120.0):
        for source in ("usage/completions", "usage/embeddings", "costs"):
            failure_log.failed(source, Rejected(f"GET {source}: 401"), mono)
    assert [record.getMessage() for record in said.records] == [
        "the key is refused; every source needs it"
    ]
    for source in ("usage/completions", "usage/embeddings", "costs"):
        failure_log.recovered(source)
    assert [record.getMessage() for record in said.records] == [
        "the key is refused; every source needs it",
        "polls succeed again",
    ]


def test_troubles_of_different_kinds_are_each_said(said: pytest.LogCaptureFixture) -> None:
    """An odd answer of one endpoint is not hidden behind the outage of another."""
    failure_log = FailureLog("acme")
    failure_log.failed("costs", Unavailable("503"), 0.0)
    failure_log.failed("usage/images", BadResponse("no data"), 0.0)
    failure_log.failed("usage/audio_speeches", BadResponse("no data"), 0.0)
    assert len(said.records) == 3


def test_a_trouble_that_lasts_is_said_again_after_an_hour(said: pytest.LogCaptureFixture) -> None:
    """Somebody who reads only the last hour of the log sees it."""
    failure_log = FailureLog("acme")
    failure_log.failed("costs", Unavailable("503"), 0.0)
    failure_log.failed("costs", Unavailable("503"), SAY_AGAIN_AFTER - 1)
    failure_log.failed("costs", Unavailable("503"), SAY_AGAIN_AFTER)
    assert len(said.records) == 2


def test_a_source_that_changes_its_trouble_leaves_the_old_one(
    said: pytest.LogCaptureFixture,
) -> None:
    """After an outage that ends in a wrong key, recovery is said once."""
    failure_log = FailureLog("acme")
    failure_log.failed("costs", Unavailable("503"), 0.0)
    failure_log.failed("costs", Rejected("401"), 60.0)
    failure_log.recovered("costs")
    said_so = ["poll failed", "the key is refused; every source needs it", "polls succeed again"]
    assert [record.getMessage() for record in said.records] == said_so


def test_a_long_wait_is_said_once(said: pytest.LogCaptureFixture) -> None:
    """Somebody who starts it against a dead address hears of it before the retries are over, and
    once.
    """
    failure_log = FailureLog("acme")
    failure_log.slow("costs")
    failure_log.slow("usage/images")
    assert [record.getMessage() for record in said.records] == [
        "no usable answer yet; asking again"
    ]


def test_a_missing_scope_for_names_is_no_warning(said: pytest.LogCaptureFixture) -> None:
    """A key that may only read usage is a choice: said at level info."""
    FailureLog("acme").failed("names", MissingScope("403", scopes=["api.management.read"]), 0.0)
    assert [record.levelno for record in said.records] == [logging.INFO]


def test_texts_that_vary_are_one_kind(said: pytest.LogCaptureFixture) -> None:
    """A request id in each error text makes one line an hour, not one for each poll."""
    failure_log = FailureLog("acme")
    for poll in range(120):
        failure_log.failed(
            "costs", BadRequest(f"400 (request req_{poll})", status=400), poll * 60.0
        )
    assert len(said.records) == 2
    failure_log.failed("costs", BadRequest("418", status=418), 7200.0)
    assert len(said.records) == 3


def test_every_status_of_an_outage_is_one_kind(said: pytest.LogCaptureFixture) -> None:
    """A source that answers with another 5xx at each poll makes one line an hour."""
    failure_log = FailureLog("acme")
    for poll in range(50):
        status = 500 + poll
        failure_log.failed("limits", Unavailable(str(status), status=status), poll * 60.0)
    assert len(said.records) == 1


def test_kinds_that_take_turns_are_each_said_once(said: pytest.LogCaptureFixture) -> None:
    """A source that answers 500 and does not answer by turns makes two lines an hour."""
    failure_log = FailureLog("acme")
    for poll in range(50):
        status = 500 if poll % 2 else None
        failure_log.failed("costs", Unavailable(str(status), status=status), poll * 60.0)
    assert len(said.records) == 2


def test_a_source_that_comes_and_goes_does_not_flood_the_log(
    said: pytest.LogCaptureFixture,
) -> None:
    """Every second poll fails: a failure and a recovery are logged at most every ten minutes."""
    failure_log = FailureLog("acme")
    for poll in range(60):
        if poll % 2:
            failure_log.recovered("costs")
        else:
            failure_log.failed("costs", Unavailable("503", status=503), poll * 60.0)
    lines = [record.getMessage() for record in said.records]
    assert lines == ["poll failed", "polls succeed again"] * 6


def test_a_bug_is_said_with_its_trace(said: pytest.LogCaptureFixture) -> None:
    """What should not happen is logged once, with all that a developer needs."""
    failure_log = FailureLog("acme")
    for poll in range(3):
        failure_log.failed("costs", as_bug("costs", KeyError(poll)), poll * 60.0)
    (record,) = said.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)
