"""docs/exactness.md tells what polling costs; the table is computed from the code."""

import math
import re
from pathlib import Path

import pytest
import yaml

from otel_openai_usage.config import Settings, load
from otel_openai_usage.domain import windows
from otel_openai_usage.domain.endpoints import COST_LIMIT, LIMITS, USAGE_ENDPOINTS
from otel_openai_usage.domain.model import Width
from otel_openai_usage.domain.windows import Plan, Progress, Rules
from otel_openai_usage.engine.usage_poll import DAYS_PER_HOURS
from tests.domain.shelf import DAY, HOUR, MIDNIGHT, MINUTE

PAGE = (Path(__file__).parent.parent.parent / "docs" / "exactness.md").read_text()
TABLE = re.findall(r"^\| (all defaults|`[a-z_.]+: [^|`]+`) \| (\d+) \|$", PAGE, re.MULTILINE)
NOW = MIDNIGHT + 15 * HOUR + 20 * MINUTE


def plan(rules: Rules, *, hours: bool = False, days: bool = False) -> Plan:
    """A plan of an exporter that has counted for a year without a break."""
    return windows.plan(
        Progress(MIDNIGHT - 365 * DAY, True, NOW), NOW, rules, hours=hours, days=days
    )


def calls(settings: Settings) -> float:
    """Calls for usage and costs in an hour without trouble."""
    usage = settings.usage
    costs = settings.costs
    rules = Rules(
        Width.parse(usage.bucket_width),
        int(usage.settle.total_seconds()),
        int(usage.reconcile.total_seconds()),
        LIMITS,
    )
    fine, hours, days = (
        len(plan(rules, **due).steps) for due in ({}, {"hours": True}, {"days": True})
    )
    compared = HOUR / usage.reconcile_interval.total_seconds()
    found = 0.0
    for endpoint in usage.endpoints:
        found += fine * HOUR / usage.interval.total_seconds()
        if not USAGE_ENDPOINTS[endpoint].level:
            found += (hours - fine) * compared + (days - fine) * compared / DAYS_PER_HOURS
    back = int(costs.reconcile.total_seconds())
    bill = plan(Rules(Width.DAY, back, back, {Width.DAY: COST_LIMIT}, DAY), hours=True, days=True)
    return found + len(bill.steps) * HOUR / costs.interval.total_seconds()


@pytest.mark.parametrize(("setting", "said"), TABLE, ids=[row[0] for row in TABLE])
def test_the_page_tells_what_polling_costs(setting: str, said: str) -> None:
    """The calls an hour in docs/exactness.md are those that the plans make."""
    key, _, value = setting.strip("`").partition(": ")
    overrides = {key: yaml.safe_load(value)} if value else {}
    assert math.ceil(calls(load(None, {"OPENAI_ADMIN_KEY": "x"}, overrides))) == int(said)


def test_the_page_has_the_table() -> None:
    """The table is found at all."""
    assert len(TABLE) >= 10
