"""Snapshot → Prometheus bytes."""

import gzip
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)

from otel_openai_usage.domain.instruments import INSTRUMENTS
from otel_openai_usage.domain.snapshot import AttributeValue, Board, Point, Series, Snapshot
from otel_openai_usage.exporters.prometheus.exposition import PIECE_LINES, Exposition
from otel_openai_usage.exporters.prometheus.gzip_member import CompressedText
from tests.exporters.boards import ORGANIZATION, Rows, board, snapshot, stock_prometheus

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


def plain(page: CompressedText) -> bytes:
    """Return the plain bytes of a page."""
    return b"".join(page.pieces)


def both(shown: Board, exposition: Exposition) -> tuple[bytes, bytes]:
    """Return the board's snapshot as text and as OpenMetrics."""
    pages = exposition.render(shown.current())
    return plain(pages.text), plain(pages.openmetrics)


@pytest.mark.parametrize(
    "rows", [ORGANIZATION, EVERYTHING, {}], ids=["an organization", "every instrument", "nothing"]
)
def test_our_bytes_are_the_stock_exporters(rows: Rows) -> None:
    """Both formats are byte for byte what the stock exporter prints for the same instruments."""
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
    """What an exposition rendered before has no effect on the next snapshot."""
    used = Exposition(INSTRUMENTS)
    for rows in many:
        shown = board(rows)
        assert both(shown, used) == both(shown, Exposition(INSTRUMENTS))


def test_a_series_keeps_its_labels_when_its_value_changes() -> None:
    """A series of the next snapshot has its new value; one that is not in it is gone."""
    stays = Series({"organization": "a"})
    leaves = Series({"organization": "b", "model": "m"})
    exposition = Exposition(INSTRUMENTS)
    exposition.render(Snapshot(1, 0, {"openai.api.images": (Point(stays, 1), Point(leaves, 1))}))
    page = exposition.render(Snapshot(2, 0, {"openai.api.images": (Point(stays, 2),)})).text
    assert plain(page).splitlines()[2:] == [b'openai_api_images_total{organization="a"} 2.0']


def test_the_same_points_are_not_rendered_again() -> None:
    """A family whose points are the same sequence object has the same bytes object."""
    exposition = Exposition(INSTRUMENTS)
    points = snapshot(ORGANIZATION).points
    first = exposition.render(Snapshot(1, 0, points)).text.pieces
    second = exposition.render(Snapshot(2, 0, {**points, "openai.api.up": ()})).text.pieces
    assert first[1] is second[1]


@given(
    st.lists(st.tuples(st.integers(0, 1199), st.integers(0, 3)), max_size=4),
    st.integers(0, 900),
    st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_only_pieces_that_changed_are_rendered(
    moved: list[tuple[int, int]], fewer: int, appended: bool
) -> None:
    """Unchanged pieces stay the same bytes object; the page is that of a new exposition."""
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
    compressed = b"".join(pages.text.gzip_member())
    assert gzip.decompress(compressed) == plain(fresh.text)
    same = [
        one is other for one, other in zip(before.pieces[1:], pages.text.pieces[1:], strict=False)
    ]
    unchanged = []
    for number in range(len(same)):
        piece = slice(number * PIECE_LINES, (number + 1) * PIECE_LINES)
        unchanged.append(after[piece] == points[piece])
    assert same == unchanged


@given(boards)
@settings(max_examples=50, deadline=None)
def test_the_compressed_page_is_the_page(rows: Rows) -> None:
    """Both formats are one gzip member with the plain bytes, and nothing follows it."""
    pages = Exposition(INSTRUMENTS).render(snapshot(rows))
    for page in (pages.text, pages.openmetrics):
        zipped = b"".join(page.gzip_member())
        assert gzip.decompress(zipped) == plain(page)
        single = zlib.decompressobj(16 + zlib.MAX_WBITS)
        assert (single.decompress(zipped), single.unused_data, single.eof) == (
            plain(page),
            b"",
            True,
        )


def test_names_in_the_catalogue_are_the_exporters() -> None:
    """The stock exporter names each instrument as the column `prometheus` of its row says."""
    text, _ = stock_prometheus(board(EVERYTHING))
    printed = [
        line.split(b"{")[0].decode() for line in text.splitlines() if not line.startswith(b"#")
    ]
    assert printed == [row.prometheus for row in INSTRUMENTS.values()]


def test_the_golden_scrape(golden: Callable[[str, str], None]) -> None:
    """The whole scrape of a small organization equals the golden files."""
    pages = Exposition(INSTRUMENTS).render(snapshot(ORGANIZATION))
    golden("exposition.prom", plain(pages.text).decode())
    golden("exposition.openmetrics", plain(pages.openmetrics).decode())


def test_created_samples_stand_in_openmetrics_only() -> None:
    """With `created` each series of a counter is followed by the time at which it began, except one
    that continues another; the text format and gauges stay as they are.
    """
    series = [
        Series({"model": "a"}, 1_763_000_000_500_000_000),
        Series({"model": "b"}, 1_763_000_000_000_000_000, continues=True),
    ]
    points = {
        "openai.api.tokens": [Point(series[0], 7), Point(series[1], 8)],
        "openai.api.up": [Point(Series({}), 1)],
    }
    shown = Snapshot(1, 0, points)
    pages = Exposition(INSTRUMENTS, created=True).render(shown)
    samples = [line for line in plain(pages.openmetrics).decode().splitlines() if line[0] != "#"]
    assert samples == [
        'openai_api_tokens_total{model="a"} 7.0',
        'openai_api_tokens_created{model="a"} 1.7630000005e+09',
        'openai_api_tokens_total{model="b"} 8.0',
        "openai_api_up 1.0",
    ]
    assert plain(pages.text) == plain(Exposition(INSTRUMENTS).render(shown).text)
    families = parse_openmetrics(plain(pages.openmetrics).decode() + "# EOF\n")  # type: ignore[no-untyped-call]
    assert [family.name for family in families] == ["openai_api_tokens", "openai_api_up"]
