"""Parts of the exporter that settings ask for: prices, the upkeep of the history, the legacy
source.
"""

import logging
import math
from functools import partial

from otel_openai_usage.config import Organization, Settings
from otel_openai_usage.domain.endpoints import LEGACY
from otel_openai_usage.domain.identity import mark
from otel_openai_usage.domain.pricing import PriceList
from otel_openai_usage.domain.retention import Retention
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.engine.failure_log import FailureLog
from otel_openai_usage.engine.loop import Loop
from otel_openai_usage.engine.maintenance import Maintenance
from otel_openai_usage.engine.recorder import Recorder
from otel_openai_usage.exporters.self_metrics import SelfMetrics
from otel_openai_usage.providers import DEFAULT, PROVIDERS
from otel_openai_usage.providers.budget import Budget
from otel_openai_usage.providers.openai.client import Client
from otel_openai_usage.providers.openai.legacy.owner import LegacyOwner
from otel_openai_usage.providers.openai.legacy.poll import LegacyPoll, Pace
from otel_openai_usage.providers.openai.legacy.source import LegacySource, legacy_client
from otel_openai_usage.providers.provider import Provider
from otel_openai_usage.providers.vault import StateVault
from otel_openai_usage.storage.ports import Writer

log = logging.getLogger(__name__)


def prices(settings: Settings) -> PriceList | None:
    """The price list, if costs are to be estimated. Raises ConfigError if prices of one's own
    cannot be understood.
    """
    if not settings.prices.enabled:
        return None
    from otel_openai_usage.providers.openai.prices import Prices

    return Prices(settings.prices.overrides)


def retention(settings: Settings, now: int) -> Retention:
    """How long rows are kept, as of now."""
    reconcile = max(settings.usage.reconcile, settings.usage.settle, settings.costs.reconcile)
    hours = settings.history.hours.total_seconds()
    days = settings.history.days.total_seconds()
    return Retention.at(
        now, hours=int(hours), days=int(days), reconcile=int(reconcile.total_seconds())
    )


def maintenance(
    settings: Settings, recorder: Recorder, store: Writer, self_metrics: SelfMetrics
) -> Maintenance:
    """What looks after the history."""
    compared = settings.prices.enabled and settings.costs.enabled and settings.usage.enabled
    return Maintenance(
        recorder,
        store,
        self_metrics,
        [organization.name for organization in settings.organizations] if compared else [],
        lambda now: retention(settings, now),
        also=[store.source_state(settings.organizations[0].name, LEGACY, 0, ())]
        if settings.reads_legacy
        else [],
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


def legacy_owner(settings: Settings, store: Writer, source_state: SourceState) -> LegacyOwner:
    """What keeps records of another organization out of the legacy source's book."""
    asked = settings.legacy
    secret = asked.api_key.get_secret_value() if asked.api_key else ""
    base_url = str(asked.base_url or settings.organizations[0].base_url)
    return LegacyOwner(store, source_state, mark(store.instance_id, base_url, secret))


def legacy(
    settings: Settings,
    recorder: Recorder,
    store: Writer,
    self_metrics: SelfMetrics,
    source_state: PriceList | None,
    *,
    once: bool,
    budget: Budget,
) -> tuple[Client, Loop]:
    """The legacy source and its client, which is to be entered. What it reads is kept under the
    first organization.
    """
    asked = settings.legacy
    first = settings.organizations[0]
    client = legacy_client(
        settings,
        partial(self_metrics.request, first.name),
        budget=budget,
        odd=partial(self_metrics.odd_values, first.name),
    )
    log.warning(
        "the legacy source reads an endpoint that OpenAI does not document: it may change or end at any time"
    )
    pace = Pace(store, asked.requests_per_minute, recorder.clock, recorder.do)
    source = LegacySource(client, pace.turn, asked.user_public_ids, first.id)
    # A new series of `run --once` has its value in the next run.
    hold = math.inf if once else settings.attributes.zero_hold.total_seconds()
    legacy_book = store.source_state(first.name, LEGACY, 0, ())
    poll = LegacyPoll(
        recorder, store, source, legacy_book, self_metrics, hold=hold, prices=source_state
    )
    poll.admit = legacy_owner(settings, store, legacy_book).admit
    self_metrics.expect(first.name, ["legacy"])
    loop = Loop(
        "legacy",
        asked.interval.total_seconds(),
        poll.poll,
        recorder,
        poll.status,
        FailureLog(first.name),
    )
    poll.answered = loop.answered
    return client, loop
