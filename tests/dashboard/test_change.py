"""Why the cost changed: the page's reasons sum to the change, for the bill and for the estimate."""

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from otel_openai_usage.dashboard import change, pages
from otel_openai_usage.dashboard.data import Data
from otel_openai_usage.dashboard.queries import Report
from otel_openai_usage.dashboard.store_watcher import StoreWatcher
from otel_openai_usage.dashboard.view import View
from otel_openai_usage.domain.cost_change import summed
from tests.dashboard.test_states import text


@pytest.fixture
def data(watcher: StoreWatcher) -> Data:
    """What was read."""
    return watcher.loaded().data["default"]


@pytest.mark.parametrize("view", [View(), View(cost="estimated"), View(by="project", period="7d")])
def test_reasons_sum_to_the_change_of_the_period(data: Data, view: View) -> None:
    """Everything that moved is explained, and the whole is what the movers are made of."""
    report = Report(data, view)
    found = change.changes(report)
    assert found
    (whole,) = summed(found, ())
    moved = sum(entry.change or 0.0 for entry in report.entries)
    assert float(whole.total) == pytest.approx(moved, abs=1e-4)
    assert len(summed(found, ["project", "key", "model"])) > 5
    assert "Why did it change?" in text(pages.body(report, None))


def test_customers_have_no_reasons(data: Data) -> None:
    """The bill says nothing of prices by customer, so there is no card."""
    assert change.changes(Report(data, View(by="customer"))) is None


def test_a_bill_without_usage_is_shown_as_such(data: Data) -> None:
    """If no endpoint reported the usage, all of the change is without usage."""
    nothing = {name: np.zeros_like(rows) for name, rows in data.usage.amounts.items()}
    silent = replace(data, usage=replace(data.usage, amounts=nothing))
    found = change.changes(Report(silent, View(cost="billed")))
    assert found
    (whole,) = summed(found, ())
    assert whole.unreported == whole.total != 0
    assert whole.price == whole.mix == whole.usage == Decimal(0)
