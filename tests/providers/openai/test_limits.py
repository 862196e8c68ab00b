"""Spend limits."""

from decimal import Decimal

import pytest
from aiohttp import web

from otel_openai_usage.domain.model import Limit, RateLimit
from otel_openai_usage.errors import BadResponse, MissingScope, Unavailable
from otel_openai_usage.providers.openai.client import Client
from otel_openai_usage.providers.openai.limits import OpenAILimits
from tests.providers.openai.upstream import Upstream, payload, refusal

OWN = "organization/spend_limit"
PROJECTS = "organization/projects"
OF = "organization/projects/{}/spend_limit"


def listing(*ids: str, **more: object) -> dict[str, object]:
    """A list of projects."""
    return {
        "data": [{"id": id_, "name": id_, "status": "active"} | more for id_ in ids],
        "has_more": False,
    }


async def test_limits(upstream: Upstream, client: Client) -> None:
    """Cents become currency units, currency is in lower case, enforcing is reported, and 404 is no
    limit.
    """
    upstream.routes = {
        OWN: payload("spend_limit"),
        PROJECTS: listing("p2", "p1"),
        OF.format("p1"): payload("project_spend_limit"),
    }
    assert await OpenAILimits(client).read() == [
        Limit(None, Decimal("1000.00"), "usd", False),
        Limit("p1", Decimal("123.45"), "usd", True),
    ]


async def test_no_limits(upstream: Upstream, client: Client) -> None:
    """An organization may have none; its archived projects are not asked, OpenAI refuses to tell of
    them.
    """
    upstream.routes = {PROJECTS: listing("p1", status="archived")}
    assert await OpenAILimits(client).read() == []
    assert [asked.path for asked in upstream.asked] == [OWN, PROJECTS]


@pytest.mark.parametrize(
    "answer", [refusal(403, "Missing scopes: api.management.read."), refusal(404, "Invalid URL")]
)
async def test_projects_that_are_not_told(
    upstream: Upstream, client: Client, answer: web.Response
) -> None:
    """The organization's limit is shown by itself when its projects may not be listed."""
    upstream.routes = {OWN: payload("spend_limit"), PROJECTS: lambda _: answer}
    assert await OpenAILimits(client).read() == [Limit(None, Decimal("1000.00"), "usd", False)]


async def test_one_project_never_fails_the_rest(upstream: Upstream, client: Client) -> None:
    """A project that cannot be read now keeps the limit that it had; an archived one has none."""
    upstream.routes = {
        PROJECTS: listing("p1", "p2"),
        OF.format("p1"): payload("project_spend_limit"),
        OF.format("p2"): payload("spend_limit"),
    }
    limits = OpenAILimits(client)
    before = await limits.read()
    upstream.routes[PROJECTS] = listing("p1", "p2", "p3")
    upstream.routes[OF.format("p1")] = lambda _: refusal(500, "no")
    upstream.routes[OF.format("p3")] = lambda _: refusal(400, "project is archived")
    assert (
        await limits.read()
        == before
        == [Limit("p1", Decimal("123.45"), "usd", True), Limit("p2", Decimal(1000), "usd", False)]
    )


async def test_all_projects_failing(upstream: Upstream, client: Client) -> None:
    """If no project can be read, that is raised."""
    upstream.routes = {PROJECTS: listing("p1"), OF.format("p1"): lambda _: refusal(500, "no")}
    with pytest.raises(Unavailable):
        await OpenAILimits(client).read()


async def test_a_missing_scope(upstream: Upstream, client: Client) -> None:
    """A key that may not read limits raises MissingScope."""
    upstream.routes = {OWN: lambda _: refusal(403, "Missing scopes: api.management.read.")}
    with pytest.raises(MissingScope):
        await OpenAILimits(client).read()


@pytest.mark.parametrize(
    "body", [{"currency": "USD"}, {"threshold_amount": None}, {"threshold_amount": "NaN"}, []]
)
async def test_unknown_shapes(body: object, upstream: Upstream, client: Client) -> None:
    """A limit without an amount is an error that names the endpoint."""
    upstream.routes = {OWN: lambda _: (body and dict(body)) or b"[]"}  # type: ignore[call-overload]
    with pytest.raises(BadResponse, match=r"^organization/spend_limit: "):
        await OpenAILimits(client).read()


RATES = "organization/projects/{}/rate_limits"


async def test_rate_limits(upstream: Upstream, client: Client) -> None:
    """Each number of a model is a limit; a project that cannot be read keeps those that it had, and
    a number that is none is left out.
    """
    gpt = {
        "id": "rl-1",
        "model": "gpt-4o",
        "max_requests_per_1_minute": 500,
        "max_tokens_per_1_minute": 30_000,
    }
    image = {
        "id": "rl-2",
        "model": "dall-e-3",
        "max_images_per_1_minute": 5,
        "max_requests_per_1_minute": -1,
    }
    upstream.routes = {
        PROJECTS: listing("p1", "p2"),
        RATES.format("p1"): {"data": [gpt, image, {"id": "rl-3"}], "has_more": False},
        RATES.format("p2"): {"data": [gpt], "has_more": False},
    }
    limits = OpenAILimits(client)
    first = [
        RateLimit("p1", "gpt-4o", "requests_per_minute", 500),
        RateLimit("p1", "gpt-4o", "tokens_per_minute", 30_000),
        RateLimit("p1", "dall-e-3", "images_per_minute", 5),
    ]
    other = [
        RateLimit("p2", "gpt-4o", "requests_per_minute", 500),
        RateLimit("p2", "gpt-4o", "tokens_per_minute", 30_000),
    ]
    assert await limits.read_rates() == [*first, *other]
    upstream.routes[RATES.format("p1")] = lambda _: refusal(500, "no")
    assert await limits.read_rates() == [*first, *other]
    upstream.routes[RATES.format("p2")] = lambda _: refusal(500, "no")
    with pytest.raises(Unavailable):
        await limits.read_rates()
