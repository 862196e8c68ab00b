"""The old usage endpoint of the simulated organization, for an ordinary key: one UTC day at a time,
five requests a minute.

OpenAI does not document the shapes; these were seen in answers. The records are the chat usage of
the same world, by the hour.
"""

from collections import deque
from collections.abc import Callable
from datetime import date, datetime

from aiohttp import web

from otel_openai_usage.domain.endpoints import ENDPOINTS
from otel_openai_usage.domain.model import Width, Window, floor, midnight
from otel_openai_usage.simulator import answers
from otel_openai_usage.simulator.world import World

ORDINARY_KEY = "sk-simulated"
PER_MINUTE = 5
_GROUPS = ("project_id", "user_id", "api_key_id", "model")
_KIND = ENDPOINTS["completions"]


class Legacy:
    """`GET /v1/usage` and `GET /v1/organizations/{id}/users`."""

    def __init__(self, world: World, clock: Callable[[], datetime]) -> None:
        self._world = world
        self._clock = clock
        self._passed: deque[float] = deque(maxlen=PER_MINUTE)

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Serve them."""
        router.add_get("/v1/usage", self.usage)
        router.add_get("/v1/organizations/{id}/users", self.users)

    async def usage(self, request: web.Request) -> web.Response:
        """Usage of one day, of everybody or of one user."""
        if refusal := self._refusal(request):
            return refusal
        text = request.query.get("date")
        user = request.query.get("user_public_id")
        if text is None:
            return _error("Missing query parameter 'date'", 400)
        try:
            day = midnight(date.fromisoformat(text))
        except ValueError:
            return _error(f"{text!r} is not a date", 400)
        return web.json_response(
            {
                "object": "list",
                "data": self._records(day, user),
                "ft_data": [],
                "dalle_api_data": [],
                "whisper_api_data": [],
                "tts_api_data": [],
                "assistant_code_interpreter_data": [],
                "retrieval_storage_data": [],
            }
        )

    async def users(self, request: web.Request) -> web.Response:
        """Everybody, by public id."""
        if refusal := self._refusal(request):
            return refusal
        people = [
            {"created": person.since, "user": {"object": "user", "id": person.id}}
            for person in self._world.company.people
        ]
        return web.json_response({"members": {"object": "list", "data": people}})

    def _records(self, day: int, user: str | None) -> list[dict[str, object]]:
        now = self._clock()
        company = self._world.company
        # The running hour is included, so the records of today change between two requests.
        running_hour = floor(int(now.timestamp()), Width.HOUR)
        end = min(day + Width.DAY, running_hour + Width.HOUR)
        if end <= day:
            return []
        window = Window(day, end)
        hours = self._world.visible("completions", window, Width.HOUR, _GROUPS, now)
        names = [measure.name for measure in _KIND.measures]
        records: list[dict[str, object]] = []
        for start, rows in hours.items():
            for dims, amounts in rows.items():
                who = dict(zip(_KIND.dimensions, dims, strict=True))
                used = dict(zip(names, amounts, strict=True))
                if user not in (None, who["user_id"]):
                    continue
                record = {
                    "organization_id": company.id,
                    "organization_name": company.name,
                    "aggregation_timestamp": start,
                    "n_requests": used["requests"],
                    "operation": "completion",
                    "snapshot_id": who["model"],
                    "n_context_tokens_total": used["input"],
                    "n_generated_tokens_total": used["output"],
                    "n_cached_context_tokens_total": used["input_cached"],
                    "email": None,
                    "user_id": who["user_id"],
                    "project_id": who["project_id"],
                    "api_key_id": who["api_key_id"],
                    "api_key_name": None,
                    "api_key_redacted": None,
                    "api_key_type": None,
                    "project_name": None,
                    "request_type": "",
                }
                records.append(record)
        return records

    def _refusal(self, request: web.Request) -> web.Response | None:
        authorization = request.headers.get("Authorization", "")
        if authorization != f"Bearer {ORDINARY_KEY}":
            key = authorization.removeprefix("Bearer ")
            return web.json_response(answers.wrong_key(key), status=401)
        now = self._clock().timestamp()
        if len(self._passed) == PER_MINUTE and now - self._passed[0] < 60:
            return _error(
                "Rate limit reached for usage on requests per min (RPM): Limit 5, Used 5, Requested 1.",
                429,
            )
        self._passed.append(now)
        return None


def _error(message: str, status: int) -> web.Response:
    return web.json_response(answers.error(message), status=status)
