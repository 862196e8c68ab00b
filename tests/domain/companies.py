"""Simulated companies: what each of their days costs, for a forecast to be tried on."""

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

DAY = 86400
Days: TypeAlias = Mapping[int, float]
"""The cost of each day, by its start in Unix seconds."""


def _days(first: datetime, count: int, cost: Callable[[int, datetime], float]) -> Days:
    found = {}
    for number in range(count):
        day = first + timedelta(days=number)
        found[int(day.timestamp())] = max(0.0, cost(number, day))
    return found


def company(kind: str, month: datetime, seed: int) -> Days:
    """The days of the month before, and of a month. `kind` is one of `KINDS`."""
    rng = random.Random(f"{kind} {seed} {month:%Y-%m}")
    first = (month - timedelta(days=1)).replace(day=1)
    end = (month + timedelta(days=32)).replace(day=1)
    count = (end - first).days
    level = rng.uniform(50, 500)
    noise = rng.uniform(0.08, 0.25)
    weekend = rng.uniform(0.2, 0.7)
    growth = rng.uniform(0.005, 0.015)
    jump_at = rng.randrange(30, count - 8)
    jump = rng.uniform(1.5, 3)
    batch_at = {rng.randrange(5, count) for _ in range(2)}
    batch = rng.uniform(3, 8)

    def cost(number: int, day: datetime) -> float:
        expected = level * (weekend if day.weekday() >= 5 and kind != "no weekends" else 1)
        if kind == "growing":
            expected *= (1 + growth) ** number
        if kind == "one jump" and number >= jump_at:
            expected *= jump
        if kind == "a batch day" and number in batch_at:
            expected += level * batch
        return expected * rng.lognormvariate(0, noise)

    return _days(first, count, cost)


KINDS = ("steady", "growing", "no weekends", "one jump", "a batch day")


def months() -> list[datetime]:
    """Twelve months."""
    return [datetime(2026, number, 1, tzinfo=UTC) for number in range(1, 13)]
