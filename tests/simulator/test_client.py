"""Second witness: OpenAI's official Python client, over real HTTP."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from otel_openai_usage.domain.endpoints import COSTS, ENDPOINTS, USAGE_ENDPOINTS, Endpoint
from otel_openai_usage.domain.model import Width, Window
from otel_openai_usage.simulator.faults import Fault
from otel_openai_usage.simulator.server import ADMIN_KEY
from tests.simulator.conftest import DAY, HOUR, THURSDAY, Api


@pytest.fixture
async def client(api: Api) -> AsyncIterator[AsyncOpenAI]:
    """The client as its users make it, without its own retries."""
    async with AsyncOpenAI(
        admin_api_key=ADMIN_KEY, api_key="", base_url=f"{api.url}/v1", max_retries=0
    ) as found:
        yield found


async def pages(method: Any, **params: Any) -> list[Any]:
    """Every page, as the client documents it: next_page goes into `page` while has_more says so."""
    found = [await method(**params)]
    while found[-1].has_more:
        found.append(await method(**params, page=found[-1].next_page))
    return found


def value(row: Any, endpoint: Endpoint, name: str) -> str | None:
    """A dimension of the client's row as ours."""
    found = getattr(row, name, None)
    return {True: "true", False: "false"}[found] if name == "batch" and found is not None else found


def totals(found: list[Any], endpoint: Endpoint) -> dict[tuple[str | None, ...], tuple[int, ...]]:
    """The sums over all buckets of all pages."""
    sums: dict[tuple[str | None, ...], tuple[int, ...]] = {}
    for row in (row for page in found for bucket in page.data for row in bucket.results):
        assert row.object == endpoint.object
        dims = tuple(value(row, endpoint, name) for name in endpoint.dimensions)
        amounts = tuple(getattr(row, measure.field) for measure in endpoint.measures)
        sums[dims] = tuple(map(sum, zip(sums.get(dims, endpoint.zero), amounts, strict=True)))
    return sums


@pytest.mark.parametrize(
    "endpoint", USAGE_ENDPOINTS.values(), ids=lambda endpoint: str(endpoint.name)
)
@pytest.mark.parametrize("grouped", [True, False], ids=["grouped", "ungrouped"])
async def test_the_client_reads_all_usage(
    api: Api, client: AsyncOpenAI, endpoint: Endpoint, grouped: bool
) -> None:
    """The client reads a day of every endpoint over several pages, and its sums are the world's
    true totals.
    """
    method = getattr(client.admin.organization.usage, endpoint.name)
    group_by = endpoint.group_by if grouped else ()
    day = Window(THURSDAY - DAY, THURSDAY)
    params = {"group_by": list(group_by)} if group_by else {}
    found = await pages(
        method, start_time=day.start, end_time=day.end, bucket_width="1h", limit=10, **params
    )
    assert [len(page.data) for page in found] == [10, 10, 4]
    buckets = [bucket for page in found for bucket in page.data]
    assert [bucket.start_time for bucket in buckets] == list(range(day.start, day.end, HOUR))
    truth = api.simulation.world.totals(endpoint.name, day, group_by)
    if endpoint.level:
        assert (
            totals(
                [type(found[-1])(**found[-1].model_dump() | {"data": [buckets[-1].model_dump()]})],
                endpoint,
            )
            == truth
        )
    else:
        assert totals(found, endpoint) == truth


async def test_the_client_reads_costs(api: Api, client: AsyncOpenAI) -> None:
    """The client reads ten days of costs over several pages, and they are the true ones to a
    double's precision.
    """
    start = THURSDAY - 10 * DAY
    found = await pages(
        client.admin.organization.usage.costs,
        start_time=start,
        end_time=THURSDAY,
        group_by=["project_id", "line_item"],
        limit=4,
    )
    assert [len(page.data) for page in found] == [4, 4, 2]
    world = api.simulation.world
    for bucket in (bucket for page in found for bucket in page.data):
        truth = world.cost_totals(
            Window(bucket.start_time, bucket.end_time), ("project_id", "line_item")
        )
        seen = {
            (row.project_id, row.line_item): (row.amount.value, row.quantity)
            for row in bucket.results
        }
        assert seen == {
            dims[:2]: (float(cost), float(quantity)) for dims, (cost, quantity) in truth.items()
        }
        assert {row.amount.currency for row in bucket.results} == {"usd"}


@pytest.mark.parametrize("name", ["money_string", "money_long", "money_long_string"])
async def test_the_client_reads_money_however_it_is_spelt(
    api: Api, client: AsyncOpenAI, name: str
) -> None:
    """Amounts as strings or with 34 digits are the same amounts."""
    usual = await client.admin.organization.usage.costs(
        start_time=THURSDAY - DAY, end_time=THURSDAY
    )
    api.simulation.faults.add(Fault(name))
    odd = await client.admin.organization.usage.costs(start_time=THURSDAY - DAY, end_time=THURSDAY)
    one, other = (cost_of(found) for found in (usual, odd))
    # The client keeps what came where the type is not the declared one, so a string stays a string.
    assert float(other) == one > 0


def cost_of(page: Any) -> Any:
    """The amount of a page's only row."""
    ((row,),) = (bucket.results for bucket in page.data)
    return row.amount.value


async def listed(page: Any) -> list[Any]:
    """Everything that the client's own pagination finds."""
    return [item async for item in page]


async def test_the_client_reads_names(api: Api, client: AsyncOpenAI) -> None:
    """Projects, keys, people, service accounts and admin keys are found by the client's own
    pagination, two at a time.
    """
    organization = client.admin.organization
    company = api.simulation.world.company
    projects = await listed(organization.projects.list(include_archived=True, limit=2))
    assert [(one.id, one.name) for one in projects] == [
        (one.id, one.name) for one in company.projects
    ]
    active = await listed(organization.projects.list(limit=2))
    assert {one.id for one in projects} - {one.id for one in active} == {
        one.id for one in company.projects if one.archived_at
    }
    users = await listed(organization.users.list(limit=2))
    assert [(one.id, one.name, one.email) for one in users] == [
        (one.id, one.name, one.email) for one in company.people
    ]
    assert len(await listed(organization.admin_api_keys.list(limit=1))) == 2
    keys = {}
    for project in active:
        for key in await listed(
            organization.projects.api_keys.list(
                project.id, limit=2, extra_query={"owner_project_access": "any"}
            )
        ):
            keys[key.id] = key.name
            owner = key.owner.service_account or key.owner.user
            assert owner is not None
            assert owner.name
    gone = {key.id for key in company.keys if key.deleted or key.project.archived_at}
    assert keys == {key.id: key.name for key in company.keys if key.id not in gone}
    accounts = await listed(organization.projects.service_accounts.list(company.projects[0].id))
    assert [account.name for account in accounts] == ["copilot-backend"]
    assert {
        user.id for user in await listed(organization.projects.users.list(company.projects[0].id))
    } <= {user.id for user in users}


async def test_the_client_reads_rate_limits(api: Api, client: AsyncOpenAI) -> None:
    """Every model that is used has the limits that OpenAI always gives, under its name without a date."""
    projects = client.admin.organization.projects
    project = api.simulation.world.company.projects[0]
    limits = await listed(projects.rate_limits.list_rate_limits(project.id, limit=3))
    assert "gpt-4o" in {limit.model for limit in limits}
    assert all(limit.max_requests_per_1_minute > 0 for limit in limits)
    assert all(limit.max_tokens_per_1_minute > 0 for limit in limits)


async def test_the_client_reads_single_objects(api: Api, client: AsyncOpenAI) -> None:
    """An archived project, a key, a user and a service account are found by id; a deleted key is a
    404.
    """
    organization = client.admin.organization
    company = api.simulation.world.company
    archived = next(project for project in company.projects if project.archived_at)
    assert (await organization.projects.retrieve(archived.id)).status == "archived"
    key = company.keys[0]
    assert (
        await organization.projects.api_keys.retrieve(key.id, project_id=key.project.id)
    ).name == key.name
    assert (await organization.users.retrieve(company.people[3].id)).email == company.people[
        3
    ].email
    account = company.accounts[0]
    found = await organization.projects.service_accounts.retrieve(
        account.id, project_id=account.project.id
    )
    assert found.name == account.name
    deleted = next(key for key in company.keys if key.deleted)
    with pytest.raises(openai.NotFoundError, match="No API key found"):
        await organization.projects.api_keys.retrieve(deleted.id, project_id=deleted.project.id)
    with pytest.raises(openai.BadRequestError, match="archived"):
        await listed(organization.projects.api_keys.list(archived.id))


async def test_the_client_reads_spend_limits(api: Api, client: AsyncOpenAI) -> None:
    """Limits are in cents; a project without one is a 404; one that is spent is enforced."""
    organization = client.admin.organization
    company = api.simulation.world.company
    limit = await organization.spend_limit.retrieve()
    assert (limit.threshold_amount, limit.currency, limit.enforcement.status) == (
        2_000_000,
        "USD",
        "inactive",
    )
    statuses = {}
    for project in company.projects:
        if project.limit_cents is not None:
            self_metrics = await organization.projects.spend_limit.retrieve(project.id)
            assert self_metrics.threshold_amount == project.limit_cents
            spent = api.simulation.world.spent(project.id, api.now)
            statuses[project.name] = self_metrics.enforcement.status
            assert self_metrics.enforcement.status == (
                "enforcing" if spent * 100 >= project.limit_cents else "inactive"
            )
    without = next(
        project
        for project in company.projects
        if project.limit_cents is None and not project.archived_at
    )
    with pytest.raises(openai.NotFoundError, match="No spend limit"):
        await organization.projects.spend_limit.retrieve(without.id)
    assert len(statuses) == 3


async def test_the_client_s_errors(api: Api, client: AsyncOpenAI) -> None:
    """The client raises its own error classes for a wrong key, a missing scope and a rate limit,
    and sees the request id.
    """
    wrong = client.with_options(admin_api_key="sk-admin-wrong-wrong-wrong")
    with pytest.raises(
        openai.AuthenticationError, match="Incorrect API key provided: sk-admin"
    ) as caught:
        await wrong.admin.organization.usage.costs(start_time=THURSDAY)
    assert str(caught.value.request_id).startswith("req_")
    narrow = client.with_options(admin_api_key=f"{ADMIN_KEY}-usage")
    assert (await narrow.admin.organization.usage.costs(start_time=THURSDAY)).object == "page"
    with pytest.raises(
        openai.PermissionDeniedError, match=r"Missing scopes: api\.management\.read"
    ):
        await listed(narrow.admin.organization.projects.list())
    api.simulation.faults.add(Fault("rate_limit", times=1))
    with pytest.raises(openai.RateLimitError):
        await client.admin.organization.usage.costs(start_time=THURSDAY)


def test_all_kinds_are_methods_of_the_client() -> None:
    """Nothing that the client offers for usage is missing here, and nothing more is here."""
    offered = {
        name
        for name in vars(openai.resources.admin.organization.Usage)
        if not name.startswith(("_", "with_"))
    }
    assert offered == set(ENDPOINTS)
    assert COSTS.widths == (Width.DAY,)
