"""Parts of the exporter that settings ask for: prices, maintenance, providers, extra sources."""

from functools import partial
from typing import TYPE_CHECKING

from otel_openai_usage.config import Organization, Settings
from otel_openai_usage.domain.budgets import period
from otel_openai_usage.domain.model import Width, floor
from otel_openai_usage.domain.month_costs import month_of
from otel_openai_usage.domain.pricing import PriceList
from otel_openai_usage.domain.retention import Retention
from otel_openai_usage.engine.maintenance import Maintenance
from otel_openai_usage.engine.recorder import Recorder
from otel_openai_usage.exporters.self_metrics import SelfMetrics
from otel_openai_usage.providers import DEFAULT, EXTRA_SOURCES, PROVIDERS
from otel_openai_usage.providers.budget import Budget
from otel_openai_usage.providers.extra import ExtraSource
from otel_openai_usage.providers.provider import Provider
from otel_openai_usage.providers.vault import StateVault
from otel_openai_usage.storage.ports import Writer

if TYPE_CHECKING:
    from otel_openai_usage.providers.openai.prices import Prices


def prices(
    settings: Settings, now: float, self_metrics: SelfMetrics | None = None
) -> "Prices | None":
    """The price list, if costs are to be estimated. Raises ConfigError if prices of one's own
    cannot be understood.
    """
    if not settings.prices.enabled:
        return None
    from otel_openai_usage.providers.openai.prices import Prices

    found = Prices(settings.prices.overrides, file=settings.prices.file)
    found.refresh(now)
    if self_metrics:
        self_metrics.price_list_dated = lambda: found.dated
    return found


def retention(settings: Settings, now: int) -> Retention:
    """How long rows are kept, as of now."""
    reconcile = max(settings.usage.reconcile, settings.usage.settle, settings.costs.reconcile)
    hours = settings.history.hours.total_seconds()
    days = settings.history.days.total_seconds()
    return Retention.at(
        now, hours=int(hours), days=int(days), reconcile=int(reconcile.total_seconds())
    )


def history_since(settings: Settings, now: float) -> int | None:
    """The midnight from which past days are read in the background, None for none."""
    first = settings.history.first
    if first == "none":
        return None
    back = now - month_of(now, 1).start if first == "month" else first.total_seconds()
    since = floor(int(now - back), Width.DAY)
    if first == "month":
        # Each budget knows its current period, too.
        starts = [period(item.period, now).start for item in settings.budgets.items]
        since = min([since, *starts])
    return max(since, retention(settings, int(now)).days)


def maintenance(
    settings: Settings,
    recorder: Recorder,
    store: Writer,
    self_metrics: SelfMetrics,
    prices: PriceList | None = None,
) -> Maintenance:
    """What looks after the history."""
    also = []
    # Where several replicas share the state, whoever owns the legacy source looks after it.
    if store.shared is None:
        also = [extra.source_state(settings, store) for extra in extra_sources(settings)]
    compared = settings.prices.enabled and settings.costs.enabled and settings.usage.enabled
    return Maintenance(
        recorder,
        store,
        self_metrics,
        [organization.name for organization in settings.organizations] if compared else [],
        lambda now: retention(settings, now),
        also=also,
        prices=prices,
    )


def provider(
    settings: Settings,
    organization: Organization,
    recorder: Recorder,
    store: Writer,
    self_metrics: SelfMetrics,
    budget: Budget,
) -> Provider:
    """Where the usage of an organization is read from. Raises ConfigError."""
    return PROVIDERS[DEFAULT](
        settings,
        organization,
        StateVault(recorder.do, store, organization.name, organization.base_url),
        observe=partial(self_metrics.request, organization.name),
        odd=partial(self_metrics.odd_values, organization.name),
        budget=budget,
        now=recorder.clock.now,
        mono=recorder.clock.mono,
    )


def extra_sources(settings: Settings) -> list[ExtraSource]:
    """The enabled sources beside the providers' endpoints."""
    return [extra for extra in EXTRA_SOURCES if extra.is_enabled(settings)]
