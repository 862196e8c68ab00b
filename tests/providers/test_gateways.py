"""LiteLLM's daily activity and CSV files of gateways."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web

from otel_openai_usage.domain.gateway_comparison import Counted
from otel_openai_usage.errors import ConfigError, SourceError
from otel_openai_usage.providers import gateways
from otel_openai_usage.simulator.server import running

DAY = date(2026, 11, 2)


def activity(tokens: int, spend: float, *, more: bool = False) -> dict[str, Any]:
    """A page of /user/daily/activity, as LiteLLM's proxy answers it."""
    metrics = {"spend": spend, "prompt_tokens": 1, "completion_tokens": tokens - 1, "total_tokens": tokens,
               "api_requests": 1, "successful_requests": 1, "failed_requests": 0}  # fmt: skip
    models = {"gpt-4o": {"metrics": metrics, "metadata": {}, "api_key_breakdown": {}}}
    result = {
        "date": f"{DAY}",
        "metrics": metrics,
        "breakdown": {"models": models, "providers": {}},
    }
    return {"results": [result], "metadata": {"page": 1, "total_pages": 2, "has_more": more}}


async def read(answers: list[Any], key: str | None = "sk-1") -> gateways.Activity:
    """Read from a proxy that gives these answers, one after the other."""

    async def handle(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer sk-1"
        assert request.query["start_date"] == f"{DAY}"
        answer = answers[int(request.query["page"]) - 1]
        return web.json_response(answer) if not isinstance(answer, web.Response) else answer

    app = web.Application()
    app.router.add_get("/user/daily/activity", handle)
    async with running(app) as url:
        return await gateways.read_litellm(f"{url}/", key, DAY, DAY)


async def test_a_proxy_is_read_to_the_end() -> None:
    """A day may be on two pages; its models are added up, money exactly."""
    found = await read([activity(10, 0.1, more=True), activity(5, 0.2)])
    assert found == {(DAY, "gpt-4o"): Counted(15, Decimal("0.3"))}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (web.Response(status=500), "500; the gateway's log"),
        (web.Response(status=401), "LITELLM_API_KEY"),
        (web.Response(status=302, headers={"Location": "/"}), "302"),
        (web.Response(text="<html>"), "no JSON"),
        ({"results": [{"date": "2026-11-02"}]}, "not the shape"),
        ([], "not the shape"),
    ],
)
async def test_a_proxy_that_cannot_be_read(answer: Any, said: str) -> None:
    """Every other answer is an error that says what to do."""
    with pytest.raises(SourceError, match=said):
        await read([answer])


async def test_a_proxy_that_is_away() -> None:
    """A dead address is an error."""
    with pytest.raises(SourceError, match="check the address"):
        await gateways.read_litellm("http://127.0.0.1:9", None, DAY, DAY)


@pytest.mark.parametrize(
    "text",
    [
        "date,model,tokens,cost\n2026-11-02,gpt-4o,10,0.5\n2026-11-02,gpt-4o,5,\n",
        "\ufeffDay;Model;Prompt_Tokens;Completion_Tokens;Spend\n2026-11-02; gpt-4o ;10;5;0.5\n",
        "model,total_tokens,date,total_cost\ngpt-4o,15,2026-11-02T00:00:00Z,0.50\n",
    ],
)
def test_a_csv_of_any_gateway(text: str) -> None:
    """Columns in any order and case, commas or semicolons, with or without a BOM."""
    assert gateways.read_csv(text, "x") == {(DAY, "gpt-4o"): Counted(15, Decimal("0.5"))}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there are none"),
        (
            "when,what\n1,2\n",
            "expected the columns date, model, tokens and cost; there are when, what",
        ),
        ("date,model,tokens\nyesterday,m,1\n", "line 2"),
        ("date,model,tokens\n2026-11-02,m,1.5\n", "a whole number"),
        ("date,model,tokens,cost\n2026-11-02,m,1,NaN\n", "amount of money"),
        ("date,model,tokens,cost\n2026-11-02,m\n", "line 2"),
    ],
)
def test_a_csv_with_other_columns_or_values(text: str, said: str) -> None:
    """A file that cannot be understood is refused whole, with line and column."""
    with pytest.raises(ConfigError, match=said):
        gateways.read_csv(text, "x")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"results": [1]}'])
def test_a_saved_answer_of_another_shape(text: str) -> None:
    """A file that is no activity is refused."""
    with pytest.raises(ConfigError, match="x: "):
        gateways.saved_litellm(text, "x")
