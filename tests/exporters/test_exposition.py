"""Snapshot → Prometheus bytes."""

import gzip
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_openai_usage.domain.instruments import INSTRUMENTS
from otel_openai_usage.domain.snapshot import AttributeValue, Board, Point, Series, Snapshot
from otel_openai_usage.exporters.prometheus.deflate import member
from otel_openai_usage.exporters.prometheus.exposition import Exposition, Page
from tests.exporters.boards import HOUSE, Rows, board, snapshot, stock_prometheus

EVERYTHING: Rows = {
    name: [({"organization": "acme"}, 1.5 if row.floating else 1)]
    for name, row in INSTRUMENTS.items()
}

odd = ["organization", "model", "a.b", "a_b", "9lives", "_x", "ключ", "otel.metric.overflow"]
keys = st.sampled_from(odd) | st.text(min_size=1, max_size=4)
values = (
    st.text(max_size=6)
    | st.sampled_from(['"', "\\", "\n", "\\n", "é", "💰"])
    | st.booleans()
    | st.integers(0, 9)
    | st.just(1.5)
)
decimals = st.floats(allow_nan=False, allow_infinity=False).map(
    lambda value: value + 0.0
)  # no -0.0: the SDK adds to 0
amounts = st.integers(0, 2**60) | st.integers(-5, 20_000_000) | decimals
series = st.dictionaries(keys, values, max_size=5)


def _same(row: tuple[dict[str, AttributeValue], float]) -> str:
    return repr(sorted((key, str(value)) for key, value in row[0].items()))


boards = st.dictionaries(
    st.sampled_from(sorted(INSTRUMENTS)),
    st.lists(st.tuples(series, amounts), max_size=5, unique_by=_same),
    max_size=4,
)


def plain(page: Page) -> bytes:
    """The plain bytes of a page."""
    return b"".join(page.plain)


def both(shown: Board, exposition: Exposition) -> tuple[bytes, bytes]:
    """Text and OpenMetrics of what the board shows."""
    pages = exposition.render(shown.current())
    return plain(pages.text), plain(pages.openmetrics)


@pytest.mark.parametrize(
    "rows", [HOUSE, EVERYTHING, {}], ids=["house", "every instrument", "nothing"]
)
def test_our_bytes_are_the_stock_exporters(rows: Rows) -> None:
    """Text and OpenMetrics are, byte by byte, what the stock exporter prints for the same
    instruments.
    """
    shown = board(rows)
    assert both(shown, Exposition(INSTRUMENTS)) == stock_prometheus(shown)


@given(boards)
@settings(max_examples=150, deadline=None)
def test_our_bytes_are_the_stock_exporters_for_anything(rows: Rows) -> None:
    """Odd keys, odd values, missing labels, bools, large and small numbers: still the same bytes."""
    shown = board(rows)
    assert both(shown, Exposition(INSTRUMENTS)) == stock_prometheus(shown)


@given(st.lists(boards, min_size=2, max_size=4))
@settings(max_examples=50, deadline=None)
def test_what_was_rendered_before_leaves_no_trace(many: list[Rows]) -> None:
    """An exposition that has rendered other snapshots prints the next one as a new exposition
    would.
    """
    used = Exposition(INSTRUMENTS)
    for rows in many:
        shown = board(rows)
        assert both(shown, used) == both(shown, Exposition(INSTRUMENTS))


def test_values_move_under_kept_labels() -> None:
    """A series that stands in the next snapshot keeps its labels and shows its new value; one that
    left is gone.
    """
    stays = Series({"organization": "a"})
    stored_series_list = Series({"organization": "b", "model": "m"})
    exposition = Exposition(INSTRUMENTS)
    exposition.render(
        Snapshot(1, 0, {"openai.api.images": (Point(stays, 1), Point(stored_series_list, 1))})
    )
    page = exposition.render(Snapshot(2, 0, {"openai.api.images": (Point(stays, 2),)})).text
    assert plain(page).splitlines()[2:] == [b'openai_api_images_total{organization="a"} 2.0']


def test_the_same_points_are_not_rendered_again() -> None:
    """A family whose points are the same sequence object keeps its very bytes."""
    exposition = Exposition(INSTRUMENTS)
    points = snapshot(HOUSE).points
    first = exposition.render(Snapshot(1, 0, points)).text.plain
    second = exposition.render(Snapshot(2, 0, {**points, "openai.api.up": ()})).text.plain
    assert first[1] is second[1]


@given(
    st.lists(st.tuples(st.integers(0, 1199), st.integers(0, 3)), max_size=4),
    st.integers(0, 900),
    st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_only_pieces_that_say_something_else_are_rendered(
    moved: list[tuple[int, int]], fewer: int, appended: bool
) -> None:
    """Of 1,200 series those pieces stay the very same bytes in which nothing moved; the page is
    what a new exposition prints.
    """
    used = Exposition(INSTRUMENTS)
    points = [Point(Series({"organization": f"o{nth}"}), 0) for nth in range(1200)]
    before = used.render(Snapshot(1, 0, {"openai.api.images": points})).text
    after = list(points)
    for place, value in moved:
        after[place] = Point(points[place].series, value)
    del after[1200 - fewer :]
    after += [Point(Series({"organization": "new"}), 1)] if appended else []
    pages = used.render(Snapshot(2, 0, {"openai.api.images": after}))
    fresh = Exposition(INSTRUMENTS).render(Snapshot(1, 0, {"openai.api.images": after}))
    assert (plain(pages.text), pages.text.crc) == (plain(fresh.text), fresh.text.crc)
    assert gzip.decompress(
        b"".join(member(pages.text.deflated, pages.text.crc, pages.text.size))
    ) == plain(fresh.text)
    same = [
        one is other for one, other in zip(before.plain[1:], pages.text.plain[1:], strict=False)
    ]
    assert same == [
        after[at : at + 400] == points[at : at + 400] for at in range(0, 400 * len(same), 400)
    ]


@given(boards)
@settings(max_examples=50, deadline=None)
def test_the_compressed_page_is_the_page(rows: Rows) -> None:
    """The deflate segments of both formats make one gzip member that holds the plain bytes, and
    nothing after it.
    """
    pages = Exposition(INSTRUMENTS).render(snapshot(rows))
    for page in (pages.text, pages.openmetrics):
        zipped = b"".join(member(page.deflated, page.crc, page.size))
        assert gzip.decompress(zipped) == plain(page)
        single = zlib.decompressobj(16 + zlib.MAX_WBITS)
        assert (single.decompress(zipped), single.unused_data, single.eof) == (
            plain(page),
            b"",
            True,
        )


def test_names_in_the_catalogue_are_the_exporters() -> None:
    """The column `prometheus` of every row is the name that the stock exporter gives the
    instrument.
    """
    text, _ = stock_prometheus(board(EVERYTHING))
    printed = [
        line.split(b"{")[0].decode() for line in text.splitlines() if not line.startswith(b"#")
    ]
    assert printed == [row.prometheus for row in INSTRUMENTS.values()]


def test_the_golden_scrape(golden: Callable[[str, str], None]) -> None:
    """What Prometheus sees of a house made by hand, in full."""
    pages = Exposition(INSTRUMENTS).render(snapshot(HOUSE))
    golden("exposition.prom", plain(pages.text).decode())
    golden("exposition.openmetrics", plain(pages.openmetrics).decode())
