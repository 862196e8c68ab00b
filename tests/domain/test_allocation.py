"""Hypothesis: a bill is divided exactly, and nobody gets more than usage explains."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_openai_usage.domain.allocation import (
    OTHERS,
    SHARED,
    UNMETERED,
    Day,
    Metered,
    Use,
    divided,
)

MODEL = "gpt-4o-2024-08-06"
ITEM = f"{MODEL}, output"


def use(
    output: int, project: str | None = "p1", tier: str | None = None, model: str = MODEL
) -> Use:
    """OpenAI's output tokens."""
    return Use(project, model, tier, {"output": output})


def event(
    customer: str,
    output: int,
    project: str | None = "p1",
    tier: str | None = None,
    model: str | None = MODEL,
) -> Metered:
    """A customer's output tokens."""
    return Metered(customer, project, model, tier, {"output": output})


def paid(
    day: Day, amount: str, item: str | None = ITEM, project: str | None = "p1"
) -> dict[str, str]:
    """The parts of an amount, by customer."""
    return {part.customer: str(part.amount) for part in day.parts(project, item, Decimal(amount))}


def test_what_no_event_explains_is_unmetered() -> None:
    """Events explain 30 + 50 of 100 tokens: their customers pay 30 % and 50 %."""
    day = Day([use(100)], [event("acme", 30), event("bolt", 50)])
    assert paid(day, "1.00") == {"acme": "0.30", "bolt": "0.50", UNMETERED: "0.20"}


def test_more_events_than_usage_share_the_whole_bill() -> None:
    """Events say 200 tokens, OpenAI 100: customers pay in proportion, and nothing is left."""
    day = Day([use(100)], [event("acme", 150), event("bolt", 50)])
    assert paid(day, "1.00") == {"acme": "0.75", "bolt": "0.25"}


@pytest.mark.parametrize("uses", [[], [use(0)]])
def test_without_usage_events_share_the_bill(uses: list[Use]) -> None:
    """If OpenAI reports no tokens, the bill is divided among the events."""
    assert paid(Day(uses, [event("acme", 3), event("bolt", 1)]), "4") == {"acme": "3", "bolt": "1"}


def test_without_events_all_is_unmetered() -> None:
    """A line item that no event explains is unmetered, whether OpenAI reports usage or not."""
    assert paid(Day([use(5)]), "1.5") == {UNMETERED: "1.5"}
    assert paid(Day(), "1.5") == {UNMETERED: "1.5"}


@pytest.mark.parametrize("item", [None, "web search tool calls", "gpt-4o-2024-08-06, images"])
def test_items_without_one_model_and_class_are_shared(item: str | None) -> None:
    """Tool calls, storage and images are nobody's tokens."""
    assert paid(Day([use(1)], [event("acme", 1)]), "2", item) == {SHARED: "2"}


def test_remainder_goes_to_the_largest_part_first_by_name() -> None:
    """A cent in three parts: one of them gets what rounding leaves."""
    day = Day([use(3)], [event("b", 1), event("c", 1), event("a", 1)])
    assert paid(day, "0.10") == {"a": "0.04", "b": "0.03", "c": "0.03"}
    assert paid(day, "-0.10") == {"a": "-0.04", "b": "-0.03", "c": "-0.03"}


def test_events_without_project_are_spread_by_usage() -> None:
    """10 tokens without a project are 7.5 in the project with three quarters of the usage."""
    day = Day([use(30, "p1"), use(10, "p2")], [event("acme", 10, None), event("bolt", 10, "p2")])
    assert paid(day, "30.00", project="p1") == {"acme": "7.50", UNMETERED: "22.50"}
    # In p2 there are 12.5 tokens of events for 10 of OpenAI.
    assert paid(day, "12.5", project="p2") == {"acme": "2.5", "bolt": "10.0"}


def test_bill_without_projects_is_divided_over_all() -> None:
    """Without a project on the bill, usage and events of all projects count."""
    day = Day([use(30, "p1"), use(10, "p2")], [event("acme", 10, "p2")])
    assert paid(day, "4", project=None) == {"acme": "1", UNMETERED: "3"}


def test_usage_without_projects_counts_for_every_project() -> None:
    """If usage is not grouped by project, events of every project are compared with all of it."""
    day = Day([use(40, None)], [event("acme", 10, "p2")])
    assert paid(day, "4", project="p1") == {"acme": "1", UNMETERED: "3"}


def test_requested_model_counts_as_the_only_dated_one() -> None:
    """`gpt-4o` is `gpt-4o-2024-08-06` on a day on which no other dated gpt-4o was used."""
    asked = [event("acme", 5, model="gpt-4o")]
    assert paid(Day([use(10), use(1, model="gpt-4o-mini-2024-07-18")], asked), "2.0") == {
        "acme": "1.0",
        UNMETERED: "1.0",
    }
    two = Day([use(10), use(10, model="gpt-4o-2024-11-20")], asked)
    assert paid(two, "2.0") == {UNMETERED: "2.0"}


def test_tiers_are_apart_where_both_sides_say_them() -> None:
    """Batch tokens of an event explain the batch's bill only, if OpenAI says the tier, too."""
    item = f"batch | {ITEM}"
    said = Day([use(10, tier="batch"), use(10, tier="default")], [event("acme", 5, tier="batch")])
    assert paid(said, "2.0", item) == {"acme": "1.0", UNMETERED: "1.0"}
    assert paid(said, "2.0") == {UNMETERED: "2.0"}
    unsaid = Day([use(10, tier="batch"), use(10, tier="default")], [event("acme", 5)])
    assert paid(unsaid, "2.00", item) == {"acme": "0.50", UNMETERED: "1.50"}


def test_input_is_billed_without_cached_tokens() -> None:
    """Of 10 input tokens 4 were cached: `input` is for 6, `cached input` for 4."""
    tokens = {"input": 10, "input_cached": 4}
    day = Day([Use("p1", MODEL, None, tokens)], [Metered("acme", "p1", MODEL, None, tokens)])
    assert paid(day, "1", f"{MODEL}, input") == {"acme": "1"}
    half = Day(
        [Use("p1", MODEL, None, tokens)],
        [Metered("acme", "p1", MODEL, None, {"input": 5, "input_cached": 2})],
    )
    assert paid(half, "1.0", f"{MODEL}, input") == {"acme": "0.5", UNMETERED: "0.5"}
    assert paid(half, "1.0", f"{MODEL}, cached input") == {"acme": "0.5", UNMETERED: "0.5"}
    assert paid(half, "1.0", f"{MODEL} text, input") == {"acme": "0.5", UNMETERED: "0.5"}


def test_customers_beyond_the_limit_are_folded() -> None:
    """The first customers stay, the others are one; the sum is that of all."""
    day = Day([use(10)], [event(f"c{n}", 1) for n in range(10)], max_customers=2)
    assert paid(day, "10") == {"c0": "1", "c1": "1", OTHERS: "8"}


def test_many_customers_take_bounded_memory() -> None:
    """Of 200,000 customers 100,000 keep their names, the others are one, and all pay the bill."""
    many = (event(f"customer {number}", 1, None) for number in range(200_000))
    parts = Day([use(400_000)], many).parts("p1", ITEM, Decimal("4000.000"))
    assert len(parts) == 100_002
    assert sum(part.amount for part in parts) == Decimal("4000.000")
    paid_by_others = {part.customer: part.amount for part in parts}[OTHERS]
    assert paid_by_others == Decimal("1000.000")


def test_a_bill_of_nothing_is_one_part() -> None:
    """A line item that cost 0 stays one row."""
    assert paid(Day([use(4)], [event("acme", 3), event("bolt", 1)]), "0.00") == {"acme": "0.00"}


def decimals(amount: Decimal) -> int:
    """How many decimals an amount has."""
    return max(0, -int(amount.as_tuple().exponent))


AMOUNTS = st.builds(
    lambda units, exponent: Decimal(units).scaleb(exponent),
    st.integers(-(10**20), 10**20),
    st.integers(-30, 3),
)
PROJECTS = st.sampled_from(["p1", "p2", None])
TIERS = st.sampled_from(["default", "batch", None])
MODELS = st.sampled_from([MODEL, "gpt-4o", "gpt-4o-2024-11-20"])
TOKENS = st.fixed_dictionaries({
    "input": st.integers(0, 10**12), "output": st.integers(0, 50), "input_cached": st.integers(0, 10**6),
})  # fmt: skip
DAYS = st.builds(
    Day,
    st.lists(st.builds(Use, PROJECTS, MODELS, TIERS, TOKENS), max_size=5),
    st.lists(
        st.builds(Metered, st.sampled_from("abcde"), PROJECTS, MODELS, TIERS, TOKENS), max_size=8
    ),
    st.integers(0, 5),
)
ITEMS = st.sampled_from([
    ITEM, f"{MODEL}, input", f"batch | {MODEL}, cached input", "gpt-4o, output", "file storage", None,
])  # fmt: skip


@given(day=DAYS, project=PROJECTS, item=ITEMS, amount=AMOUNTS)
def test_parts_are_the_bill(
    day: Day, project: str | None, item: str | None, amount: Decimal
) -> None:
    """Parts sum to the bill exactly, have its decimals and its sign, and one customer is one part."""
    parts = day.parts(project, item, amount)
    assert sum(Fraction(part.amount) for part in parts) == Fraction(amount)
    for part in parts:
        assert decimals(part.amount) == decimals(amount)
        assert part.amount * amount >= 0 or amount == 0
    names = [part.customer for part in parts]
    assert len(set(names)) == len(names) > 0


@given(day=DAYS, project=PROJECTS, item=ITEMS, amount=AMOUNTS)
def test_nobody_gets_more_than_usage_explains(
    day: Day, project: str | None, item: str | None, amount: Decimal
) -> None:
    """A part is at most its share, apart from what rounding leaves for the largest one."""
    parts = day.parts(project, item, amount)
    unit = Fraction(1, 10 ** decimals(amount))
    for part in parts:
        share = Fraction(part.weight, part.whole)
        assert 0 <= share <= 1
        assert abs(Fraction(part.amount)) < abs(Fraction(amount)) * share + unit * 10


@given(day=DAYS, project=PROJECTS, item=ITEMS, amount=AMOUNTS)
def test_a_corrected_bill_is_divided_by_the_same_ratios(
    day: Day, project: str | None, item: str | None, amount: Decimal
) -> None:
    """A credit of the same amount takes back every part exactly."""
    parts = day.parts(project, item, amount)
    assert day.parts(project, item, -amount) == [
        part._replace(amount=part.amount.copy_negate()) for part in parts
    ]


def test_amounts_that_are_no_number_are_refused() -> None:
    """NaN cannot be divided."""
    with pytest.raises(ValueError, match="finite"):
        divided(Decimal("NaN"), Day().shares(None, None))
