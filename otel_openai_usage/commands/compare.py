"""The verb `compare`: what a gateway counted against OpenAI's count and bill, by model and day."""

import json
from collections.abc import Iterable, Mapping
from datetime import date, timedelta

from otel_openai_usage.composition.stores import queries_opener
from otel_openai_usage.config import Settings, state_location
from otel_openai_usage.domain.gateway_comparison import AtOpenAI, Comparison, Counted, compare
from otel_openai_usage.domain.line_item import split
from otel_openai_usage.domain.model import Width, midnight, utc

SETTLES = timedelta(days=2)
"""After this long OpenAI has usually counted and billed a day."""


def comparisons(
    settings: Settings,
    env: Mapping[str, str],
    gateway: Mapping[tuple[date, str], Counted],
    since: date,
    until: date,
    today: date,
) -> list[Comparison]:
    """Compare these UTC days, both included. Raises ConfigError or StateError."""
    within = {key: counted for key, counted in gateway.items() if since <= key[0] <= until}
    openai: dict[tuple[date, str], AtOpenAI] = {}
    start = midnight(since)
    end = midnight(until) + Width.DAY
    with queries_opener(state_location(settings, env))() as queries:
        for row in queries.usage(start, end, by=("model",)):
            (model,) = row.group
            tokens = row.input + row.output
            if model and tokens:
                used = openai.setdefault((utc(row.start).date(), model), AtOpenAI())
                used.add(AtOpenAI(tokens, is_used=True, estimate=row.estimate))
        for cost in queries.costs(start, end, by=("line_item",)):
            # Bills in other currencies can't be compared with a gateway's dollars.
            item = split(cost.group[0])
            if item.model and cost.currency == "usd":
                key = (utc(cost.start).date(), item.model)
                openai.setdefault(key, AtOpenAI()).add(AtOpenAI(billed=cost.cost))
    return compare(within, openai, settled_until=today - SETTLES)


def table(lines: Iterable[Comparison]) -> Iterable[str]:
    """Lines for people: a head, a line for each model and day, reasons below those that differ."""
    head = (
        "",
        "date",
        "model",
        "gateway tokens",
        "OpenAI tokens",
        "difference",
        "gateway $",
        "OpenAI $",
    )
    yield "{:<5} {:<10} {:<32} {:>15} {:>15} {:>15} {:>12} {:>12}".format(*head)
    for line in lines:
        mark = "diff" if line.differs else "ok"
        difference = line.gateway.tokens - line.openai.tokens
        yield (
            f"{mark:<5} {line.day} {line.model:<32} {line.gateway.tokens:>15,} {line.openai.tokens:>15,}"
            f" {difference:>+15,} {_money(line.gateway.cost):>12} {_money(line.openai_cost):>12}"
        )
        if line.models not in ((), (line.model,)):
            yield f"      at OpenAI: {', '.join(line.models)}"
        for reason in line.reasons:
            yield f"      {reason}"


def as_json(lines: Iterable[Comparison]) -> str:
    """A list of objects."""
    rows = [
        {
            "date": f"{line.day}",
            "model": line.model,
            "openai_models": list(line.models),
            "gateway_tokens": line.gateway.tokens,
            "openai_tokens": line.openai.tokens,
            "gateway_cost": _text(line.gateway.cost),
            "openai_cost": _text(line.openai_cost),
            "openai_billed": _text(line.openai.billed),
            "openai_estimated": _text(line.openai.estimate),
            "differs": line.differs,
            "reasons": list(line.reasons),
        }
        for line in lines
    ]
    return json.dumps(rows, indent=2)


def _money(amount: object) -> str:
    return "–" if amount is None else f"{amount:.2f}"


def _text(amount: object) -> str | None:
    return None if amount is None else str(amount)
