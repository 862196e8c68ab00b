"""Who used the rest? What OpenAI counted of each model, and what events explain of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from otel_openai_usage.dashboard.cube import Cube, Mask, Numbers
from otel_openai_usage.dashboard.queries import TOP, Floats, Report

_TOKENS = ("input", "output")


@dataclass(frozen=True, eq=False)
class Cover:
    """Tokens of a model (`id`; None for several) by bar: what OpenAI counted, and what events
    explain.
    """

    id: str | None
    label: str
    used: Floats
    explained: Floats

    @property
    def rest(self) -> int:
        """What nothing explains; below 0 where events were told before OpenAI counted."""
        return int(self.used.sum() - self.explained.sum())

    @property
    def share(self) -> float | None:
        """The part of it that events explain; None where nothing was used."""
        used = float(self.used.sum())
        return float(self.explained.sum()) / used if used else None


@dataclass(frozen=True, eq=False)
class Coverage:
    """All models together, then each, that with most to explain first; `since` is the first day
    with an event.
    """

    whole: Cover
    models: Sequence[Cover]
    since: int


def coverage(report: Report) -> Coverage | None:
    """The period of a report, of all customers. None without events or OpenAI's word, and by a
    filter that events know nothing of.
    """
    data = report.data
    filters = {name: wanted for name, wanted in report.view.filters.items() if name != "customer"}
    if data.only_metered or not data.metered.amounts or filters.keys() - {"model"}:
        return None
    used, explained = (
        _by_model(report, cube, cube.where(filters)) for cube in (data.usage, data.metered)
    )
    nothing = np.zeros(len(report.bins))
    found = [
        Cover(
            model,
            data.label("model", model),
            used.get(model, nothing),
            explained.get(model, nothing),
        )
        for model in dict.fromkeys((*used, *explained))
    ]
    found.sort(key=lambda each: -each.rest)
    days = np.flatnonzero(
        sum(data.metered.amounts[name].sum(axis=0) for name in data.metered.amounts)
    )
    whole = _sum("All models", found, nothing)
    return (
        Coverage(whole, _most(found, nothing), data.metered.start + int(days[0]) * 86400)
        if len(days)
        else None
    )


def _by_model(report: Report, cube: Cube, mask: Mask | None) -> dict[str | None, Floats]:
    rows: Numbers = sum(cube.grouped(name, "model", report.span, mask) for name in _TOKENS)  # type: ignore[assignment]
    return {
        model: row
        for model, row in zip(cube.columns["model"].values, report.binned(rows), strict=True)
        if row.any()
    }


def _sum(label: str, covers: Sequence[Cover], nothing: Floats) -> Cover:
    return Cover(
        None,
        label,
        sum((each.used for each in covers), nothing),
        sum((each.explained for each in covers), nothing),
    )


def _most(covers: Sequence[Cover], nothing: Floats) -> Sequence[Cover]:
    if len(covers) <= TOP + 1:
        return covers
    return [*covers[:TOP], _sum(f"{len(covers) - TOP} others", covers[TOP:], nothing)]
