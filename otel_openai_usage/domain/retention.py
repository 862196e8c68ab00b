"""How long rows are stored at which width."""

from dataclasses import dataclass

from otel_openai_usage.domain.model import Width, Window, floor


@dataclass(frozen=True, slots=True)
class Maintained:
    """One step of retention: the rows of `window` changed, rows before `purged_before` are gone."""

    window: Window
    purged_before: int


@dataclass(frozen=True, slots=True)
class Retention:
    """Hours before `hours` are downsampled to days, days before `days` are purged. Both are UTC
    midnights, in Unix seconds.
    """

    hours: int
    days: int

    @classmethod
    def at(cls, now: int, *, hours: int, days: int, reconcile: int) -> "Retention":
        """The retention at `now`, for ages in seconds. Rows that may be read again stay."""
        # A day more, because the oldest day that is reconciled is a whole one.
        reach = reconcile + Width.DAY
        hours_before = floor(now - max(hours, reach), Width.DAY)
        days_before = floor(now - max(days, reach), Width.DAY)
        return cls(hours_before, days_before)
