import json
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from otel_openai_usage.domain import legacy_day
from otel_openai_usage.domain.endpoints import LEGACY
from otel_openai_usage.domain.legacy_day import Shown
from otel_openai_usage.domain.pricing import Unpriced
from otel_openai_usage.domain.snapshot import Board
from otel_openai_usage.engine.recorder import Clock, Recorder
from otel_openai_usage.errors import (
    BadRequest,
    BadResponse,
    NotOffered,
    RateLimited,
    Rejected,
    SourceError,
    Unavailable,
)
from otel_openai_usage.providers.openai.client import Client
from otel_openai_usage.providers.openai.legacy.poll import LegacyPoll, Pace
from otel_openai_usage.providers.openai.legacy.source import Day, LegacySource, parse
from otel_openai_usage.providers.openai.text import Odd
from otel_openai_usage.storage.sqlite.queries import open_queries
from otel_openai_usage.storage.sqlite.store import Store
from otel_openai_usage.view.attributes import AttributePolicy
from otel_openai_usage.view.snapshot_builder import SnapshotBuilder

DAY = 86_400
MONDAY = 1_793_577_600
FOO = ("org-bar", "foo", "completion", "gpt-3.5-turbo-0125")


class Ear:
    """Hears telemetry."""

    def __init__(self) -> None:
        self.odd = 0

    def skipped(self, organization: str, source: str, records: int) -> None:
        self.odd += records

    def poll_began(self, organization: str, source: str, lag: float) -> None: ...
    def polled(self, organization: str, source: str, seconds: float, rows: int) -> None: ...
    def late(self, organization: str, source: str, lag: str, tokens: int) -> None: ...
    def gap(self, organization: str, source: str, outcome: str, seconds: float) -> None: ...
    def series(self, instrument: str, live: int, folded: int) -> None: ...
    def unpriced(
        self, organization: str, operation: str, unpriced: Unpriced, amount: int
    ) -> None: ...


class Time:
    """A clock that sleeping moves on; what was shown before each sleep is remembered."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.before_sleep = [""]

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.now, lambda: self.now, self.sleep)


class Days:
    """Implements the source: yields scripted answers, and remembers the requests."""

    def __init__(self) -> None:
        self.says: dict[int, int] = {}
        self.asked: list[int] = []

    async def read(self, day: int) -> AsyncIterator[Day]:
        self.asked.append(day)
        dims = tuple(
            {
                "organization_id": FOO[0],
                "organization_name": FOO[1],
                "operation": FOO[2],
                "model": FOO[3],
            }.get(name)
            for name in LEGACY.dimensions
        )
        said = self.says.get(day)
        yield Day({day: {dims: (1, said, 2, 0, 0, 0, 0)}}) if said else Day()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the state is."""
    return tmp_path / "state.db"


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    """A store that is closed afterwards."""
    opened = Store(file)
    yield opened
    opened.close()


def recorder(store: Store, time: Time, shown: list[Shown | None]) -> Recorder:
    """A recorder whose snapshot builder remembers every frame of the legacy counters."""

    class Remembers(SnapshotBuilder):
        def apply_legacy(self, frame: Shown | None) -> None:
            shown.append(frame)
            super().apply_legacy(frame)

    return Recorder(store, Remembers(AttributePolicy()), Board(), time.clock, Ear(), otlp=False)


def test_an_odd_value_costs_only_itself() -> None:
    """Every array is read; a value that is not understood is left out and counted, the rest of its
    record is kept; both spellings of 2023 are known.
    """
    good = {
        "organization_id": "org-bar",
        "organization_name": "foo",
        "aggregation_timestamp": MONDAY + 3700,
        "operation": "completion",
        "snapshot_id": "gpt-4o",
        "n_requests": 3,
        "n_context_tokens_total": 47,
        "n_generated_tokens_total": 20,
    }
    old = {
        "aggregation_timestamp": MONDAY,
        "n_requests": 1,
        "n_context": 5,
        "n_generated": 6,
        "snapshot_id": "ada",
    }
    body = {
        "object": "list",
        "data": [
            good,
            good,
            old,
            "what",
            {},
            {**good, "n_requests": "many"},
            {**good, "n_requests": -1},
            {**good, "aggregation_timestamp": 0},
            {**good, "n_requests": 10**30},
            {**good, "n_requests": 1e300},
            {**good, "n_requests": True},
            {**good, "n_requests": "3"},
            {**good, "operation": {"a": [1]}},
            {**good, "snapshot_id": ["x"]},
            None,
            [good],
            7,
        ],
        "whisper_api_data": [
            {"timestamp": MONDAY, "model_id": "whisper-1", "num_seconds": 9, "num_requests": 1}
        ],
        "tts_api_data": None,
        "new_data": [1],
    }
    day = Day()
    parse(json.dumps(body).replace('"what"', '{"n_requests": 1e999}').encode(), MONDAY, day)
    assert day.odd == 11
    sums = legacy_day.sums(day.hours)
    assert sums["org-bar", "foo", "completion", "gpt-4o"] == (12, 9 * 47, 9 * 20)
    assert sums["org-bar", "foo", "", "gpt-4o"] == (3, 47, 20)
    assert sums["org-bar", "foo", "completion", ""] == (3, 47, 20)
    assert sums["", "", "", "ada"] == (1, 5, 6)
    assert sums["", "", "audio_transcriptions", "whisper-1"] == (1, 0, 0)


@pytest.mark.parametrize(
    "body",
    [
        '{"object": "list"}',
        '{"data": null}',
        '{"data": {"a": 1}}',
        "[]",
        "<html>",
        '{"data": ' + "[" * 9999,
    ],
)
def test_another_answer_is_told(body: str) -> None:
    """An answer without an array `data` is not of this endpoint."""
    with pytest.raises(BadResponse, match="GET usage: not the shape we know"):
        parse(body.encode(), MONDAY, Day())


def test_endless_text_is_cut() -> None:
    """Every text of a record is cut at 1,024 characters."""
    record = {"n_requests": 1, "project_id": "p" * 100_000, "snapshot_id": "m" * 100_000}
    day = Day()
    parse(json.dumps({"data": [record]}).encode(), MONDAY, day)
    ((dims, _),) = day.hours[MONDAY].items()
    assert max(len(text) for text in dims if text) == 1024


class Answers(Client):
    """Answers a user's usage and the list of users as scripted; remembers the requests."""

    def __init__(self) -> None:
        self.users: list[str] | SourceError = []
        self.odd_entries: list[object] = []
        self.odd: list[Odd] = []
        self.used: dict[str, int | SourceError] = {}
        self.asked: list[str] = []

    async def get(
        self, path: str, params: Sequence[tuple[str, str]] = (), *, endpoint: str, priority: int = 0
    ) -> bytes:
        if path == "usage":
            user = dict(params).get("user_public_id", "-")
            self.asked.append(user)
            used = self.used.get(user, 0)
            if isinstance(used, SourceError):
                raise used
            record = {
                "aggregation_timestamp": MONDAY,
                "n_requests": 1,
                "n_context_tokens_total": used,
            }
            return json.dumps({"data": [record] if used else []}).encode()
        self.asked.append(path)
        if isinstance(self.users, SourceError):
            raise self.users
        entries = [{"user": {"id": user}} for user in self.users]
        return json.dumps({"members": {"data": [*self.odd_entries, *entries]}}).encode()

    def note_odd(self, endpoint: str, odd: Odd) -> None:
        self.odd.append(odd)


async def test_every_user_of_the_organization_is_asked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`*` lists the users each time, so that a new one is not missed; where the list fails, those
    of the last time are read.
    """
    answers = Answers()
    turns = list[int]()

    async def turn() -> None:
        turns.append(1)

    source = LegacySource(answers, turn, ["*"], "org/1")
    listing = "organizations/org%2F1/users"
    answers.users = Unavailable("GET organizations/{id}/users: 503", status=503)
    with pytest.raises(Unavailable):
        await whole(source)
    answers.users = ["u1"]
    await whole(source)
    answers.users = ["u1", "u2"]
    await whole(source)
    answers.users = Unavailable("GET organizations/{id}/users: 503", status=503)
    await whole(source)
    assert answers.asked == [listing, listing, "u1", listing, "u1", "u2", listing, "u1", "u2"]
    assert len(turns) == len(answers.asked)
    assert "those of the last list are read" in caplog.text


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    "gone",
    [BadRequest("400", status=400), NotOffered("404", status=404), Rejected("403", status=403)],
)
async def test_who_leaves_takes_nothing_along(
    store: Store, file: Path, gone: SourceError, restarted: bool
) -> None:
    """The day keeps what a user used who left, whom OpenAI knows no more; new tokens of the others
    are counted beside them.
    """
    time = Time(MONDAY + 500)
    answers = Answers()
    frames = list[Shown | None]()
    answers.users = ["stays", "leaves"]
    answers.used = {"stays": 5, "leaves": 7}

    def poll() -> LegacyPoll:
        return LegacyPoll(
            recorder(store, time, frames),
            store,
            LegacySource(answers, turn, ["*"], "org-1"),
            store.source_state("default", LEGACY, 0, ()),
            Ear(),
            hold=0,
        )

    async def turn() -> None: ...

    polling = poll()
    await polling.poll()
    answers.users = ["stays"]
    answers.used = {"stays": 6, "leaves": 9}
    if not restarted:
        await polling.poll()  # who left is still asked for
        assert context(frames) == 15
    answers.used["leaves"] = gone
    for _ in range(2):
        polling = poll() if restarted else polling
        await polling.poll()
    kept = 7 if restarted else 9
    assert context(frames) == 6 + kept
    assert answers.asked.count("leaves") == (1 if restarted else 3)
    with open_queries(file) as past:
        rows = past.usage(MONDAY, MONDAY + DAY, by=("user_id",), record="legacy_usage")
    assert [(row.group, row.input) for row in rows] == [(("leaves",), kept), (("stays",), 6)]


async def test_the_source_fails_when_nobody_can_be_read() -> None:
    """If no user can be read, the reading fails with the first user's error."""
    answers = Answers()
    answers.users = ["u"]
    answers.used = {"u": NotOffered("404", status=404)}

    async def turn() -> None: ...

    with pytest.raises(NotOffered):
        await whole(LegacySource(answers, turn, ["*"], "org-1"))


async def whole(source: LegacySource) -> Day:
    """The last state of a day."""
    return [day async for day in source.read(MONDAY)][-1]


async def no_wait() -> None:
    """A turn that comes at once."""


@pytest.mark.parametrize(
    "failure_log",
    [
        BadRequest("400", status=400),
        Rejected("403", status=403),
        NotOffered("404", status=404),
        Unavailable("500", status=500),
        Unavailable("timed out"),
    ],
    ids=str,
)
async def test_a_user_who_cannot_be_read_does_not_stop_the_others(
    caplog: pytest.LogCaptureFixture, failure_log: SourceError
) -> None:
    """The others are read; the one who fails is reported once and tried ever more seldom, and is
    read again when that works.
    """
    answers = Answers()
    answers.used = {"a": 5, "bad": failure_log, "c": 9}
    source = LegacySource(answers, no_wait, ["a", "bad", "c"])
    for _ in range(40):
        day = await whole(source)
        assert sum(row[1] for rows in day.hours.values() for row in rows.values()) == 14
    reports = [record for record in caplog.records if "one user" in record.getMessage()]
    assert len(reports) == 1
    assert answers.asked.count("c") == 40
    assert 3 <= answers.asked.count("bad") <= 8
    answers.used["bad"] = 2
    for _ in range(13):
        day = await whole(source)
    assert sum(row[1] for rows in day.hours.values() for row in rows.values()) == 16


async def test_a_refused_key_is_not_taken_for_a_users_fault() -> None:
    """A 401 ends the reading at the first user: the key is refused, and no other user is asked."""
    answers = Answers()
    answers.used = {"a": Rejected("401", status=401)}
    with pytest.raises(Rejected):
        await whole(LegacySource(answers, no_wait, ["a", "b"]))
    assert answers.asked == ["a"]


async def test_listed_entries_without_an_id_are_left_out() -> None:
    """Only users with an id are asked for; an entry without one is counted once, and never asks for
    the whole organization.
    """
    answers = Answers()
    answers.odd_entries = [
        None,
        {},
        {"user": None},
        {"user": {"id": None}},
        {"user": {"id": ""}},
        {"user": {"id": 5}},
        {"user": {"id": "x" * 5000}},
    ]
    answers.users = ["a", "b"]
    source = LegacySource(answers, no_wait, ["*"], "org-1")
    for _ in range(2):
        await whole(source)
    assert [user for user in answers.asked if "organizations" not in user] == ["a", "b", "a", "b"]
    assert answers.odd == [Odd(left_out=7)]


async def test_a_list_without_any_user_id_is_an_error() -> None:
    """The whole organization is not asked for in place of users without ids."""
    answers = Answers()
    answers.odd_entries = [{"user": {"id": ""}}]
    with pytest.raises(BadResponse):
        await whole(LegacySource(answers, no_wait, ["*"], "org-1"))
    assert answers.asked == ["organizations/org-1/users"]


async def test_a_reading_goes_on_behind_the_user_who_met_a_rate_limit() -> None:
    """A rate limit ends a reading, and the next one begins behind that user. A user who alone is
    limited again is reported, and the reading does not fail.
    """
    answers = Answers()
    answers.used = {"a": 1, "b": RateLimited("429"), "c": 3}
    source = LegacySource(answers, no_wait, ["a", "b", "c"])
    with pytest.raises(RateLimited):
        await whole(source)
    day = await whole(source)
    assert answers.asked == ["a", "b", "c", "a", "b"]
    assert day.records == 2
    assert day.unread == 1


async def test_a_user_without_quota_does_not_stop_the_others() -> None:
    """`insufficient_quota` is no rate limit: the reading goes on with the next user."""
    answers = Answers()
    answers.used = {"a": RateLimited("429", out_of_quota=True), "b": 2}
    day = await whole(LegacySource(answers, no_wait, ["a", "b"]))
    assert answers.asked == ["a", "b"]
    assert day.records == 1


async def test_the_key_is_not_said_to_be_refused_while_users_are_untried() -> None:
    """If the first users are refused, the next readings ask for the others, and the one who works
    is read.
    """
    users = [f"user-{number}" for number in range(12)]
    answers = Answers()
    answers.used = {user: Rejected("403", status=403) for user in users}
    answers.used["user-5"] = 7
    source = LegacySource(answers, no_wait, users)
    with pytest.raises(Unavailable, match="none of the 3 users"):
        await whole(source)
    assert (await whole(source)).records == 1
    assert set(answers.asked) == set(users)


async def test_the_key_is_refused_once_every_user_was_refused() -> None:
    """If no user can be read, the error of the first one is raised in the end."""
    users = [f"user-{number}" for number in range(5)]
    answers = Answers()
    answers.used = {user: Rejected("403", status=403) for user in users}
    source = LegacySource(answers, no_wait, users)
    with pytest.raises(Unavailable):
        await whole(source)
    with pytest.raises(Rejected):
        await whole(source)


async def test_answers_are_shown_as_they_come(store: Store) -> None:
    """With users who are asked for one by one, each answer is shown before the next is asked for,
    and the source counts as answered after the first.
    """
    time = Time(MONDAY + 500)
    frames: list[Shown | None] = []
    seen: list[int] = []
    answered: list[int] = []
    answers = Answers()
    answers.used = {"a": 5, "b": 7, "c": 9}

    async def turn() -> None:
        seen.append(context(frames) if frames and frames[-1] else 0)

    source = LegacySource(answers, turn, ["a", "b", "c"])
    source_state = store.source_state("default", LEGACY, 0, ())
    poll = LegacyPoll(recorder(store, time, frames), store, source, source_state, Ear(), hold=0)
    poll.answered = lambda: answered.append(len(answers.asked))
    await poll.poll()
    assert seen == [0, 5, 12]
    assert answered == [1, 2, 3]


@pytest.mark.parametrize(
    ("record", "requests"),
    [
        ({"num_seconds": 12.5, "num_requests": 2, "model_id": "whisper-1"}, 2),
        ({"num_sessions": 4}, 0),
        ({"bytes": 4444}, 0),
        ({"n_requests": 0, "n_context_tokens_total": 0, "snapshot_id": "idle"}, 0),
        ({"n_requests": "3"}, 3),
        ({"n_requests": 3.0}, 3),
    ],
)
def test_a_record_of_another_sort_is_no_oddity(record: dict[str, object], requests: int) -> None:
    """Fractions of seconds, sessions, stored bytes and zeros are taken as far as they are usage, and
    nothing is reported.
    """
    day = Day()
    parse(json.dumps({"data": [{"timestamp": MONDAY, **record}]}).encode(), MONDAY, day)
    assert day.odd == 0
    assert sum(row[0] for rows in day.hours.values() for row in rows.values()) == requests
    assert all(any(row) for rows in day.hours.values() for row in rows.values())


def test_fractions_of_seconds_are_summed_before_they_are_rounded() -> None:
    """Four records of 12.4 s are 50 s, not 48."""
    records = [{"timestamp": MONDAY, "num_seconds": 12.4, "num_requests": 1}] * 4
    day = Day()
    parse(json.dumps({"data": [], "whisper_api_data": records}).encode(), MONDAY, day)
    (row,) = (row for rows in day.hours.values() for row in rows.values())
    assert dict(zip((m.name for m in LEGACY.measures), row, strict=True))["audio"] == 50


def test_a_sum_that_nobody_used_is_refused_whole() -> None:
    """Records that add up to more than could be counted are refused, and nothing of them is kept."""
    day = Day()
    with pytest.raises(BadResponse, match="nobody used"):
        parse(json.dumps({"data": [{"n_requests": 10**16}] * 1000}).encode(), MONDAY, day)
    assert day == Day()


async def test_values_that_are_not_understood_are_counted_once(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """A value that stays odd in every reading of a day is reported and counted once."""

    class Odd(Days):
        async def read(self, day: int) -> AsyncIterator[Day]:
            yield Day(odd=3)

    ear = Ear()
    held = recorder(store, Time(MONDAY + 500), [])
    poll = LegacyPoll(held, store, Odd(), store.source_state("default", LEGACY, 0, ()), ear, hold=0)
    for _ in range(5):
        await poll.poll()
    assert ear.odd == 3
    assert caplog.text.count("not understood") == 1


def context(frames: list[Shown | None]) -> int:
    """The context tokens that are shown."""
    assert frames[-1] is not None
    return frames[-1].sums["", "", "", ""][1]


def test_counters_never_fall_within_a_day_and_begin_at_zero_with_the_next() -> None:
    """What is new is 0 first, what OpenAI takes back stays, and on a new day everything known is 0
    first.
    """
    assert legacy_day.frame(None, MONDAY, {FOO: (3, 47, 20)}, ()) == Shown(
        MONDAY, {FOO: (3, 47, 20)}
    )
    before = Shown(MONDAY, {FOO: (3, 47, 20)})
    assert legacy_day.frame(before, MONDAY, {FOO: (4, 40, 20)}, ()) == Shown(
        MONDAY, {FOO: (4, 47, 20)}
    )
    other = ("o", "", "completion", "new")
    said = {FOO: (4, 47, 20), other: (1, 2, 3)}
    first = legacy_day.frame(before, MONDAY, said, {other})
    assert first.sums == {FOO: (4, 47, 20), other: (0, 0, 0)}
    then = legacy_day.frame(first, MONDAY, said, ())
    assert then.sums == {FOO: (4, 47, 20), other: (1, 2, 3)}
    tomorrow = {other: (1, 2, 3)}
    zero = legacy_day.frame(before, MONDAY + DAY, tomorrow, {FOO, other})
    assert zero == Shown(MONDAY + DAY, {FOO: (0, 0, 0), other: (0, 0, 0)})
    then = legacy_day.frame(zero, MONDAY + DAY, tomorrow, ())
    assert then.sums == {FOO: (0, 0, 0), other: (1, 2, 3)}


async def test_the_ended_day_is_read_once_more_before_midnight_shows(
    store: Store, file: Path
) -> None:
    """After midnight: the last value of the ended day, then zeros with a new start, then today;
    also when a restart lies between.
    """
    time = Time(MONDAY + DAY - 100)
    days = Days()
    shown: list[Shown | None] = []
    days.says = {MONDAY: 10}
    source_state = store.source_state("default", LEGACY, 0, ())
    poll = LegacyPoll(recorder(store, time, shown), store, days, source_state, Ear(), hold=30)
    await poll.poll()
    time.now = MONDAY + DAY + 200
    days.says = {MONDAY: 12, MONDAY + DAY: 7}
    shown.clear()
    poll = LegacyPoll(recorder(store, time, shown), store, days, source_state, Ear(), hold=30)
    await poll.poll()
    assert days.asked == [MONDAY, MONDAY, MONDAY + DAY]
    frames = [(frame.day, frame.sums.get(FOO)) for frame in shown if frame is not None]
    assert frames == [
        (MONDAY, (1, 10, 2)),
        (MONDAY, (1, 12, 2)),
        (MONDAY + DAY, (0, 0, 0)),
        (MONDAY + DAY, (1, 7, 2)),
    ]
    with open_queries(file) as past:
        assert [
            row.input for row in past.usage(MONDAY, MONDAY + 2 * DAY, record="legacy_usage")
        ] == [12, 7]
        assert past.usage(MONDAY, MONDAY + 2 * DAY) == []


async def test_the_points_have_the_start_of_their_day(store: Store) -> None:
    """A legacy counter's counting began at UTC midnight."""
    time = Time(MONDAY + 500)
    days = Days()
    days.says = {MONDAY: 10}
    held = recorder(store, time, [])
    await LegacyPoll(
        held, store, days, store.source_state("default", LEGACY, 0, ()), Ear(), hold=0
    ).poll()
    snapshot = held.snapshot_builder.snapshot(time.now, time.now)
    assert snapshot is not None
    (point,) = snapshot.points["chatgpt_api_usage.context_tokens"]
    assert (point.value, point.series.start) == (10, MONDAY * 1_000_000_000)
    assert point.series.attributes == dict(
        zip(("organization_id", "organization_name", "operation", "snapshot_id"), FOO, strict=True)
    )


def pace(store: Store, time: Time) -> Pace:
    """Five requests a minute."""
    return Pace(store, 5, time.clock, recorder(store, time, []).do)


async def test_five_a_minute_across_a_restart(store: Store) -> None:
    """Requests of the process before count: the sixth within a minute waits."""
    time = Time(MONDAY)
    for _ in range(3):
        await pace(store, time).turn()
    again = pace(store, time)
    for _ in range(2):
        await again.turn()
    assert time.now == MONDAY
    await again.turn()
    assert time.now == MONDAY + 60
