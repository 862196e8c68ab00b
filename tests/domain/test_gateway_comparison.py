"""A gateway's count against OpenAI's, by model and day."""

from datetime import date
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from otel_openai_usage.domain import gateway_comparison as subject
from otel_openai_usage.domain.gateway_comparison import AtOpenAI, Comparison, Counted, compare

DAY = date(2026, 11, 2)
LATER = date(2026, 11, 20)


def counted(**tokens: int) -> dict[tuple[date, str], Counted]:
    """What a gateway counted; `_` stands for a dash, `__` for a slash."""
    return {
        (DAY, name.replace("__", "/").replace("_", "-")): Counted(value)
        for name, value in tokens.items()
    }


def used(**tokens: int) -> dict[tuple[date, str], AtOpenAI]:
    """What OpenAI counted."""
    return {
        (DAY, name.replace("_", "-")): AtOpenAI(value, is_used=True)
        for name, value in tokens.items()
    }


def lines(
    gateway: dict[tuple[date, str], Counted], openai: dict[tuple[date, str], AtOpenAI]
) -> dict[str, Comparison]:
    """The comparison by model."""
    return {line.model: line for line in compare(gateway, openai, settled_until=LATER)}


def test_a_requested_name_stands_for_the_dated_model() -> None:
    """`openai/gpt-4o` is gpt-4o-2024-08-06 of that day, and no gpt-4o-mini."""
    found = lines(counted(openai__gpt_4o=7), used(gpt_4o_2024_08_06=7, gpt_4o_mini_2024_07_18=2))
    assert found["gpt-4o"].models == ("gpt-4o-2024-08-06",)
    assert not found["gpt-4o"].differs
    assert found["gpt-4o-mini-2024-07-18"].reasons == (subject.AROUND, subject.NO_BILL)


def test_a_name_stands_for_what_the_gateway_does_not_name_itself() -> None:
    """Where the gateway names one dated model, its short name is the others together."""
    found = lines(
        counted(gpt_4o=5, gpt_4o_2024_11_20=3),
        used(gpt_4o_2024_11_20=3, gpt_4o_2024_08_06=4, gpt_4o_2024_05_13=1),
    )
    assert found["gpt-4o"].models == ("gpt-4o-2024-05-13", "gpt-4o-2024-08-06")
    assert not any(line.differs for line in found.values())


def test_reasons() -> None:
    """Each difference has the reasons that can be known."""
    found = lines(
        {**counted(a=1, b=9, c=5, azure__d=3), (DAY, "e"): Counted(5, Decimal("2.00"))},
        {
            **used(a=2, b=3),
            (DAY, "c"): AtOpenAI(5, is_used=True, billed=Decimal(1)),
            (DAY, "e"): AtOpenAI(5, is_used=True, billed=Decimal("1.50")),
            (DAY, "gpt-image-1"): AtOpenAI(billed=Decimal(3)),
        },
    )
    assert found["a"].reasons[0] == subject.MORE_AT_OPENAI
    assert found["b"].reasons[0] == subject.MORE_AT_GATEWAY
    assert found["c"].reasons == ()
    assert found["azure/d"].reasons == (subject.OTHER,)
    assert found["e"].reasons == (subject.OTHER_PRICE,)
    assert found["e"].openai_cost == Decimal("1.50")
    assert found["gpt-image-1"].reasons == (subject.BILLED_WITHOUT_USAGE, subject.AROUND)
    (young,) = compare(counted(a=1), used(a=2), settled_until=DAY)
    assert young.reasons[0] == subject.UNSETTLED


NAMES = st.sampled_from(["gpt-4o", "gpt-4o-2024-08-06", "gpt-4o-2024-11-20", "openai/gpt-4o", "o3"])
TOKENS = st.dictionaries(st.tuples(st.just(DAY), NAMES), st.integers(0, 9))


@given(TOKENS, TOKENS)
def test_every_token_is_in_one_line(
    theirs: dict[tuple[date, str], int], ours: dict[tuple[date, str], int]
) -> None:
    """The lines add up to what the gateway and what OpenAI counted."""
    found = compare(
        {key: Counted(value) for key, value in theirs.items()},
        {key: AtOpenAI(value, is_used=True) for key, value in ours.items()},
        settled_until=LATER,
    )
    assert sum(line.gateway.tokens for line in found) == sum(theirs.values())
    assert sum(line.openai.tokens for line in found) == sum(ours.values())
