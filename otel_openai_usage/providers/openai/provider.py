"""OpenAI as a provider: an organization's endpoints, names and spend limits, as configured."""

import time
from collections.abc import Callable

from otel_openai_usage.config import Organization, Settings
from otel_openai_usage.domain.endpoints import ENDPOINTS
from otel_openai_usage.providers.budget import Budget
from otel_openai_usage.providers.openai.client import Client
from otel_openai_usage.providers.openai.guard import Guard
from otel_openai_usage.providers.openai.key import Key
from otel_openai_usage.providers.openai.limits import OpenAILimits
from otel_openai_usage.providers.openai.names import OpenAINames
from otel_openai_usage.providers.openai.sources import UsageSource
from otel_openai_usage.providers.provider import NoteOdd, Observe, Provider
from otel_openai_usage.providers.vault import Vault

PAST = 3
"""The priority of requests for past days: whatever else waits goes first."""


def open_provider(
    settings: Settings,
    organization: Organization,
    vault: Vault,
    *,
    observe: Observe | None = None,
    odd: NoteOdd | None = None,
    budget: Budget | None = None,
    now: Callable[[], float] = time.time,
    mono: Callable[[], float] = time.monotonic,
) -> Provider:
    """See OpenProvider."""
    client = openai_client(settings, organization, observe, budget=budget, odd=odd)
    client.guard = Guard(client, vault, now=now, mono=mono)
    sources = {name: UsageSource(client, endpoint) for name, endpoint in ENDPOINTS.items()}
    past_sources = {
        name: UsageSource(client, endpoint, priority=PAST) for name, endpoint in ENDPOINTS.items()
    }
    return Provider(
        sources=sources,
        past_sources=past_sources,
        names=OpenAINames(client, emails=settings.names.emails),
        limits=OpenAILimits(client),
        probe=client.check_key,
        connection=client,
    )


def openai_client(
    settings: Settings,
    organization: Organization,
    observe: Observe | None = None,
    *,
    budget: Budget | None = None,
    odd: NoteOdd | None = None,
) -> Client:
    """The client of one organization's administration API. Raises ConfigError."""
    secret = ""
    if organization.admin_key:
        secret = organization.admin_key.get_secret_value()
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
