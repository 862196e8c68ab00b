"""Parts of the exporter that settings ask for: prices, the upkeep of the history, the legacy
source.
"""

import logging
import math

from otel_openai_usage.config import Settings
from otel_openai_usage.core.estimate import PriceBook
from otel_openai_usage.core.kinds import LEGACY
from otel_openai_usage.core.retention import Retention
from otel_openai_usage.metrics.own import Own
from otel_openai_usage.openai.budget import Budget
from otel_openai_usage.openai.client import Client
from otel_openai_usage.openai.legacy import LegacySource, legacy_client
from otel_openai_usage.poller.keeper import Keeper
from otel_openai_usage.poller.legacy import LegacyPoll, Pace
from otel_openai_usage.poller.loop import Loop
from otel_openai_usage.poller.trouble import Trouble
from otel_openai_usage.poller.upkeep import Upkeep
from otel_openai_usage.state.sqlite import Store

log = logging.getLogger(__name__)


def prices(settings: Settings) -> PriceBook | None:
    """The price list, if costs are to be estimated. Raises ConfigError if prices of one's own
    cannot be understood.
    """
    if not settings.prices.enabled:
        return None
    from otel_openai_usage.pricing import Prices

    return Prices(settings.prices.overrides)


def retention(settings: Settings, now: int) -> Retention:
    """How long rows are kept, as of now."""
    reconcile = max(settings.usage.reconcile, settings.usage.settle, settings.costs.reconcile)
    hours = settings.history.hours.total_seconds()
    days = settings.history.days.total_seconds()
    return Retention.at(
        now, hours=int(hours), days=int(days), reconcile=int(reconcile.total_seconds())
    )


def upkeep(settings: Settings, keeper: Keeper, store: Store, own: Own) -> Upkeep:
    """What looks after the history."""
    compared = settings.prices.enabled and settings.costs.enabled and settings.usage.enabled
    return Upkeep(
        keeper,
        store,
        own,
        [organization.name for organization in settings.organizations] if compared else [],
        lambda now: retention(settings, now),
        also=[store.book(settings.organizations[0].name, LEGACY, 0, ())]
        if settings.reads_legacy
        else [],
    )


def legacy(
    settings: Settings,
    keeper: Keeper,
    store: Store,
    own: Own,
    book: PriceBook | None,
    *,
    once: bool,
    budget: Budget,
) -> tuple[Client, Loop]:
    """The legacy source and its client, which is to be entered. What it reads is kept under the
    first organization.
    """
    asked = settings.legacy
    first = settings.organizations[0]

    def observe(endpoint: str, status: str, seconds: float) -> None:
        own.request(first.name, endpoint, int(status) if status.isdigit() else None, seconds)

    client = legacy_client(settings, observe, budget=budget)
    log.warning(
        "the legacy source reads an endpoint that OpenAI does not document: it may change or end at any time"
    )
    pace = Pace(store, asked.requests_per_minute, keeper.clock, keeper.do)
    source = LegacySource(client, pace.turn, asked.user_public_ids, first.id)
    # A new series of `run --once` has its value in the next run.
    hold = math.inf if once else settings.attributes.zero_hold.total_seconds()
    poll = LegacyPoll(
        keeper, store, source, store.book(first.name, LEGACY, 0, ()), own, hold=hold, prices=book
    )
    own.expect(first.name, ["legacy"])
    loop = Loop(
        "legacy",
        asked.interval.total_seconds(),
        poll.poll,
        keeper,
        poll.status,
        Trouble(first.name),
    )
    poll.answered = loop.answered
    return client, loop
