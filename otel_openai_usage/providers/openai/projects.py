"""The projects of an organization."""

from otel_openai_usage.providers.openai import lists
from otel_openai_usage.providers.openai.client import Client

ENDPOINT = "organization/projects"


class Project(lists.Identified):
    """The fields of a project that are used."""

    name: str | None = None
    status: str | None = None
    archived_at: int | float | None = None

    @property
    def is_archived(self) -> bool:
        """Whether it is archived: OpenAI refuses to list the keys and limits of such a project."""
        return self.status == "archived" or bool(self.archived_at)


async def listed(client: Client, *, priority: int, archived: bool) -> list[Project]:
    """All projects; with `archived` the archived ones, too. Raises SourceError."""
    params = [("include_archived", "true")] if archived else []
    return await lists.whole(
        client, ENDPOINT, Project, endpoint=ENDPOINT, priority=priority, params=params
    )
