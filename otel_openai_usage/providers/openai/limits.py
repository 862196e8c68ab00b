"""Spend limits of an organization and of its projects."""

import asyncio
import logging
from collections.abc import Iterator
from decimal import Decimal
from urllib.parse import quote

import msgspec

from otel_openai_usage.domain.model import Limit, RateLimit
from otel_openai_usage.errors import BadRequest, MissingScope, NotOffered, SourceError
from otel_openai_usage.providers.openai import lists, money, wire
from otel_openai_usage.providers.openai.client import Client
from otel_openai_usage.providers.openai.projects import listed
from otel_openai_usage.providers.openai.text import cut

log = logging.getLogger(__name__)

PRIORITY = 2
_MOST = 2**53
"""A larger number is no limit."""


class _Enforcement(msgspec.Struct):
    status: str = "inactive"


class _SpendLimit(msgspec.Struct):
    threshold_amount: Decimal
    currency: str = "USD"
    enforcement: _Enforcement | None = None


class _RateLimits(lists.Identified):
    """The rate limits of one model in one project (`project.rate_limit`)."""

    model: str | None = None
    max_requests_per_1_minute: int | float | None = None
    max_tokens_per_1_minute: int | float | None = None
    max_images_per_1_minute: int | float | None = None
    max_audio_megabytes_per_1_minute: int | float | None = None
    max_requests_per_1_day: int | float | None = None
    batch_1_day_max_input_tokens: int | float | None = None


_RATE_FIELDS = {
    "requests_per_minute": "max_requests_per_1_minute",
    "tokens_per_minute": "max_tokens_per_1_minute",
    "images_per_minute": "max_images_per_1_minute",
    "audio_megabytes_per_minute": "max_audio_megabytes_per_1_minute",
    "requests_per_day": "max_requests_per_1_day",
    "batch_input_tokens_per_day": "batch_1_day_max_input_tokens",
}
"""Values of the attribute `limit`, and the fields of OpenAI."""
_SPEND_LIMIT = msgspec.json.Decoder(_SpendLimit)


class OpenAILimits:
    """Hard monthly spend limits, in currency units (OpenAI's `threshold_amount` is in cents).

    One call for the organization, one per 100 projects and one per project; 404 means no limit. The
    shape is that of OpenAI's Python client 3.54.0 (`organization.spend_limit`,
    `project.spend_limit`). A single project that cannot be read keeps the limit that it had.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._last: dict[str, Limit | None] = {}
        self._last_rates: dict[str, list[RateLimit]] = {}

    async def read(self) -> list[Limit]:
        """The organization's limit and those of its projects, where there are any. Raises
        SourceError.
        """
        own = await self._limit(None, "organization/spend_limit", "organization/spend_limit")
        projects = await self._projects()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._of_project(project)) for project in projects]
        found = [task.result() for task in tasks]
        errors = [answer for answer in found if isinstance(answer, SourceError)]
        if errors and len(errors) == len(found):
            raise errors[0]
        self._last = {
            project: self._last.get(project) if isinstance(answer, SourceError) else answer
            for project, answer in zip(projects, found, strict=True)
        }
        return [limit for limit in (own, *self._last.values()) if limit is not None]

    async def read_rates(self) -> list[RateLimit]:
        """The rate limits of all projects. Raises SourceError if none could be read.

        One call per project and 100 models. A single project that cannot be read keeps what it had.
        """
        projects = await self._projects()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._rates_of(project)) for project in projects]
        found = [task.result() for task in tasks]
        errors = [answer for answer in found if isinstance(answer, SourceError)]
        if errors and len(errors) == len(found):
            raise errors[0]
        self._last_rates = {
            project: self._last_rates.get(project, [])
            if isinstance(answer, SourceError)
            else answer
            for project, answer in zip(projects, found, strict=True)
        }
        return [rate for rates in self._last_rates.values() for rate in rates]

    async def _rates_of(self, project: str) -> list[RateLimit] | SourceError:
        try:
            found = await lists.whole(
                self._client,
                f"organization/projects/{quote(project, safe='')}/rate_limits",
                _RateLimits,
                endpoint="organization/projects/{id}/rate_limits",
                priority=PRIORITY,
            )
        except (NotOffered, BadRequest):  # an archived project
            return []
        except SourceError as error:
            log.debug(
                "rate limits not read",
                extra={
                    "event": "limit_unread",
                    "organization": self._client.name,
                    "project": project,
                    "error": str(error),
                },
            )
            return error
        return [rate for limits in found for rate in _rates(project, limits)]

    async def _projects(self) -> list[str]:
        try:
            found = await listed(self._client, priority=PRIORITY, archived=False)
        except (MissingScope, NotOffered) as error:
            # The organization's own limit is shown without those of its projects.
            log.debug(
                "limits of projects not read",
                extra={
                    "event": "limits_unread",
                    "organization": self._client.name,
                    "error": str(error),
                },
            )
            return []
        return sorted(project.id for project in found if not project.is_archived)

    async def _of_project(self, project: str) -> Limit | SourceError | None:
        try:
            path = f"organization/projects/{quote(project, safe='')}/spend_limit"
            return await self._limit(project, path, "organization/projects/{id}/spend_limit")
        except BadRequest:  # an archived project
            return None
        except SourceError as error:
            log.debug(
                "limit not read",
                extra={
                    "event": "limit_unread",
                    "organization": self._client.name,
                    "project": project,
                    "error": str(error),
                },
            )
            return error

    async def _limit(self, project: str | None, path: str, endpoint: str) -> Limit | None:
        try:
            body = await self._client.get(path, endpoint=endpoint, priority=PRIORITY)
        except NotOffered:
            return None
        said = wire.decode(_SPEND_LIMIT.decode, body, endpoint)
        amount = money.exact(said.threshold_amount, f"{endpoint}: threshold_amount").scaleb(-2)
        enforcing = said.enforcement is not None and said.enforcement.status == "enforcing"
        return Limit(project, amount, said.currency.lower(), enforcing)


def _rates(project: str, limits: _RateLimits) -> Iterator[RateLimit]:
    if not limits.model:
        return
    for name, field in _RATE_FIELDS.items():
        value = getattr(limits, field)
        if value is not None and 0 <= value < _MOST:
            yield RateLimit(project, cut(limits.model), name, int(value))
