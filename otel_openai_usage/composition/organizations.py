"""The sources of one organization: their states, polls, names, limits and past."""

import hashlib
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from otel_openai_usage.composition import parts
from otel_openai_usage.composition.replica import Part
from otel_openai_usage.config import Settings
from otel_openai_usage.domain.endpoints import COSTS, USAGE_ENDPOINTS, Endpoint
from otel_openai_usage.domain.model import Width, floor
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.domain.windows import Rules
from otel_openai_usage.engine import polling, recording
from otel_openai_usage.engine.failure_log import FailureLog
from otel_openai_usage.engine.first_history import FirstHistory, Past
from otel_openai_usage.engine.loop import Loop
from otel_openai_usage.engine.names_poll import LimitsPoll, NamesPoll
from otel_openai_usage.engine.recorder import Recorder
from otel_openai_usage.engine.usage_poll import UsagePoll, load_days
from otel_openai_usage.providers.provider import Provider
from otel_openai_usage.storage.quantity_units import QuantityUnits

if TYPE_CHECKING:
    from otel_openai_usage.composition.app import Exporter


def add_organization(
    exporter: "Exporter", part: Part, settings: Settings, name: str, provider: Provider, now: int
) -> None:
    """Open the states of an organization's sources, and add what polls them to its part.

    Raises StateError.
    """
    recorder = exporter.recorder
    source_states = part.source_states
    failure_log = FailureLog(name)
    endpoints = []
    if settings.usage.enabled:
        endpoints += [USAGE_ENDPOINTS[endpoint] for endpoint in settings.usage.endpoints]
    if settings.costs.enabled:
        endpoints.append(COSTS)
    for endpoint in endpoints:
        poll, interval = _usage_poll(exporter, settings, name, endpoint, provider, now)
        source_states.append(poll.source_state)
        status = _shown_in(poll.source_state)
        loop = Loop(endpoint.source, interval, poll.poll, recorder, status, failure_log)
        if not endpoint.money:
            idle = settings.usage.idle_interval
            loop.idle_interval = idle.total_seconds() if idle else _IDLE_FACTOR * interval
            loop.is_idle = partial(_is_idle, poll.source_state, recorder)
            loop.offset = _offset(name, endpoint)
        part.loops.append(loop)
    part.histories.append(_history(exporter, settings, name, provider, list(source_states)))
    if settings.names.enabled:
        names = NamesPoll(
            recorder, provider.names, name, list(source_states), keys=settings.names.keys
        )
        part.names.append(names)
        interval = settings.names.interval.total_seconds()
        loop = Loop("names", interval, names.poll, recorder, names.status, failure_log)
        part.loops.append(loop)
    if settings.limits.enabled:
        limits = LimitsPoll(recorder, provider.limits, name, rates=settings.limits.rates)
        interval = settings.limits.interval.total_seconds()
        loop = Loop("limits", interval, limits.poll, recorder, limits.status, failure_log)
        part.loops.append(loop)


_IDLE_FACTOR = 10
_FIRST_OFFSET = 3
_OFFSETS = 13


def _is_idle(source_state: SourceState, recorder: Recorder) -> bool:
    """Whether a source that was just read completely had no usage in the last day."""
    newest = source_state.status.newest_bucket
    return newest is None or newest < recorder.latest() - Width.DAY


def _offset(organization: str, endpoint: Endpoint) -> float:
    """Seconds after the minute at which polls begin: 3 to 15, always the same for an endpoint."""
    digest = hashlib.sha256(f"{organization}/{endpoint.name}".encode()).digest()
    return float(_FIRST_OFFSET + digest[0] % _OFFSETS)


def _history(
    exporter: "Exporter",
    settings: Settings,
    name: str,
    provider: Provider,
    source_states: Sequence[SourceState],
) -> FirstHistory:
    """What reads the past days that the store lacks."""
    past = Past(
        partial(parts.history_since, settings),
        int(settings.history.hours.total_seconds()),
        provider.past_sources,
        exporter.prices,
        QuantityUnits(exporter.store, name).learn,
    )
    missing = partial(_days_missing, exporter, name)
    return FirstHistory(exporter.recorder, exporter.store, name, source_states, past, missing)


def _days_missing(exporter: "Exporter", name: str, days: int) -> None:
    """Show how many days are still to be read, and compute what depends on them anew."""
    exporter.self_metrics.history_days_missing(name, days)
    for figures in exporter.figures:
        figures.reset()


def _shown_in(source_state: SourceState) -> Callable[[bool], None]:
    """A function that notes in the source state whether its source is up."""

    def status(up: bool) -> None:
        source_state.status.up = up

    return status


def _usage_poll(
    exporter: "Exporter",
    settings: Settings,
    organization: str,
    endpoint: Endpoint,
    provider: Provider,
    now: int,
) -> tuple[UsagePoll, float]:
    recorder = exporter.recorder
    # What OpenAI billed needs no price.
    prices = None if endpoint.money else exporter.prices
    began = epoch(settings.usage.start, now)
    part = settings.costs if endpoint.money else settings.usage
    grouping = endpoint.grouping(part.group_by)
    if endpoint.money:
        # At least one day is read again: the running day is incomplete until it ends.
        reconcile = max(settings.costs.reconcile.total_seconds(), Width.DAY)
        rules = Rules(
            Width.DAY,
            int(reconcile),
            int(reconcile),
            endpoint.limits,
            (settings.costs.days - 1) * Width.DAY,
        )
        # OpenAI reports costs by whole UTC days, so counting can only begin at midnight.
        began = floor(began, Width.DAY)
    else:
        width = Width.parse(settings.usage.bucket_width)
        rules = Rules(
            width,
            int(settings.usage.settle.total_seconds()),
            int(settings.usage.reconcile.total_seconds()),
            endpoint.limits,
        )
    source_state = recorder.store.source_state(organization, endpoint, began, grouping)
    polling.regroup(recorder.store, source_state, grouping, now)
    polling.begin_new_measures(recorder.store, source_state, now)
    cost_days = settings.costs.days if endpoint.money else 0
    exporter.reread.append((source_state, rules.reconcile))
    if cost_days:
        load_days(recorder.store, source_state, now, cost_days)
    if prices:
        recording.price(source_state, prices, now)
    every = settings.usage.reconcile_interval.total_seconds()
    units = QuantityUnits(recorder.store, organization)
    poll = UsagePoll(
        recorder,
        provider.sources[endpoint.name],
        source_state,
        rules,
        every,
        group_by=grouping,
        cost_days=cost_days,
        prices=prices,
        learn_units=units.learn,
    )
    return poll, part.interval.total_seconds()


def epoch(start: str | timedelta, now: int) -> int:
    """When counting begins on the very first start, Unix seconds, a whole minute."""
    if start == "today":
        return floor(now, Width.DAY)
    back = start.total_seconds() if isinstance(start, timedelta) else 0
    # The smallest bucket is a minute, so a count cannot begin inside one.
    return floor(now - int(back), Width.MINUTE)
