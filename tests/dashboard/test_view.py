"""Tests of what a URL says."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_openai_usage.dashboard.view import COLUMNS, COSTS, DAY, GROUPS, PERIODS, View

NOW = datetime(2026, 11, 22, 15, 0, tzinfo=UTC).timestamp()
_SOME = st.lists(st.text(min_size=1), max_size=3).map(lambda values: tuple(sorted(set(values))))


@given(
    st.builds(
        View, organization=st.text(), period=st.sampled_from([*PERIODS, "2026-01-05..2026-02-01"]), by=st.sampled_from(list(GROUPS)),
        cost=st.sampled_from(["", *COSTS]), sort=st.sampled_from(["", *COLUMNS, *(f"-{name}" for name in COLUMNS)]),
        rows=st.sampled_from(["", "all"]), project=_SOME, model=_SOME, key=_SOME, user=_SOME, operation=_SOME,
    )
)  # fmt: skip
def test_a_view_survives_its_url(view: View) -> None:
    """What a view's query string says is the view."""
    assert View.parse(view.query) == view


@given(st.text())
def test_any_query_is_some_view(query: str) -> None:
    """No query string is an error, and what is not known is left out."""
    view = View.parse(query)
    assert view.by in GROUPS
    assert view.span(NOW).days > 0


def test_the_default_view_needs_no_query() -> None:
    """The page without a query is the default view."""
    assert (View.parse(""), View().query) == (View(), "")


@pytest.mark.parametrize(
    ("period", "text", "days"),
    [
        ("7d", "16 Nov – 22 Nov 2026", 7),
        ("30d", "24 Oct – 22 Nov 2026", 30),
        ("month", "1 Nov – 22 Nov 2026", 22),
        ("last-month", "1 Oct – 31 Oct 2026", 31),
        ("12m", "23 Nov 2025 – 22 Nov 2026", 365),
        ("2026-02-28..2026-03-01", "28 Feb – 1 Mar 2026", 2),
        ("2026-03-01..2026-02-28", "24 Oct – 22 Nov 2026", 30),
    ],
)
def test_periods_are_whole_utc_days(period: str, text: str, days: int) -> None:
    """A period ends with today, or where its dates say; dates the wrong way round are as none."""
    span = View.parse(f"?period={period}").span(NOW)
    assert (span.text, span.days, span.start % DAY) == (text, days, 0)
