"""The page that Prometheus scrapes."""

from typing import get_args

import pytest

from otel_openai_usage.domain.instruments import INSTRUMENTS
from otel_openai_usage.domain.snapshot import Board
from otel_openai_usage.exporters.prometheus.reader import Format, PrometheusReader
from otel_openai_usage.exporters.resource import resource
from otel_openai_usage.exporters.self_metrics import SelfMetrics
from tests.exporters.boards import Rows, board

LONE_SURROGATE = "x\udcff"


def page(shown: Board, team: str, form: Format) -> bytes:
    """Return a page of this board with this resource attribute."""
    reader = PrometheusReader(shown)
    self_metrics = SelfMetrics(shown, resource("id", {"team": team}), [reader])
    try:
        return b"".join(reader.page(form))
    finally:
        self_metrics.shutdown()


@pytest.mark.parametrize("form", get_args(Format))
def test_text_that_is_not_unicode_is_replaced_in_a_page(form: Format) -> None:
    """A lone surrogate in a label or in the resource costs one character, never the page."""
    name = next(iter(INSTRUMENTS))
    rows: Rows = {name: [({"organization": LONE_SURROGATE}, 1)]}
    text = page(board(rows), LONE_SURROGATE, form).decode()
    assert 'organization="x?"' in text
    assert 'team="x?"' in text
