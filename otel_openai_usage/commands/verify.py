"""The verb `verify`: what we counted for past days against OpenAI's own daily totals, series by
series.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from otel_openai_usage.composition.parts import retention
from otel_openai_usage.composition.stores import queries_opener
from otel_openai_usage.config import Organization, Settings, state_location
from otel_openai_usage.domain import windows
from otel_openai_usage.domain.endpoints import COSTS, USAGE_ENDPOINTS
from otel_openai_usage.domain.model import Amounts, Dims, Width, Window, floor, midnight, utc
from otel_openai_usage.domain.reconciliation import total
from otel_openai_usage.domain.source_state import SourceState
from otel_openai_usage.engine.ports import Source
from otel_openai_usage.errors import ConfigError, OtherOrganization
from otel_openai_usage.providers import DEFAULT, PROVIDERS
from otel_openai_usage.providers.vault import ReadOnlyVault
from otel_openai_usage.storage.ports import Queries


@dataclass(frozen=True, slots=True)
class Verdict:
    """One day of one source. `differences` has OpenAI's and our amounts of each attribute set that
    differs.
    """

    day: date
    source_state: SourceState
    compared: int
    differences: Mapping[Dims, tuple[Amounts, Amounts]]

    def __str__(self) -> str:
        head = f"{self.day} {self.source_state.organization} {self.source_state.endpoint.source}"
        if not self.differences:
            return f"ok    {head}: {self.compared} attribute sets equal"
        count = len(self.differences)
        lines = [f"fail  {head}: {count} of {self.compared} attribute sets differ"]
        for dims, (theirs, ours) in self.differences.items():
            lines.append(f"  {self._named(dims)}: {self._compared(theirs, ours)}")
        return "\n".join(lines)

    def _named(self, dims: Dims) -> str:
        pairs = zip(self.source_state.endpoint.dimensions, dims, strict=True)
        named = [f"{name}={value}" for name, value in pairs if value is not None]
        return " ".join(named) or "(no dimensions)"

    def _compared(self, theirs: Amounts, ours: Amounts) -> str:
        measures = self.source_state.endpoint.measures
        parts = []
        for measure, their, our in zip(measures, theirs, ours, strict=True):
            if their != our:
                parts.append(f"{measure.name} OpenAI {their} ours {our} ({our - their:+})")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Refused:
    """An organization whose key is of another one than the state, so that nothing is compared."""

    organization: str
    told: str

    def __str__(self) -> str:
        return f"fail  {self.organization}: {self.told}"


@dataclass(frozen=True, slots=True)
class Purged:
    """Days of one source, both included, whose rows are kept no more."""

    first: date
    last: date
    source_state: SourceState

    def __str__(self) -> str:
        head = f"{self.first} to {self.last} {self.source_state.organization} {self.source_state.endpoint.source}"
        return (
            f"skip  {head}: the rows were let go after history.days, so there is nothing to compare"
        )


@dataclass(frozen=True, slots=True)
class NotRead:
    """Days of one source, both included, of which some were neither counted nor backfilled."""

    first: date
    last: date
    source_state: SourceState

    def __str__(self) -> str:
        source = f"{self.source_state.organization} {self.source_state.endpoint.source}"
        return (
            f"skip  {self.first} to {self.last} {source}: these days, or some of them, are not in"
            f" the state; `otel-openai-usage backfill --from {self.first}` reads them"
        )


@dataclass(frozen=True, slots=True)
class TotalsDiffer:
    """Totals in the state that are not the sum of their rows, whatever OpenAI says."""

    told: str

    def __str__(self) -> str:
        return f"fail  state: {self.told}"


async def verdicts(
    settings: Settings, env: Mapping[str, str], now: int, since: date | None, until: date | None
) -> AsyncIterator[Verdict | Purged | NotRead | Refused | TotalsDiffer]:
    """Compare the totals in the state with their rows; then the days from `since` (else the first
    within reach of `reconcile`) to `until` (else yesterday), both included.

    Days that were counted or backfilled, as a whole; of the day in which counting began only what
    was counted. Raises ConfigError,
    SourceError or StateError.
    """
    if since and since > (until or utc(now).date()):
        raise ConfigError(
            [f"--from {since} lies after --to {until or 'today'}: there is no day in between"]
        )
    # Today is never compared: its usage still grows between OpenAI's answer and our reading.
    end = floor(now, Width.DAY)
    if until:
        end = min(end, midnight(until) + Width.DAY)
    kept = retention(settings, now).days
    with queries_opener(state_location(settings, env))() as queries:
        if wrong := queries.totals_disagreeing():
            yield TotalsDiffer(wrong)
        # A day beyond the reach of `reconcile` may differ for good: it is not read again.
        reach = int(settings.usage.reconcile.total_seconds())
        start = midnight(since) if since else floor(now - reach, Width.DAY)
        for organization in settings.organizations:
            async for verdict in _of(settings, organization, queries, start, end, kept):
                yield verdict


async def _of(
    settings: Settings,
    organization: Organization,
    queries: Queries,
    start: int,
    end: int,
    kept: int,
) -> AsyncIterator[Verdict | Purged | NotRead | Refused]:
    wanted = _endpoints(settings)
    # Read-only, because `verify` may run beside the exporter, which is the one writer.
    vault = ReadOnlyVault(queries, organization.name, organization.base_url)
    async with PROVIDERS[DEFAULT](settings, organization, vault, now=lambda: end) as provider:
        try:
            await provider.probe()
        except OtherOrganization as error:
            yield Refused(organization.name, str(error))
            return
        for source_state in queries.source_states(organization.name):
            if source_state.endpoint.name in wanted:
                oldest = max(kept, source_state.purged_before)
                first = max(start, source_state.progress.epoch)
                last = min(end, oldest)
                if first < last:
                    yield Purged(utc(first).date(), utc(last - 1).date(), source_state)
                source = provider.sources[source_state.endpoint.name]
                try:
                    found = await _days(source, source_state, queries, max(start, oldest), end)
                except OtherOrganization as error:
                    yield Refused(organization.name, str(error))
                    return
                for verdict in found:
                    yield verdict
                began = floor(source_state.progress.epoch, Width.DAY)
                past = range(floor(max(start, oldest), Width.DAY), min(end, began), Width.DAY)
                backfilled = _whole_days(past, queries.backfilled(source_state))
                for verdict in await _past_days(source, source_state, queries, backfilled):
                    yield verdict
                if unread := [day for day in past if day not in backfilled]:
                    yield NotRead(utc(unread[0]).date(), utc(unread[-1]).date(), source_state)


def _endpoints(settings: Settings) -> set[str]:
    """The names of the endpoints whose days are compared."""
    names = set()
    if settings.usage.enabled:
        # A level does not add up over a day, so there is no daily total to compare.
        names = {name for name in settings.usage.endpoints if not USAGE_ENDPOINTS[name].level}
    if settings.costs.enabled:
        names.add(COSTS.name)
    return names


def _whole_days(days: Iterable[int], read: Sequence[Window]) -> list[int]:
    """The days that a backfill read from their start to their end."""
    whole = []
    for day in days:
        unread: tuple[Window, ...] = (Window(day, day + Width.DAY),)
        for window in read:
            unread = windows.without(unread, window)
        if not unread:
            whole.append(day)
    return whole


async def _past_days(
    source: Source, source_state: SourceState, queries: Queries, days: Sequence[int]
) -> list[Verdict]:
    """Compare days before counting began, which a backfill read."""
    limit = source_state.endpoint.limits[Width.DAY]
    theirs: dict[int, dict[Dims, Amounts]] = {day: {} for day in days}
    for window in _joined(days, limit, source_state):
        grouping = source_state.groupings.at(window.start)
        reading = await source.read(window, Width.DAY, grouping, {})
        for bucket in reading.buckets:
            theirs[bucket.start] = dict(bucket.rows)
    return [_verdict(source_state, day, said, queries) for day, said in theirs.items()]


def _joined(days: Sequence[int], limit: int, source_state: SourceState) -> list[Window]:
    """Neighbouring days as one window: at most `limit` days, all with one grouping."""
    joined: list[Window] = []
    for day in days:
        end = day + Width.DAY
        if joined:
            last = joined[-1]
            is_next = last.end == day and end - last.start <= limit * Width.DAY
            groupings = source_state.groupings
            if is_next and groupings.at(last.start) == groupings.at(day):
                joined[-1] = Window(last.start, end)
                continue
        joined.append(Window(day, end))
    return joined


async def _days(
    source: Source, source_state: SourceState, queries: Queries, start: int, end: int
) -> list[Verdict]:
    limits = source_state.endpoint.limits
    theirs: dict[int, dict[Dims, Amounts]] = {}
    cuts = source_state.groupings.cuts
    for step in windows.past_days(source_state.progress, start, end, limits, cuts):
        # A day without usage is compared, too: our rows of it would be wrong.
        first_day = floor(step.window.start, Width.DAY)
        for day in range(first_day, step.window.end, Width.DAY):
            theirs.setdefault(day, {})
        grouping = source_state.groupings.at(step.window.start)
        reading = await source.read(step.window, step.width, grouping, {})
        for bucket in reading.buckets:
            day_sums = theirs[floor(bucket.start, Width.DAY)]
            for dims, amounts in bucket.rows.items():
                before = day_sums.get(dims, source_state.endpoint.zero)
                day_sums[dims] = total(before, amounts)
    return [_verdict(source_state, day, said, queries) for day, said in theirs.items()]


def _verdict(
    source_state: SourceState, day: int, theirs: Mapping[Dims, Amounts], queries: Queries
) -> Verdict:
    end = day + Width.DAY
    epoch = source_state.progress.epoch
    # Of the day in which counting began, only what was counted is compared.
    start = epoch if day < epoch < end else day
    ours = queries.sums_by_dims(source_state, start, end)
    zero = source_state.endpoint.zero
    keys: Iterable[Dims] = dict.fromkeys([*theirs, *ours])
    compared = 0
    differences = {}
    for dims in keys:
        compared += 1
        # A row that one side lacks counts as zero: OpenAI gives no rows without activity.
        # What an older version did not store is not compared.
        their = source_state.counted(day, theirs.get(dims, zero))
        our = source_state.counted(day, ours.get(dims, zero))
        if their != our:
            differences[dims] = (their, our)
    return Verdict(utc(day).date(), source_state, compared, differences)
