"""The old usage endpoint: `GET /v1/usage?date=`, which takes an ordinary key. OpenAI does not
document it; the shapes here were seen in answers.

Nobody promises its shape, so records are read leniently: one odd value costs only itself, and is
counted.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any
from urllib.parse import quote

import msgspec

from otel_openai_usage.config import Settings
from otel_openai_usage.domain.endpoints import LEGACY, Measure
from otel_openai_usage.domain.model import Amounts, Dims, Width, floor
from otel_openai_usage.domain.reconciliation import total
from otel_openai_usage.errors import (
    BadRequest,
    BadResponse,
    NotOffered,
    RateLimited,
    Rejected,
    SourceError,
    Unavailable,
)
from otel_openai_usage.providers.budget import Budget
from otel_openai_usage.providers.openai.answers import Advice
from otel_openai_usage.providers.openai.client import Client
from otel_openai_usage.providers.openai.key import Key
from otel_openai_usage.providers.openai.text import LONGEST, Odd, cut
from otel_openai_usage.providers.openai.wire import MAX_COUNT
from otel_openai_usage.providers.provider import NoteOdd, Observe

ADVICE = Advice(
    "legacy.api_key must be a live API key of the organization",
    "lower legacy.requests_per_minute if this goes on",
)
ARRAYS = {
    "data": "",
    "ft_data": "fine_tuning",
    "dalle_api_data": "images",
    "whisper_api_data": "audio_transcriptions",
    "tts_api_data": "audio_speeches",
    "assistant_code_interpreter_data": "code_interpreter_sessions",
    "retrieval_storage_data": "retrieval_storage",
}
"""The arrays of an answer, and the operation of records that name none."""

_AMOUNTS = {
    "requests": ("n_requests", "num_requests"),
    "input": ("n_context_tokens_total", "n_context"),
    "output": ("n_generated_tokens_total", "n_generated"),
    "input_cached": ("n_cached_context_tokens_total",),
    "images": ("num_images",),
    "characters": ("num_characters",),
    "audio": ("num_seconds",),
}
"""The fields of records, since 2023, by measure."""

_FRACTIONAL = frozenset({"audio"})
"""Measures whose records may have fractions. They are summed exactly, then rounded once per row."""

_DIMS = {
    "organization_id": ("organization_id",),
    "organization_name": ("organization_name",),
    "operation": ("operation",),
    "model": ("snapshot_id", "model_id"),
    "project_id": ("project_id",),
    "api_key_id": ("api_key_id",),
    "user_id": ("user_id",),
}
log = logging.getLogger(__name__)
_ANY = msgspec.json.Decoder(dict[str, Any])
_ANSWER = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_RECORD = msgspec.json.Decoder()
"""One record after the other, so that one that cannot even be decoded does not take the others with
it.
"""


def legacy_client(
    settings: Settings,
    observe: Observe | None = None,
    *,
    budget: Budget | None = None,
    odd: NoteOdd | None = None,
) -> Client:
    """The client of the legacy source, with its ordinary key."""
    asked = settings.legacy
    first = settings.organizations[0]
    return Client(
        name=first.name,
        base_url=str(asked.base_url or first.base_url),
        key=Key(asked.api_key.get_secret_value() if asked.api_key else ""),
        timeout=settings.api.timeout.total_seconds(),
        retries=0,  # So few requests are allowed that the next poll is soon enough.
        observe=observe,
        advice=ADVICE,
        budget=budget or Budget(settings.api.max_bytes),
        odd=odd,
    )


@dataclass(slots=True)
class Day:
    """The usage of one UTC day.

    `hours` has rows by the start of their hour (Unix seconds). `odd` counts the values that were not
    understood. `by_user` says that users were asked for one by one, so the answer says nothing about
    the others. `unread` counts the users who could not be read now, but perhaps later.
    """

    hours: dict[int, dict[Dims, Amounts]] = field(default_factory=dict)
    odd: int = 0
    by_user: bool = False
    unread: int = 0

    @property
    def records(self) -> int:
        """How many rows there are."""
        return sum(map(len, self.hours.values()))


MAX_FAILURES = 3
"""So many users may fail, one after the other, before the endpoint itself is said to fail."""
MAX_REST = 12
"""Readings that a user is left out of at most, after failing again and again: an hour at five
minutes.
"""


@dataclass(slots=True)
class _Failing:
    """A user who cannot be read now. `rest` is how many readings leave this user out."""

    times: int = 0
    rest: int = 0

    def failed_again(self) -> None:
        self.rest = min(2**self.times - 1, MAX_REST)
        self.times += 1


class LegacySource:
    """Reads one day at a time. `turn` is awaited before each request: it keeps the rate.

    `users` are public ids; `*` stands for all users of the organization, whose id is needed then.
    """

    def __init__(
        self,
        client: Client,
        turn: Callable[[], Awaitable[None]],
        users: Sequence[str] = (),
        organization_id: str | None = None,
    ) -> None:
        self._client = client
        self._turn = turn
        self._users = tuple(dict.fromkeys(users))
        self._organization_id = organization_id
        self._listed: tuple[str, ...] | None = None
        self._left: tuple[str, ...] = ()
        """Users who were listed before. OpenAI goes on reporting the day on which a user left."""
        self._failing: dict[str, _Failing] = {}
        self._failed_in_a_row: set[str] = set()
        """Users who failed since the last answer of any user."""
        self._next_user: str | None = None
        """The user with whom the next reading begins, if the last one stopped early."""
        self._rate_limited: str | None = None
        """The user for whom the last reading was rate limited."""
        self._odd_entries = 0
        """Entries of the list of users that were reported as odd."""

    async def read(self, day: int) -> AsyncIterator[Day]:
        """Yield what is known of the UTC day that starts at `day` (Unix seconds), after each answer.

        Without users there is one answer. With users each one is asked for; one who cannot be read
        does not stop the others. Raises SourceError when nobody can be read, when the key is refused
        or when OpenAI asks for fewer requests; what was yielded before stays true. The next reading
        begins behind the user at whom this one stopped.
        """
        users = await self._users_to_read()
        if users is None:
            found = Day()
            parse(await self._ask(day, None), day, found)
            yield found
            return
        found = Day(by_user=True)
        first_error: SourceError | None = None
        answers = 0
        failures = 0
        rate_limited = self._rate_limited
        self._rate_limited = None
        for user in self._from_next(users):
            if self._is_resting(user):
                found.unread += 1
                continue
            try:
                parse(await self._ask(day, user), day, found, user)
            except SourceError as error:
                if error.status == 401:
                    raise
                # Every other user answered since this one was limited: it is this user's own.
                is_own_limit = user == rate_limited and answers > 0
                if isinstance(error, RateLimited) and not error.out_of_quota and not is_own_limit:
                    self._rate_limited = user
                    self._next_user = _behind(user, users)
                    raise
                first_error = first_error or error
                failures += 1
                self._note_failure(user, error)
                found.unread += not _is_gone(error)
                if not answers and failures >= MAX_FAILURES:
                    self._next_user = _behind(user, users)
                    raise self._nobody_answers(first_error, users) from None
            else:
                answers += 1
                self._note_answer(user)
                yield found
        if first_error is not None and not answers:
            self._failing.clear()
            raise self._nobody_answers(first_error, users)

    def _from_next(self, users: Sequence[str]) -> Sequence[str]:
        """The users in the order in which this reading asks for them."""
        begin = users.index(self._next_user) if self._next_user in users else 0
        self._next_user = None
        return (*users[begin:], *users[:begin])

    def _nobody_answers(self, first_error: SourceError, users: Sequence[str]) -> SourceError:
        """What a reading without any answer fails with.

        As long as some users are untried, the fault may be with those who failed, not with the key
        or the endpoint.
        """
        if self._failed_in_a_row.issuperset(users):
            return first_error
        return Unavailable(
            f"GET usage: none of the {len(self._failed_in_a_row)} users asked so far can be read"
            f" (the first: {first_error}); the next poll asks for the others",
            status=first_error.status,
        )

    def _is_resting(self, user: str) -> bool:
        failing = self._failing.get(user)
        if failing is None or failing.rest == 0:
            return False
        failing.rest -= 1
        return True

    def _note_failure(self, user: str, error: SourceError) -> None:
        self._failed_in_a_row.add(user)
        if _is_gone(error) and user in self._left:
            log.debug(
                "a user who left is not asked for again",
                extra={"event": "legacy_user_left", "user": user, "error": str(error)},
            )
            self._left = tuple(left for left in self._left if left != user)
            return
        failing = self._failing.setdefault(user, _Failing())
        if failing.times == 0:
            log.warning(
                "the usage of one user cannot be read; the others are read, and what this user had"
                " used today stays",
                extra={
                    "event": "legacy_user_unread",
                    "user": user,
                    "status": error.status,
                    "error": str(error),
                },
            )
        failing.failed_again()

    def _note_answer(self, user: str) -> None:
        self._failed_in_a_row.clear()
        if self._failing.pop(user, None) is not None:
            log.info(
                "the usage of a user can be read again",
                extra={"event": "legacy_user_read", "user": user},
            )

    async def _users_to_read(self) -> Sequence[str] | None:
        """The users to ask for one by one, or None for one request for the whole organization."""
        if self._users != ("*",):
            return self._users or None
        if self._organization_id:
            # Listed at every reading, so that a new user's tokens count from the first day on.
            await self._list_users(self._organization_id)
        return (*(self._listed or ()), *self._left) or None

    async def _list_users(self, organization: str) -> None:
        try:
            listed = await self._listed_now(organization)
        except SourceError as error:
            if self._listed is None:
                raise
            log.warning(
                "users cannot be listed; those of the last list are read",
                extra={"event": "legacy_users_unlisted", "error": str(error)},
            )
            return
        before = (*(self._listed or ()), *self._left)
        self._left = tuple(user for user in before if user not in listed)
        self._listed = listed

    async def _listed_now(self, organization: str) -> tuple[str, ...]:
        await self._turn()
        body = await self._client.get(
            f"organizations/{quote(organization, safe='')}/users",
            endpoint="organizations/{id}/users",
        )
        try:
            members = _ANY.decode(body)["members"]["data"]
            ids = [_user_id(member) for member in members]
        except (msgspec.DecodeError, RecursionError, KeyError, TypeError) as error:
            raise BadResponse(
                f"GET organizations/{{id}}/users: not the shape we know: {error!r}"
            ) from error
        # A user who is listed twice is read once.
        users = tuple(dict.fromkeys(id_ for id_ in ids if id_ is not None))
        if ids and not users:
            # Without users, the whole organization would be asked for.
            raise BadResponse("GET organizations/{id}/users: no entry has the id of a user")
        self._report_odd_entries(ids.count(None))
        return users

    def _report_odd_entries(self, odd: int) -> None:
        """Count entries without an id once each, though the list is read many times."""
        more = odd - self._odd_entries
        self._odd_entries = odd
        if more > 0:
            self._client.note_odd("organizations/{id}/users", Odd(left_out=more))

    async def _ask(self, day: int, user: str | None) -> bytes:
        await self._turn()
        params = [
            ("date", date.fromordinal(719163 + day // Width.DAY).isoformat()),
            *([("user_public_id", user)] if user is not None else []),
        ]
        return await self._client.get("usage", params, endpoint="usage")


def _user_id(member: object) -> str | None:
    """The id of a listed user; None for an entry without one that can be asked for."""
    user = member.get("user") if isinstance(member, dict) else None
    id_ = user.get("id") if isinstance(user, dict) else None
    if isinstance(id_, str) and id_.strip() and len(id_) <= LONGEST:
        return id_
    return None


def _behind(user: str, users: Sequence[str]) -> str:
    """The user who follows, the first one behind the last."""
    place = users.index(user) + 1
    return users[place % len(users)]


def _is_gone(error: SourceError) -> bool:
    """Whether OpenAI refuses this user, so that asking again will not help."""
    return isinstance(error, BadRequest | NotOffered | Rejected)


def parse(body: bytes, day: int, into: Day, user: str | None = None) -> None:
    """Add the records of an answer to a day.

    A record without usage that we know (sessions, stored bytes, only zeros) adds nothing. Raises
    BadResponse if the body is no answer of this endpoint; `into` is unchanged then.
    """
    try:
        answer = _ANSWER.decode(body)
        arrays = {
            name: _ARRAY.decode(raw)
            for name in ARRAYS
            if (raw := bytes(answer.get(name, b""))).startswith(b"[")
        }
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadResponse(f"GET usage: not the shape we know: {error}") from error
    if "data" not in arrays:
        raise BadResponse("GET usage: not the shape we know: no array `data`")
    odd = 0
    sums: dict[tuple[int, Dims], Amounts] = {}
    for name, records in arrays.items():
        for raw_record in records:
            record = _decoded(raw_record)
            if not isinstance(record, dict):
                odd += 1
                continue
            row = _Row(record, day, ARRAYS[name], user)
            odd += row.odd
            if any(row.amounts):
                key = (row.hour, row.dims)
                sums[key] = total(sums.get(key, LEGACY.zero), row.amounts)
    if any(amount > MAX_COUNT for amounts in sums.values() for amount in amounts):
        raise BadResponse(
            f"GET usage: an hour of more than {MAX_COUNT} of something, which nobody used"
        )
    into.odd += odd
    for (hour, dims), amounts in sums.items():
        rows = into.hours.setdefault(hour, {})
        rows[dims] = total(rows.get(dims, LEGACY.zero), _whole(amounts))


def _whole(amounts: Amounts) -> Amounts:
    """Amounts as whole numbers; half a second is rounded up."""
    return tuple(int(Decimal(amount).to_integral_value(ROUND_HALF_UP)) for amount in amounts)


def _decoded(record: msgspec.Raw) -> object:
    try:
        return _RECORD.decode(record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # A number beyond all bounds, or text that is not Unicode.
        return None


class _Row:
    """One record as a row: the start of its hour, its dimensions and its amounts.

    `odd` counts the values that were not understood: such a number counts as 0, such a text is
    absent.
    """

    def __init__(
        self, record: Mapping[str, Any], day: int, operation: str, user: str | None
    ) -> None:
        self.odd = 0
        self._record = record
        self.amounts = tuple(self._amount(measure) for measure in LEGACY.measures)
        self.hour = self._hour(day)
        values = {name: self._text(fields) for name, fields in _DIMS.items()}
        values["operation"] = values["operation"] or operation or None
        values["user_id"] = values["user_id"] or user
        self.dims: Dims = tuple(values[name] for name in LEGACY.dimensions)

    def _hour(self, day: int) -> int:
        """The start of the record's hour, within the day that was asked for."""
        time = self._number(("aggregation_timestamp", "timestamp"), fractions=True)
        last_hour = day + Width.DAY - Width.HOUR
        return min(max(floor(int(time), Width.HOUR), day), last_hour)

    def _amount(self, measure: Measure) -> int | Decimal:
        fractions = measure.name in _FRACTIONAL
        return self._number(_AMOUNTS[measure.name], fractions=fractions)

    def _number(self, fields: Sequence[str], *, fractions: bool) -> int | Decimal:
        for name in fields:
            value = self._record.get(name)
            if value is not None:
                number = _counted(value, fractions=fractions)
                self.odd += number is None
                return number or 0
        return 0

    def _text(self, fields: Sequence[str]) -> str | None:
        for name in fields:
            value = self._record.get(name)
            if isinstance(value, list | dict):
                self.odd += 1
            elif value:
                return cut(str(value))
        return None


def _counted(value: object, *, fractions: bool) -> int | Decimal | None:
    """The value as a number from 0 to the largest that we count; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    if not number.is_finite() or not 0 <= number <= MAX_COUNT:
        return None
    if number == number.to_integral_value():
        return int(number)
    return number if fractions else None
