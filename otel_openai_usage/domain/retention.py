"""How long rows are kept at which width."""

from dataclasses import dataclass

from otel_openai_usage.domain.model import Width, Window, floor


@dataclass(frozen=True, slots=True)
class Maintained:
    """One step of retention: the rows of `window` changed, rows before `purged_before` are gone."""

    window: Window
    purged_before: int


@dataclass(frozen=True, slots=True)
class Retention:
    """Hours that began before `hours` become days, days before `days` go; Unix seconds, UTC
    midnights.
    """

    hours: int
    days: int

    @classmethod
    def at(cls, now: int, *, hours: int, days: int, reconcile: int) -> "Retention":
        """For rows to be kept so many seconds; what may be read again within `reconcile` is kept as
        it is.
        """
        reach = reconcile + Width.DAY
        return cls(
            floor(now - max(hours, reach), Width.DAY), floor(now - max(days, reach), Width.DAY)
        )
