"""Spend limits of an organization and of its projects."""

import asyncio
import logging
from decimal import Decimal
from urllib.parse import quote

import msgspec

from otel_openai_usage.domain.model import Limit
from otel_openai_usage.errors import BadRequest, MissingScope, NotOffered, SourceError
from otel_openai_usage.providers.openai import money, wire
from otel_openai_usage.providers.openai.client import Client
from otel_openai_usage.providers.openai.projects import listed

log = logging.getLogger(__name__)

PRIORITY = 2


class _Enforcement(msgspec.Struct):
    status: str = "inactive"


class _SpendLimit(msgspec.Struct):
    threshold_amount: Decimal
    currency: str = "USD"
    enforcement: _Enforcement | None = None


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
