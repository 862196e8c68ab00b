"""The verb `backfill`: past usage and costs into the store, and from there to OpenMetrics or OTLP."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from typing import IO

from otel_openai_usage.composition import app
from otel_openai_usage.composition.organizations import epoch
from otel_openai_usage.composition.parts import extra_sources, prices, retention
from otel_openai_usage.composition.privacy import pseudonyms
from otel_openai_usage.composition.stores import open_writer, queries_opener, require_kept
from otel_openai_usage.config import Organization, Settings, state_location
from otel_openai_usage.domain.endpoints import COSTS, USAGE_ENDPOINTS
from otel_openai_usage.domain.model import Names, Width, floor, midnight, utc
from otel_openai_usage.domain.pricing import PriceList
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.engine import backfill
from otel_openai_usage.engine.backfill import Call
from otel_openai_usage.engine.ports import NameSource, Source
from otel_openai_usage.engine.recorder import Clock
from otel_openai_usage.errors import (
    ConfigError,
    ExporterError,
    MissingScope,
    Rejected,
    SourceError,
    StateInUse,
)
from otel_openai_usage.providers import DEFAULT, PROVIDERS
from otel_openai_usage.providers.extra import BackfillRun, ExtraSource
from otel_openai_usage.providers.vault import StateVault
from otel_openai_usage.reports import formats, past
from otel_openai_usage.reports.past import PastSeries
from otel_openai_usage.storage.ports import Writer
from otel_openai_usage.storage.quantity_units import QuantityUnits

log = logging.getLogger(__name__)

SYSTEM_CLOCK = Clock(time.time, time.monotonic)
Told = Callable[[str, int, int], None]
"""Told of what is read: organization and source, calls made, calls in all."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The days, both included; without `until` all before counting began."""

    since: date
    until: date | None = None

    @property
    def start(self) -> int:
        """Unix seconds."""
        return midnight(self.since)

    def end(self, now: int) -> int:
        """Unix seconds; where counting began ends it earlier."""
        if self.until is None:
            return now
        # `until` is included, so its own end counts.
        return min(midnight(self.until) + Width.DAY, now)


async def read(
    settings: Settings,
    env: Mapping[str, str],
    asked: Asked,
    now: int,
    told: Told,
    clock: Clock = SYSTEM_CLOCK,
) -> int:
    """Read what is missing into the store. How many rows came. Raises ConfigError, SourceError or
    StateError.

    The exporter must not be running: the store has one writer. A source that fails does not stop
    the others.
    """
    path = state_location(settings, env)
    require_kept(path)
    if asked.start >= asked.end(now):
        raise ConfigError([f"--from {asked.since}: expected a day before --to and before today"])
    if asked.start < (kept := retention(settings, now).days):
        log.warning(
            "what is older than history.days is let go when the exporter runs",
            extra={"event": "history_days_exceeded", "kept_from": f"{utc(kept):%Y-%m-%d}"},
        )
    try:
        store = open_writer(path)
    except StateInUse as error:
        raise StateInUse(
            f"{error}. Stop the exporter for the backfill and start it again afterwards: it makes up for the pause"
        ) from error
    with closing(store):
        source_states: dict[str, list[SourceState]] = {}
        epochs = []
        for one in settings.organizations:
            states = list(_source_states(settings, one, store, now))
            source_states[one.name] = states
            epochs += [state.progress.epoch for state in states]
        # The latest: as long as one source began to count after --from, there is a past to read.
        began = max(epochs, default=now)
        if asked.start >= began:
            raise ConfigError(
                [
                    f"--from {asked.since}: expected a day before counting began, which was {utc(began):%Y-%m-%d %H:%M} UTC"
                ]
            )
        done = [
            await _organization(settings, one, store, source_states[one.name], asked, now, told)
            for one in settings.organizations
            if source_states[one.name]
        ]
        run = BackfillRun(
            store, asked.start, asked.end(now), now, clock, prices(settings, now), told
        )
        done += [await _extra(settings, extra, run) for extra in extra_sources(settings)]
    # Only now, so that a source that fails does not keep the others from being read.
    failed = next((error for _, error in done if error), None)
    if failed:
        raise SourceError(
            f"{failed}. What was read is kept: run the same again to read the rest"
        ) from failed
    return sum(rows for rows, _ in done)


async def _organization(
    settings: Settings,
    one: Organization,
    store: Writer,
    source_states: list[SourceState],
    asked: Asked,
    now: int,
    told: Told,
) -> tuple[int, SourceError | None]:
    """How many rows came, and the first thing that failed."""
    rows = 0
    list_prices = prices(settings, now)
    failed = None

    # The exporter hands this work to its writer thread; here there is no other thread.
    async def run(work: Callable[[], None]) -> None:
        work()

    vault = StateVault(run, store, one.name, one.base_url)
    async with PROVIDERS[DEFAULT](settings, one, vault, now=lambda: now) as provider:
        await _names(settings, one, store, provider.names)
        for source_state in source_states:
            source = provider.sources[source_state.endpoint.name]
            hours_from = now - int(settings.history.hours.total_seconds())
            # A second run asks only for what the first did not get.
            done = store.backfilled(source_state)
            end = asked.end(now)
            calls = backfill.plan(source_state, asked.start, end, hours_from, done)
            try:
                rows += await _source(store, source_state, source, calls, now, told, list_prices)
            except SourceError as error:
                where = {
                    "organization": one.name,
                    "source": source_state.endpoint.source,
                    "error": str(error),
                }
                log.warning(
                    "the past of a source was not read to its end",
                    extra={"event": "backfill_incomplete", **where},
                )
                failed = failed or error
                if isinstance(error, Rejected) and not isinstance(error, MissingScope):
                    break  # the key itself is refused: the others would be, too
    return rows, failed


async def _extra(
    settings: Settings, extra: ExtraSource, run: BackfillRun
) -> tuple[int, SourceError | None]:
    """Past days of an extra source. How many rows came, and what failed."""
    try:
        return await extra.backfill(settings, run), None
    except SourceError as error:
        facts = {
            "organization": settings.organizations[0].name,
            "source": extra.name,
            "error": str(error),
        }
        log.warning(
            "the past of a source was not read to its end",
            extra={"event": "backfill_incomplete", **facts},
        )
        return 0, error


async def _source(
    store: Writer,
    source_state: SourceState,
    source: Source,
    calls: list[Call],
    now: int,
    told: Told,
    list_prices: PriceList | None,
) -> int:
    name = f"{source_state.organization} {source_state.endpoint.source}"
    made = 0
    told(name, 0, len(calls))

    def one_more(_: Call) -> None:
        nonlocal made
        made += 1
        told(name, made, len(calls))

    units = QuantityUnits(store, source_state.organization)
    return await backfill.read(
        store, source_state, source, calls, now, one_more, list_prices, units.learn
    )


def _source_states(
    settings: Settings, one: Organization, store: Writer, now: int
) -> Iterator[SourceState]:
    """The states of the enabled sources; counting begins as `run` would begin it, if it has not
    begun.
    """
    began = epoch(settings.usage.start, now)
    if settings.costs.enabled:
        # OpenAI reports costs by whole UTC days.
        first_day = floor(began, Width.DAY)
        grouping = COSTS.grouping(settings.costs.group_by)
        yield store.source_state(one.name, COSTS, first_day, grouping)
    if not settings.usage.enabled:
        return
    for name in settings.usage.endpoints:
        endpoint = USAGE_ENDPOINTS[name]
        grouping = endpoint.grouping(settings.usage.group_by)
        yield store.source_state(one.name, endpoint, began, grouping)


async def _ignore(_: Names) -> None:
    """Receive a part of the names; they are stored when all are there."""


async def _names(settings: Settings, one: Organization, store: Writer, names: NameSource) -> None:
    """Names for what is written out; if there were none before, and they may be read."""
    if settings.names.enabled and not store.names(one.name).projects:
        try:
            store.set_names(one.name, await names.read(_ignore))
        # Names need another scope than usage; without them the past is worth reading all the same.
        except SourceError as error:
            log.warning(
                "names are not known",
                extra={"event": "names_unknown", "organization": one.name, "error": str(error)},
            )


def series(
    settings: Settings, env: Mapping[str, str], asked: Asked, now: int
) -> Iterator[PastSeries]:
    """What is stored of those days, before counting began, as series. Raises StateError."""
    stored = queries_opener(state_location(settings, env))
    with stored() as queries:
        hashed = pseudonyms(settings, queries.hash_key)
    policy = app.policy(settings, once=True, hashed=hashed)
    end = asked.end(now)
    every: list[PastSeries] = []
    for one in settings.organizations:
        every += past.series(stored, one.name, asked.start, end, policy)
    # OpenMetrics wants all series of a metric together, also those of several organizations.
    order = list(dict.fromkeys(found.instrument.name for found in every))
    return iter(sorted(every, key=lambda found: order.index(found.instrument.name)))


def write_openmetrics(
    settings: Settings, env: Mapping[str, str], asked: Asked, now: int, out: IO[str]
) -> None:
    """Write the past for promtool. Raises StateError or OSError."""
    text = formats.load("openmetrics", formats.SeriesFormat).text
    out.writelines(text(series(settings, env, asked, now)))


def require_collector(settings: Settings) -> None:
    """Raises ConfigError if there is none to send to."""
    if not settings.otlp.endpoint:
        raise ConfigError(
            ["--otlp: no collector is known; set otlp.endpoint or OTEL_EXPORTER_OTLP_ENDPOINT"]
        )


def send_otlp(settings: Settings, env: Mapping[str, str], asked: Asked, now: int) -> int:
    """Send the past to the collector. How many points. Raises ExporterError."""
    from otel_openai_usage.exporters.otlp.exporter import exporter
    from otel_openai_usage.exporters.resource import resource

    require_collector(settings)
    with closing(open_writer(state_location(settings, env))) as store:
        instance = store.instance_id
    who = resource(instance, settings.attributes.resource)
    sender = exporter(settings.otlp)
    try:
        protocol = formats.load("otlp", formats.SeriesProtocol)
        sent = protocol.send(series(settings, env, asked, now), sender, who)
    finally:
        sender.shutdown()
    if sent.rejected or sent.left_out:
        raise ExporterError(
            f"sent the past over OTLP: of {sent.points} points the backend rejected {sent.rejected},"
            f" and {sent.left_out} could not be encoded; {sent.notice or 'it gave no reason'}"
        )
    return sent.points
