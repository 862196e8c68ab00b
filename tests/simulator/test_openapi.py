"""First witness: OpenAI's own OpenAPI document."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from otel_openai_usage.domain.endpoints import ENDPOINTS, USAGE_ENDPOINTS
from otel_openai_usage.simulator.faults import Fault
from otel_openai_usage.simulator.server import USAGE, Simulation
from otel_openai_usage.simulator.world import World
from tests.simulator.conftest import DAY, HOUR, THURSDAY, Api

DOCUMENT: dict[str, Any] = yaml.load(
    Path(__file__).with_name("openai-admin-openapi.yaml").read_text(encoding="utf-8"),
    getattr(yaml, "CSafeLoader", yaml.SafeLoader),
)
NEWER = {"api_source", "user_id", "input_cache_write_30m_tokens", "input_cache_write_12h_tokens"}
"""Fields that the client 3.54.0 has and the document does not yet."""
UNDECLARED = {"start_time_iso", "end_time_iso", "organization_id"}
"""Fields that were seen on the wire and are declared nowhere."""


def draft(schema: Any) -> Any:
    """A schema with OpenAPI 3.0's `nullable: true`, which this 3.1 document still has, spelt as
    JSON Schema does.
    """
    if isinstance(schema, list):
        return [draft(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: draft(part) for name, part in schema.items() if name != "nullable"}
    return {"anyOf": [plain, {"type": "null"}]} if schema.get("nullable") is True else plain


COMPONENTS = draft(DOCUMENT["components"])


def problems(path: str, status: int, body: object) -> list[str]:
    """What is wrong with an answer, by the document; a path or status that it does not have is a
    KeyError.
    """
    answer = DOCUMENT["paths"][path]["get"]["responses"][str(status)]
    while "$ref" in answer:
        answer = DOCUMENT["components"]["responses"][answer["$ref"].rsplit("/", 1)[1]]
    schema = draft(answer["content"]["application/json"]["schema"])
    validator = Draft202012Validator({**schema, "components": COMPONENTS})
    return [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message}"
        for error in validator.iter_errors(body)
    ]


def concrete(path: str, world: World) -> str:
    """A path of the document with ids that exist."""
    company = world.company
    key = company.keys[1]
    names = {
        "project_id": company.projects[0].id if "service_account" in path else key.project.id,
        "api_key_id": key.id,
        "key_id": "key_admin0",
        "service_account_id": company.accounts[0].id,
        "user_id": key.owner.id,
    }
    return path.removeprefix("/organization/").format(**names)


def test_the_witness_can_say_no() -> None:
    """An answer that lacks a required field, or has one of the wrong type, is found out."""
    good = {"object": "page", "data": [], "has_more": False, "next_page": None}
    assert problems("/organization/costs", 200, good) == []
    assert problems("/organization/costs", 200, good | {"has_more": "no"})
    assert problems("/organization/costs", 200, {"object": "page", "data": [], "has_more": False})
    row = {
        "object": "organization.usage.embeddings.result",
        "input_tokens": 1.5,
        "num_model_requests": 1,
    }
    bucket = {"object": "bucket", "start_time": 1, "end_time": 2, "results": [row]}
    assert problems("/organization/usage/embeddings", 200, good | {"data": [bucket]})


@pytest.mark.parametrize("path", DOCUMENT["paths"])
async def test_every_answer_is_as_the_document_says(api: Api, path: str) -> None:
    """Every GET path of the document is answered, and validly; buckets grouped by all and by
    nothing, at each width.
    """
    name = concrete(path, api.simulation.world)
    endpoint = ENDPOINTS.get(name.removeprefix("usage/"))
    asked: list[dict[str, Any]] = [{}]
    if endpoint is not None:
        dates = {"start_time": THURSDAY - 2 * DAY, "end_time": THURSDAY}
        hours = {"start_time": THURSDAY + 12 * HOUR, "end_time": THURSDAY + 14 * HOUR}
        spans = [dates | {"bucket_width": "1d"}] + [
            hours | {"bucket_width": width.text} for width in endpoint.widths if width < DAY
        ]
        asked = [
            span | {"group_by": list(group_by)}
            for span in spans
            for group_by in ((), endpoint.group_by)
        ]
    for params in asked:
        reply = await api.get(name, **params)
        assert reply.status == 200, reply.text
        assert problems(path, 200, reply.json) == []
        if endpoint is not None:
            assert any(bucket["results"] for bucket in reply.json["data"])  # type: ignore[attr-defined]


def rows(body: dict[str, Any]) -> list[dict[str, Any]]:
    """All rows of a page."""
    return [row for bucket in body["data"] for row in bucket["results"]]


@pytest.mark.parametrize(
    "name",
    [
        "costs",
        *(endpoint.path for endpoint in USAGE_ENDPOINTS.values() if endpoint.name != "decisions"),
    ],
)
async def test_rows_have_all_declared_fields_and_no_others(api: Api, name: str) -> None:
    """A row has every field that the document declares for it, and beyond them only those known
    from the client or the wire.
    """
    reply = await api.get(name, start_time=THURSDAY - DAY, end_time=THURSDAY)
    (row,) = rows(reply.json)
    schemas = DOCUMENT["components"]["schemas"].values()
    declared = next(
        set(schema["properties"])
        for schema in schemas
        if schema.get("properties", {}).get("object", {}).get("enum") == [row["object"]]
    )
    assert declared - set(row) == set()
    assert set(row) - declared <= NEWER | UNDECLARED


@pytest.mark.parametrize(
    "kind",
    ["unknown_fields", "duplicate_rows", "null_dims", "missing_optional", "money_long", "no_iso"],
)
async def test_odd_answers_are_still_valid(api: Api, kind: str) -> None:
    """Oddities that the document allows stay within it."""
    api.simulation.faults.add(Fault(kind))
    for path in ("/organization/usage/completions", "/organization/costs"):
        reply = await api.get(
            path.removeprefix("/organization/"),
            start_time=THURSDAY - DAY,
            end_time=THURSDAY,
            group_by="project_id,api_key_id",
        )
        assert problems(path, 200, reply.json) == []


async def test_a_429_is_as_the_document_says(api: Api) -> None:
    """A 429 has the error envelope and a whole number of seconds in Retry-After."""
    api.simulation.faults.add(Fault("rate_limit", retry_after=7))
    reply = await api.get("costs", start_time=THURSDAY)
    assert (reply.status, reply.headers["Retry-After"]) == (429, "7")
    assert problems("/organization/costs", 429, reply.json) == []


async def test_errors_have_the_envelope(api: Api) -> None:
    """400, 401, 403 and 404 come in OpenAI's error envelope."""
    simulation: Simulation = api.simulation
    simulation.keys["sk-admin-narrow"] = frozenset({USAGE})
    replies = [
        await api.get("costs"),
        await api.get("costs", key="sk-admin-something-else", start_time=THURSDAY),
        await api.get("costs", key=None, start_time=THURSDAY),
        await api.get("projects", key="sk-admin-narrow"),
        await api.get("usage/telepathy", start_time=THURSDAY),
    ]
    assert [reply.status for reply in replies] == [400, 401, 401, 403, 404]
    validator = Draft202012Validator(
        {"$ref": "#/components/schemas/ErrorResponse", "components": COMPONENTS}
    )
    assert [error.message for reply in replies for error in validator.iter_errors(reply.json)] == []
