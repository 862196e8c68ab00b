"""The projects of an organization."""

from otel_openai_usage.providers.openai import lists
from otel_openai_usage.providers.openai.client import Client

ENDPOINT = "organization/projects"


class Project(lists.Identified):
    """What is read of a project."""

    name: str | None = None
    status: str | None = None
    archived_at: int | float | None = None

    @property
    def lives(self) -> bool:
        """Whether it is not archived; OpenAI refuses to tell more of an archived one."""
        return self.status != "archived" and not self.archived_at


async def listed(client: Client, *, priority: int, archived: bool) -> list[Project]:
    """All of them, the archived ones if asked for. Raises SourceError."""
    params = [("include_archived", "true")] if archived else []
    return await lists.whole(
        client, ENDPOINT, Project, endpoint=ENDPOINT, priority=priority, params=params
    )
