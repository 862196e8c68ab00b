"""The old usage endpoint: `GET /v1/usage?date=`, which takes an ordinary key and is in no
documentation (openai-api.md section 6).

Nobody promises its shape, so records are read leniently: what is odd is skipped and counted, and
never fails the rest.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from urllib.parse import quote

import msgspec

from otel_openai_usage.core.kinds import LEGACY
from otel_openai_usage.core.ledger import total
from otel_openai_usage.core.model import Amounts, Dims, Width, floor
from otel_openai_usage.errors import BadRequest, BadResponse, NotOffered, Rejected, SourceError
from otel_openai_usage.openai.answers import Advice
from otel_openai_usage.openai.client import Client
from otel_openai_usage.openai.wire import MOST

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
"""Our measures, and what the records of 2023 and later call them."""

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


@dataclass(slots=True)
class Day:
    """What the endpoint says of one UTC day: rows by the start of their hour, and how many records
    were skipped.
    """

    hours: dict[int, dict[Dims, Amounts]] = field(default_factory=dict)
    skipped: int = 0
    by_user: bool = False
    """Whether users were asked for one by one: then it is silent about the others."""

    @property
    def records(self) -> int:
        """How many rows there are."""
        return sum(map(len, self.hours.values()))


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
        self._users = tuple(users)
        self._organization_id = organization_id
        self._found: tuple[str, ...] | None = None
        self._left: tuple[str, ...] = ()
        """Users that were listed before: what they used on the day that they left is reported for a
        while.
        """

    async def read(self, day: int) -> Day:
        """The UTC day that starts at `day` (Unix seconds), whole or not at all: every user's if
        there are some. Raises SourceError.
        """
        users = await self._whom()
        found = Day(by_user=None not in users)
        for user in users:
            try:
                parse(await self._ask(day, user), day, found, user)
            except (BadRequest, NotOffered, Rejected) as error:
                if user not in self._left or error.status == 401:
                    raise
                log.debug(
                    "a user who left is asked for no more",
                    extra={"user": user, "error": str(error)},
                )
                self._left = tuple(left for left in self._left if left != user)
        return found

    async def _whom(self) -> Sequence[str | None]:
        if self._users != ("*",):
            return self._users or (None,)
        if self._organization_id:
            await self._look(
                self._organization_id
            )  # each time: a new user's tokens count from the first day on
        return (*(self._found or ()), *self._left) or (None,)

    async def _look(self, organization: str) -> None:
        try:
            listed = await self._list(organization)
        except SourceError as error:
            if self._found is None:
                raise
            log.warning(
                "listing users; those of the last time are read", extra={"error": str(error)}
            )
        else:
            self._left = tuple(
                user for user in (*(self._found or ()), *self._left) if user not in listed
            )
            self._found = listed

    async def _list(self, organization: str) -> tuple[str, ...]:
        await self._turn()
        body = await self._client.get(
            f"organizations/{quote(organization, safe='')}/users",
            endpoint="organizations/{id}/users",
        )
        try:
            members = _ANY.decode(body)["members"]["data"]
            return tuple(str(member["user"]["id"]) for member in members)
        except (msgspec.DecodeError, RecursionError, KeyError, TypeError) as error:
            raise BadResponse(
                f"GET organizations/{{id}}/users: not the shape we know: {error!r}"
            ) from error

    async def _ask(self, day: int, user: str | None) -> bytes:
        await self._turn()
        params = [
            ("date", date.fromordinal(719163 + day // Width.DAY).isoformat()),
            *([("user_public_id", user)] if user else []),
        ]
        return await self._client.get("usage", params, endpoint="usage")


def parse(body: bytes, day: int, into: Day, user: str | None = None) -> None:
    """Add the records of an answer to a day. Raises BadResponse if it is no answer of this endpoint
    at all.
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
    for name, records in arrays.items():
        for record in records:
            row = _row(_decoded(record), day, ARRAYS[name], user)
            if row is None:
                into.skipped += 1
            else:
                start, dims, amounts = row
                hour = into.hours.setdefault(start, {})
                hour[dims] = total(hour.get(dims, LEGACY.zero), amounts)


def _decoded(record: msgspec.Raw) -> object:
    try:
        return _RECORD.decode(record)
    except (
        msgspec.DecodeError,
        UnicodeDecodeError,
        RecursionError,
    ):  # such as a number beyond all bounds
        return None


def _row(
    record: object, day: int, operation: str, user: str | None
) -> tuple[int, Dims, Amounts] | None:
    if not isinstance(record, dict):
        return None
    amounts = tuple(_count(record, _AMOUNTS[measure.name]) for measure in LEGACY.measures)
    start = _count(record, ("aggregation_timestamp", "timestamp"))
    if any(amount is None for amount in amounts) or not any(amounts) or not start:
        return None
    if any(
        isinstance(record.get(field), list | dict) for fields in _DIMS.values() for field in fields
    ):
        return None
    values: dict[str, str | None] = {name: _text(record, fields) for name, fields in _DIMS.items()}
    values["operation"] = values["operation"] or operation or None
    values["user_id"] = values["user_id"] or user
    hour = min(
        max(floor(start, Width.HOUR), day), day + Width.DAY - Width.HOUR
    )  # a record belongs to the day that was asked for
    return (
        hour,
        tuple(values[name] for name in LEGACY.dimensions),
        tuple(amount or 0 for amount in amounts),
    )


def _count(record: Mapping[str, Any], fields: Sequence[str]) -> int | None:
    """A number of the record, 0 where there is none; None if it is none that can be counted."""
    for name in fields:
        value = record.get(name)
        if value is not None:
            whole = (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and 0 <= value <= MOST
                and float(value).is_integer()
            )
            return int(value) if whole else None
    return 0


def _text(record: Mapping[str, Any], fields: Sequence[str]) -> str | None:
    return next((str(record[name]) for name in fields if record.get(name)), None)
