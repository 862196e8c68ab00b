"""Makes what runs for one organization, or for the legacy source."""

import logging
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from otel_openai_usage.composition import parts
from otel_openai_usage.composition.budgets import plan
from otel_openai_usage.composition.organizations import add_organization
from otel_openai_usage.composition.replica import Part
from otel_openai_usage.config import Organization, Settings, needs_key
from otel_openai_usage.domain.ownership import BUDGETS_SCOPE, LEGACY_SCOPE, organization_scope
from otel_openai_usage.ingest.intake import metered_sources
from otel_openai_usage.providers.budget import Budget
from otel_openai_usage.providers.extra import Run

if TYPE_CHECKING:
    from otel_openai_usage.composition.app import Exporter

log = logging.getLogger(__name__)


def scopes(settings: Settings) -> list[str]:
    """What is read, in parts that have one owner each."""
    found = []
    if needs_key(settings) or settings.events.enabled:
        found += [organization_scope(each.name) for each in settings.organizations]
    if parts.extra_sources(settings):
        found.append(LEGACY_SCOPE)
    if any(budget.organization is None for budget in plan(settings).budgets):
        found.append(BUDGETS_SCOPE)
    return found


class PartFactory:
    """Makes what runs for one scope: an organization, or the legacy source."""

    def __init__(
        self, exporter: "Exporter", settings: Settings, budget: Budget, *, once: bool
    ) -> None:
        self._exporter = exporter
        self._settings = settings
        self._budget = budget
        self._once = once
        self._organizations = {
            organization_scope(organization.name): organization
            for organization in settings.organizations
        }

    async def open(self, scope: str) -> Part:
        """Read what is stored of a scope, and make its polls. Raises ExporterError."""
        async with AsyncExitStack() as connections:
            if scope == BUDGETS_SCOPE:
                part = Part()
            elif scope == LEGACY_SCOPE:
                part = await self._legacy(connections)
            else:
                part = await self._organization(self._organizations[scope], connections)
            part.connections = connections.pop_all()
        return part

    async def _organization(self, organization: Organization, connections: AsyncExitStack) -> Part:
        exporter = self._exporter
        settings = self._settings
        recorder = exporter.recorder
        part = Part()
        now = int(recorder.clock.now())
        if needs_key(settings):
            provider = parts.provider(
                settings,
                organization,
                recorder,
                exporter.store,
                exporter.self_metrics,
                self._budget,
            )
            await connections.enter_async_context(provider)
            name = organization.name
            await recorder.do(
                lambda: add_organization(exporter, part, settings, name, provider, now)
            )
            # Every source has its health metrics from the start, so that an alert on one that
            # never succeeded can fire.
            exporter.self_metrics.expect(name, [loop.source for loop in part.loops])
        if settings.events.enabled:
            await recorder.do(lambda: self._add_metered(part, organization.name, now))
        return part

    def _add_metered(self, part: Part, organization: str, now: int) -> None:
        store = self._exporter.store
        attributes = self._settings.events.attributes
        found = metered_sources(store, [organization], attributes, now)
        part.metered = found[organization]
        part.source_states.append(part.metered)

    async def _legacy(self, connections: AsyncExitStack) -> Part:
        exporter = self._exporter
        part = Part()
        run = Run(
            exporter.recorder,
            exporter.store,
            exporter.self_metrics,
            exporter.prices,
            self._budget,
            once=self._once,
        )
        for extra in parts.extra_sources(self._settings):
            log.warning(
                "the %s source %s",
                extra.name,
                extra.warning,
                extra={"event": f"{extra.name}_source"},
            )
            connection, loop = await exporter.recorder.do(partial(extra.open, self._settings, run))
            await connections.enter_async_context(connection)
            part.loops.append(loop)
            read = partial(extra.source_state, self._settings, exporter.store)
            part.also.append(await exporter.recorder.do(read))
        return part
