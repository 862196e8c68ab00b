"""The client of an organization's administration API, as configured."""

from collections.abc import Callable

from otel_openai_usage.config import Organization, Settings
from otel_openai_usage.providers.openai.budget import Budget
from otel_openai_usage.providers.openai.client import Client, NoteOdd
from otel_openai_usage.providers.openai.key import Key


def openai_client(
    settings: Settings,
    organization: Organization,
    observe: Callable[[str, str, float], None] | None = None,
    *,
    budget: Budget | None = None,
    odd: NoteOdd | None = None,
) -> Client:
    """The client of one organization, as configured. `budget` is shared where there are several."""
    secret = organization.admin_key.get_secret_value() if organization.admin_key else ""
    return Client(
        name=organization.name,
        base_url=str(organization.base_url),
        key=Key(secret, path=organization.admin_key_file),
        timeout=settings.api.timeout.total_seconds(),
        max_concurrency=settings.api.max_concurrency,
        requests_per_minute=settings.api.requests_per_minute,
        retries=settings.api.retries,
        observe=observe,
        budget=budget or Budget(settings.api.max_bytes),
        odd=odd,
    )
