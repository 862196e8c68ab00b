"""An event costs what OpenAI's price list says at its time, as far as the event describes it."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_openai_usage.composition.stores import queries_opener
from otel_openai_usage.domain.metered import METERED, Event, PricedBy
from otel_openai_usage.domain.metered_cost import costs
from otel_openai_usage.providers.openai.prices import Prices
from tests.ingest.conftest import NOW, Service, event

Open = Callable[..., Awaitable[Service]]
COST = "openai.metered.cost"
MILLION = 1_000_000


def usage(**more: object) -> dict[str, object]:
    """A million tokens each way; gpt-4o takes 2.50 for input and 10 dollars for output."""
    return {"model": "gpt-4o", "input_tokens": MILLION, "output_tokens": MILLION, **more}


@pytest.fixture
async def priced(open_service: Open) -> Service:
    """A service with the package's price list."""
    return await open_service(prices__enabled=True)


@pytest.mark.parametrize(
    ("data", "dollars"),
    [
        (usage(), "12.5"),
        (usage(input_tokens_details={"cached_tokens": MILLION}), "11.25"),
        (usage(output_tokens_details={"reasoning_tokens": MILLION}), "12.5"),
        (usage(service_tier="default"), "12.5"),
        (usage(service_tier="priority"), "21.25"),
        (usage(object="batch", status="completed"), "6.25"),
        ({"custom_id": "1", "response": {"body": usage()}}, "6.25"),
        (usage(model="gpt-realtime"), "20"),
        (
            usage(
                model="gpt-realtime",
                input_token_details={
                    "audio_tokens": MILLION,
                    "cached_tokens": MILLION // 2,
                    "cached_tokens_details": {"audio_tokens": MILLION // 2},
                },
                output_token_details={"audio_tokens": MILLION},
            ),
            # Half of the input is audio, the other half is cached audio.
            "80.2",
        ),
        (usage(model="gpt-image-1", input_tokens_details={"image_tokens": MILLION}), "50"),
    ],
)
async def test_an_event_is_priced(priced: Service, data: dict[str, object], dollars: str) -> None:
    """Input, cached input, output, audio, images, batch and tier have their list prices."""
    assert (await priced.post(event(data=data))).status == 204
    (value,) = (await priced.shown(COST)).values()
    assert value == pytest.approx(float(dollars))


async def test_the_instrument_has_the_attributes_of_the_contract(open_service: Open) -> None:
    """subject, model, type, currency and the events' own attributes; `estimated` is no part of it."""
    service = await open_service(prices__enabled=True, events__attributes={"team": "$.team"})
    await service.post(
        [event(1, data=usage(team="x")), event(2, data=usage(team="x", estimated=True))]
    )
    await service.shown(COST)
    (point,) = service.exporter.board.current().points[COST]
    assert point.series.attributes == {
        "organization": "default",
        "subject": "alice",
        "model": "gpt-4o",
        "type": "openai",
        "team": "x",
        "currency": "usd",
    }
    assert point.value == 25.0


async def test_costs_survive_a_restart_and_duplicates_add_nothing(open_service: Open) -> None:
    """The counter goes on where it was, and an event costs once."""
    service = await open_service(prices__enabled=True)
    await service.post(event(1, data=usage()))
    await service.post(event(1, data=usage()))
    assert list((await service.shown(COST)).values()) == [12.5]
    service = await open_service(lambda: NOW + 500, prices__enabled=True)
    assert list((await service.shown(COST)).values()) == [12.5]
    await service.post([event(1, data=usage()), event(2, data=usage())])
    assert list((await service.shown(COST)).values()) == [25.0]
    path = service.exporter.store.path
    with queries_opener(Path(path))() as stored:
        day = NOW // 86400 * 86400
        rows = stored.usage(day - 86400, day + 86400, by=("subject",), record="metered")
        assert [(row.group, row.estimate) for row in rows] == [(("alice",), Decimal(25))]


async def test_unknown_models_and_no_prices_cost_nothing(open_service: Open) -> None:
    """Tokens count, whether they have a price or not."""
    service = await open_service(prices__enabled=True)
    await service.post(
        [event(1, data=usage(model="of-our-own")), event(2, data={"input_tokens": 1})]
    )
    assert await service.shown(COST) == {}
    assert await service.shown()
    service = await open_service(prices__enabled=False)
    await service.post(event(3, data=usage()))
    assert await service.shown(COST) == {}


async def test_metered_cost_is_no_part_of_the_estimate(priced: Service) -> None:
    """What applications report must not be added to what OpenAI's usage is estimated to cost."""
    await priced.post(event(data=usage()))
    day = NOW // 86400 * 86400
    assert priced.exporter.store.estimated_and_billed("default", day - 86400, day + 86400) == {}
    assert await priced.shown("openai.api.estimated_cost") == {}


NUMBERS = st.integers(0, 10**12)
PARTS = st.dictionaries(
    st.sampled_from(["input_audio", "input_image", "input_cached_audio", "output_audio", "output_image"]),
    NUMBERS,
)  # fmt: skip


@given(
    amounts=st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.just(1)),
    parts=PARTS,
    tier=st.sampled_from([None, "flex", "priority", "no such tier"]),
    batch=st.booleans(),
    model=st.sampled_from(["gpt-4o", "gpt-realtime", "gpt-image-1", "text-embedding-3-small"]),
)
def test_no_event_lowers_the_cost(
    amounts: tuple[int, ...], parts: dict[str, int], tier: str | None, batch: bool, model: str
) -> None:
    """Whatever an event says of its parts, its cost is not negative, and is exact."""
    dims = ("acme", model, "openai", None)
    found = Event(b"", b"", NOW, dims, amounts, None, PricedBy(parts, tier, batch))
    estimate = costs("default", [found, found], _PRICES, NOW)
    (once,) = costs("default", [found], _PRICES, NOW).growth.values() or (Decimal(0),)
    assert once >= 0
    assert list(estimate.growth.values()) in ([2 * once], [])
    assert sum(estimate.days.values()) == sum(estimate.growth.values())


_PRICES = Prices()


def test_the_price_is_that_of_the_events_time() -> None:
    """Yesterday's event has yesterday's price and day; one from the future has the present's."""
    asked = []

    class Listening(Prices):
        def rates(self, *arguments):  # type: ignore[no-untyped-def]
            asked.append(arguments[-1])
            return super().rates(*arguments)

    dims = ("acme", "gpt-4o", "openai", None)
    times = [NOW - 86400, NOW + 86400, None]
    events = [Event(b"", b"", time, dims, (1, 1, 0, 0, 1)) for time in times]
    found = costs("default", events, Listening(), NOW)
    assert asked == [NOW - 86400, NOW, NOW]
    today = datetime.fromtimestamp(NOW, UTC).replace(hour=0, minute=0, second=0)
    days = [datetime.fromtimestamp(day, UTC) for _, day in found.days]
    assert days == [today - timedelta(days=1), today]
    assert METERED.dimensions == ("subject", "model", "type", "estimated")
