"""Why a cost changed: the reasons sum to the change, and each is found where it is the only one."""

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from otel_openai_usage.domain.cost_change import Cell, Change, Spent, explain, summed

A = Cell(project="a", model="large", charged="output")
B = Cell(project="b", model="small", charged="output")
ZERO = Decimal(0)


def spent(quantity: int, cost: str) -> Spent:
    """A period of one cell."""
    return Spent(quantity, Decimal(cost))


def only(changes: list[Change]) -> dict[str, Decimal]:
    """The sums of all reasons that are not 0."""
    (change,) = summed(changes, ())
    names = ("usage", "price", "mix", "unreported")
    return {name: getattr(change, name) for name in names if getattr(change, name)}


def test_twice_the_usage_is_usage() -> None:
    """Everybody uses twice as much at the same price."""
    before = {A: spent(10, "1"), B: spent(30, "0.3")}
    after = {A: spent(20, "2"), B: spent(60, "0.6")}
    assert only(explain(before, after)) == {"usage": Decimal("1.3")}


def test_a_higher_price_is_price() -> None:
    """The same usage costs more."""
    changes = explain({A: spent(10, "1")}, {A: spent(10, "1.5")})
    assert only(changes) == {"price": Decimal("0.5")}


def test_moving_to_another_model_is_mix() -> None:
    """As many tokens as before, of the dear model instead of the cheap one."""
    changes = explain({A: spent(10, "1"), B: spent(10, "0.1")}, {A: spent(20, "2")})
    assert only(changes) == {"mix": Decimal("0.9")}


def test_a_bill_without_usage_is_a_case_of_its_own() -> None:
    """OpenAI bills images that no endpoint lists: neither price nor usage explains them."""
    images = Cell(project="a", model="gpt-image-1", charged="images")
    changes = explain({A: spent(10, "1")}, {A: spent(10, "1"), images: spent(0, "4")})
    assert only(changes) == {"unreported": Decimal(4)}
    (largest, *_) = summed(changes, ["model"])
    assert (largest.cell, largest.total) == (Cell(model="gpt-image-1"), Decimal(4))


def test_units_are_not_compared() -> None:
    """A thousand more images do not make tokens more."""
    images = Cell(charged="images")
    before = {A: spent(10, "1"), images: spent(1, "1")}
    after = {A: spent(10, "1"), images: spent(1001, "1001")}
    assert {change.cell: change.usage for change in explain(before, after)} == {
        A: ZERO,
        images: 1000,
    }


def test_a_first_use_is_usage() -> None:
    """What nobody used before has no mix to compare with."""
    assert only(explain({}, {A: spent(10, "1"), B: spent(5, "2")})) == {"usage": Decimal(3)}


CELLS = st.builds(
    Cell, st.sampled_from("ab"), st.just(None), st.sampled_from(["large", "small"]),
    st.sampled_from(["input", "output"]), st.sampled_from([None, 0, 3600]),
)  # fmt: skip
MONEY = st.integers(-(10**9), 10**12).map(lambda units: Decimal(units).scaleb(-10))
PERIODS = st.dictionaries(CELLS, st.builds(Spent, st.integers(0, 10**12), MONEY), max_size=8)


@given(before=PERIODS, after=PERIODS)
def test_reasons_sum_to_the_change(before: dict[Cell, Spent], after: dict[Cell, Spent]) -> None:
    """Cell by cell and for every grouping, to the last digit; mixes of one cell alone are 0."""
    changes = explain(before, after)
    for change in changes:
        costs = [period[change.cell].cost for period in (after, before) if change.cell in period]
        later = after[change.cell].cost if change.cell in after else ZERO
        earlier = before[change.cell].cost if change.cell in before else ZERO
        assert costs
        assert Fraction(change.total) == Fraction(later) - Fraction(earlier)
    whole = sum((Fraction(one.cost) for one in after.values()), Fraction(0))
    whole -= sum((Fraction(one.cost) for one in before.values()), Fraction(0))
    for names in ((), ("project",), ("project", "model", "hour")):
        assert sum((Fraction(one.total) for one in summed(changes, names)), Fraction(0)) == whole


@given(
    before=st.builds(Spent, st.integers(1, 10**9), MONEY),
    after=st.builds(Spent, st.integers(1, 10**9), MONEY),
)
def test_one_cell_alone_has_no_mix(before: Spent, after: Spent) -> None:
    """With nothing beside it, usage cannot have moved."""
    (change,) = explain({A: before}, {A: after})
    assert change.mix == 0
