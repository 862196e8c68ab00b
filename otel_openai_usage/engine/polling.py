"""Plans polls and ends them: steps, groupings, and how far a source was read.

All functions are synchronous, and run in the recorder's one thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from otel_openai_usage.domain import windows
from otel_openai_usage.domain.commits import Commit
from otel_openai_usage.domain.groupings import Groupings
from otel_openai_usage.domain.model import Width, Window, ceil
from otel_openai_usage.domain.source_state import NEVER, SourceState, next_unread_midnight
from otel_openai_usage.domain.windows import Plan, Progress, Step
from otel_openai_usage.errors import GroupingRefused, StateError
from otel_openai_usage.storage.ports import UsageWriter

WRITE_INTERVAL = 900
"""Seconds between two writes of the progress of a source without changes, to write less. After a
kill, the stored time of the last poll may be so many seconds too old.
"""


def regroup(
    store: UsageWriter, source_state: SourceState, wanted: tuple[str, ...], now: int
) -> None:
    """Let the configured grouping apply from the next UTC midnight on. Raises StateError; nothing
    changed then.

    Call it before every poll: if the clock was ahead at the last call, that midnight was too late.
    """
    if source_state.series or source_state.progress.complete:
        midnight = next_unread_midnight(source_state, now)
        groupings = source_state.groupings.changed_to(wanted, midnight)
    else:
        groupings = Groupings.always(wanted)
    _regroup(store, source_state, groupings)


def _regroup(store: UsageWriter, source_state: SourceState, groupings: Groupings) -> bool:
    """Write other groupings. Return whether that changed anything."""
    if groupings == source_state.groupings:
        return False
    store.save_groupings(source_state, groupings)
    source_state.groupings = groupings
    return True


def begin_new_measures(store: UsageWriter, source_state: SourceState, now: int) -> None:
    """Let measures that an older version did not store count from the next UTC midnight on.

    Raises StateError; nothing changed then.
    """
    if NEVER not in source_state.counted_from.values():
        return
    midnight = next_unread_midnight(source_state, now)
    counted = {
        place: midnight if start == NEVER else start
        for place, start in source_state.counted_from.items()
    }
    store.save_counted_from(source_state, counted)
    source_state.counted_from = counted


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Dimensions without which buckets are read from now on.

    `news` has those that were in use until now, so the log has not named them yet.
    """

    news: tuple[str, ...]


def leave_out(
    store: UsageWriter, source_state: SourceState, window: Window, refused: GroupingRefused
) -> LeftOut | None:
    """Read the buckets of a window without the dimensions that OpenAI refuses there.

    Older days get the same grouping if none of them has rows. Return None if that would change
    nothing, because rows of the window were already read with these dimensions. Raises StateError;
    nothing changed then.
    """
    end = refused.accepted_from or ceil(window.end, Width.DAY)
    rows = store.rows_within(source_state, tuple(Width), 0, end)
    read_until = max((row.start + row.width for row in rows), default=0)
    start = ceil(read_until, Width.DAY)
    if start >= end:
        return None
    before = source_state.groupings.at(max(0, start - 1))
    groupings = source_state.groupings.without(refused.dimensions, start, end)
    if not _regroup(store, source_state, groupings):
        return None
    return LeftOut(tuple(name for name in refused.dimensions if name in before))


def due(
    source_state: SourceState, now: int, rules: windows.Rules, *, hours: bool, days: bool
) -> Plan:
    """Plan the steps of one poll, and note the time since the last poll as unread.

    Only the newest values of a level are read: an old level says nothing about the present, so it
    leaves no gap either.
    """
    progress = source_state.progress
    # Rows before `purged_before` were deleted and are never recorded again: do not read them.
    readable = replace(progress, epoch=max(progress.epoch, source_state.purged_before))
    cuts = source_state.groupings.cuts
    plan = windows.plan(readable, now, rules, hours=hours, days=days, cuts=cuts)
    if source_state.endpoint.level:
        fine_steps = tuple(step for step in plan.steps if not step.coarse)
        plan = replace(plan, steps=fine_steps, unread=(), gaps=(), lost=())
    source_state.progress = replace(progress, horizon=plan.end, unread=plan.unread)
    return plan


def whole_days(store: UsageWriter, source_state: SourceState, plan: Plan) -> Sequence[Step]:
    """Steps that reconcile whole days which the plan reads in hours although they have a day row.

    Such a row comes from another bucket width, or from a day that had more than its hours. Only a
    reading of the day can lower it. The current day waits until it is over. Raises StateError.
    """
    if source_state.endpoint.level or plan.hours_from >= plan.fine_from:
        return ()
    rows = store.rows_within(source_state, (Width.DAY,), plan.hours_from, plan.end)
    starts = {row.start for row in rows if row.start + Width.DAY < plan.end}
    return [
        Step(Window(start, start + Width.DAY), Width.DAY, coarse=True)
        for start in sorted(starts, reverse=True)
    ]


def mark_lost(source_state: SourceState, window: Window) -> Sequence[Window]:
    """Note that OpenAI no longer reports a window, so that it no longer counts as unread.

    Return the parts of it that were unread.
    """
    lost = [
        Window(max(unread.start, window.start), min(unread.end, window.end))
        for unread in source_state.progress.unread
        if unread.start < window.end and window.start < unread.end
    ]
    source_state.progress = replace(
        source_state.progress, unread=windows.without(source_state.progress.unread, window)
    )
    return lost


def finish(store: UsageWriter, source_state: SourceState, now: int) -> bool:
    """End a poll: all its steps were recorded. Return whether it was the first complete poll of
    the source, so that its series may now be shown.

    Raises StateError; the poll has not ended then.
    """
    is_first = not source_state.progress.complete
    before = source_state.status.last_success
    source_state.status.last_success = now
    if is_first or not 0 <= now - source_state.written_at < WRITE_INTERVAL:
        progress = replace(source_state.progress, complete=True)
        try:
            write_progress(store, source_state, progress, now)
        except StateError:
            source_state.status.last_success = before
            raise
    return is_first


def write_progress(
    store: UsageWriter, source_state: SourceState, progress: Progress, now: int
) -> None:
    """Write how far reading has come, with the status. Raises StateError; nothing changed then."""
    store.commit(source_state, Commit(progress))
    source_state.progress = progress
    source_state.written_at = now
