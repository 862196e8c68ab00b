"""How much of the tokens that OpenAI counted is explained by events, by model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from otel_openai_usage.dashboard.cube import DAY, Cube, Numbers
from otel_openai_usage.dashboard.queries import TOP, Floats, Report

_TOKENS = ("input", "output")


@dataclass(frozen=True, eq=False)
class ModelCoverage:
    """Tokens of a model by bar: what OpenAI counted, and what events explain.

    `id` is None for several models.
    """

    id: str | None
    label: str
    used: Floats
    explained: Floats

    @property
    def unexplained(self) -> int:
        """What no event explains; negative where events came before OpenAI counted."""
        return int(self.used.sum() - self.explained.sum())

    @property
    def share(self) -> float | None:
        """The part that events explain; None where nothing was used."""
        used = float(self.used.sum())
        if not used:
            return None
        return float(self.explained.sum()) / used


@dataclass(frozen=True, eq=False)
class Coverage:
    """All models together, then each, the one with most to explain first.

    `since` is the first day with an event.
    """

    whole: ModelCoverage
    models: Sequence[ModelCoverage]
    since: int


def coverage(report: Report) -> Coverage | None:
    """The coverage in the period of a report, of all customers.

    None without events or without OpenAI's count, and if the report has a filter that events do not
    know.
    """
    data = report.data
    filters = dict(report.view.filters)
    # OpenAI does not know customers, so its count cannot be filtered by one.
    filters.pop("customer", None)
    has_both = "requests" in data.metered.amounts and not data.only_metered
    if not has_both or filters.keys() - {"model"}:
        return None
    since = _first_day(data.metered)
    if since is None:
        return None
    models = _models(report, filters)
    models.sort(key=lambda model: -model.unexplained)
    whole = _sum("All models", models, len(report.bins))
    return Coverage(whole, _most(models, len(report.bins)), since)


def _models(report: Report, filters: dict[str, tuple[str, ...]]) -> list[ModelCoverage]:
    """Every model that OpenAI or an event counted."""
    used = _by_model(report, report.data.usage, filters)
    explained = _by_model(report, report.data.metered, filters)
    nothing = np.zeros(len(report.bins))
    models: list[ModelCoverage] = []
    for model in dict.fromkeys((*used, *explained)):
        label = report.data.label("model", model)
        counted = used.get(model, nothing)
        models.append(ModelCoverage(model, label, counted, explained.get(model, nothing)))
    return models


def _by_model(
    report: Report, cube: Cube, filters: dict[str, tuple[str, ...]]
) -> dict[str | None, Floats]:
    """Input and output tokens by bar, of the models that have any."""
    mask = cube.where(filters)
    days: Numbers = np.sum(
        [cube.grouped(name, "model", report.span, mask) for name in _TOKENS], axis=0
    )
    models = cube.columns["model"].values
    rows = report.binned(days)
    return {model: row for model, row in zip(models, rows, strict=True) if row.any()}


def _first_day(metered: Cube) -> int | None:
    """The first day with an event; None without any."""
    has_event = np.zeros(metered.days, dtype=np.bool_)
    for rows in metered.amounts.values():
        has_event |= rows.any(axis=0)
    if not has_event.any():
        return None
    return metered.start + int(has_event.argmax()) * DAY


def _sum(label: str, models: Sequence[ModelCoverage], bars: int) -> ModelCoverage:
    used = np.zeros(bars)
    explained = np.zeros(bars)
    for model in models:
        used += model.used
        explained += model.explained
    return ModelCoverage(None, label, used, explained)


def _most(models: Sequence[ModelCoverage], bars: int) -> Sequence[ModelCoverage]:
    """The first models, and the others as one."""
    if len(models) <= TOP + 1:
        return models
    others = models[TOP:]
    return [*models[:TOP], _sum(f"{len(others)} others", others, bars)]
