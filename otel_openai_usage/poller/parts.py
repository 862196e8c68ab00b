"""Parts of the exporter that settings ask for: prices, the upkeep of the history, the legacy
source.
"""

import logging
import math

from otel_openai_usage.config import Organization, Settings
from otel_openai_usage.core.book import Book
from otel_openai_usage.core.estimate import PriceBook
from otel_openai_usage.core.identity import mark
from otel_openai_usage.core.kinds import LEGACY
from otel_openai_usage.core.retention import Retention
from otel_openai_usage.metrics.own import Own
from otel_openai_usage.openai.budget import Budget
from otel_openai_usage.openai.client import Client
from otel_openai_usage.openai.guard import Guard, StateVault
from otel_openai_usage.openai.legacy import LegacySource, legacy_client
from otel_openai_usage.poller.keeper import Keeper
from otel_openai_usage.poller.legacy import LegacyPoll, Pace
from otel_openai_usage.poller.legacy_owner import LegacyOwner
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


def guard(client: Client, organization: Organization, keeper: Keeper, store: Store) -> Guard:
    """What keeps data of another organization than the state's out of it."""
    vault = StateVault(keeper.do, store, organization.name, organization.base_url)
    return Guard(client, vault, now=keeper.clock.now, mono=keeper.clock.mono)


def legacy_owner(settings: Settings, store: Store, book: Book) -> LegacyOwner:
    """What keeps records of another organization out of the legacy source's book."""
    asked = settings.legacy
    secret = asked.api_key.get_secret_value() if asked.api_key else ""
    base_url = str(asked.base_url or settings.organizations[0].base_url)
    return LegacyOwner(store, book, mark(store.instance_id, base_url, secret))


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
    legacy_book = store.book(first.name, LEGACY, 0, ())
    poll = LegacyPoll(keeper, store, source, legacy_book, own, hold=hold, prices=book)
    poll.admit = legacy_owner(settings, store, legacy_book).admit
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
