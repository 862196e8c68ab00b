"""Names of projects, keys and users."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web

from otel_openai_usage.domain.model import KeyTimes, Names
from otel_openai_usage.errors import BadResponse, MissingScope, Rejected, Unavailable
from otel_openai_usage.providers.openai.client import Client
from otel_openai_usage.providers.openai.limits import OpenAILimits
from otel_openai_usage.providers.openai.names import OpenAINames
from tests.providers.openai.conftest import Connect
from tests.providers.openai.upstream import Upstream, payload, refusal

SCOPES = "You have insufficient permissions. Missing scopes: api.management.read. Check that"
PROJECTS = "organization/projects"
USERS = "organization/users"
KEYS = "organization/projects/{}/api_keys"


def listing(*items: dict[str, Any], more: bool = False, last: str | None = None) -> dict[str, Any]:
    """One page of a list."""
    return {
        "object": "list",
        "data": list(items),
        "has_more": more,
        "first_id": None,
        "last_id": last,
    }


def refusing(status: int, message: str = "no") -> Callable[[web.Request], web.Response]:
    """Always this refusal."""
    return lambda _: refusal(status, message)


@pytest.fixture
def company(upstream: Upstream) -> Upstream:
    """Two projects and two archived ones, with a key each, a user and a service account."""
    human = {"type": "user", "user": {"id": "user-1", "name": "Ada", "email": "ada@example.com"}}
    robot = {"type": "service_account", "service_account": {"id": "sa-1", "name": "robot"}}
    upstream.routes = {
        PROJECTS: listing(
            {"id": "p1", "name": "One", "status": "active"},
            {"id": "p2", "name": None, "status": "active"},
            {"id": "p3", "name": "Old", "status": "archived"},
            {"id": "p4", "name": "Older", "archived_at": 1},
        ),
        USERS: listing(
            {"id": "user-1", "name": "Ada L."},
            {"id": "user-2", "name": "", "email": "b@example.com"},
            {"id": "user-3"},
        ),
        KEYS.format("p1"): listing({"id": "k1", "name": "prod", "owner": human}),
        KEYS.format("p2"): listing({"id": "k2", "name": "batch", "owner": robot}),
    }
    return upstream


async def test_the_examples_of_openai(upstream: Upstream, client: Client) -> None:
    """OpenAI's own examples are read."""
    upstream.routes = {
        PROJECTS: payload("projects"),
        USERS: payload("users"),
        KEYS.format("proj_abc"): payload("api_keys"),
    }
    assert await OpenAINames(client).read() == Names(
        {"proj_abc": "Project example"}, {"key_abc": "My API Key"}, {"user_abc": "First Last"}
    )


async def test_everything(company: Upstream, client: Client) -> None:
    """All names come, archived projects, keys of absent owners and service accounts included;
    children of archived ones are not asked.
    """
    assert await OpenAINames(client).read() == Names(
        {"p1": "One", "p2": None, "p3": "Old", "p4": "Older"},
        {"k1": "prod", "k2": "batch"},
        {"user-1": "Ada L.", "user-2": None, "user-3": None, "sa-1": "robot"},
    )
    asked = {asked.path: asked.query for asked in company.asked}
    assert asked == {
        PROJECTS: [("limit", "100"), ("include_archived", "true")],
        USERS: [("limit", "100")],
        KEYS.format("p1"): [("limit", "100"), ("owner_project_access", "any")],
        KEYS.format("p2"): [("limit", "100"), ("owner_project_access", "any")],
    }


async def test_addresses_are_read_only_if_wanted(company: Upstream, client: Client) -> None:
    """With emails a user is called by the address, where there is one; without, no address is kept."""
    names = await OpenAINames(client, emails=True).read()
    assert names.users["user-2"] == "b@example.com"
    assert names.users["user-1"] == "Ada L."
    assert "@" not in str(await OpenAINames(client).read())


async def test_times_of_keys(company: Upstream, client: Client) -> None:
    """Creation, last use and expiry are told by key; what is no time is none. A project that cannot
    be listed keeps its keys, one that is gone does not.
    """
    company.routes |= {
        KEYS.format("p1"): listing({"id": "k1", "created_at": 1_700_000_000, "last_used_at": None}),
        KEYS.format("p2"): listing(
            {"id": "k2", "created_at": 0, "last_used_at": 1.8e9, "expires_at": 1_900_000_000}
        ),
    }
    names = OpenAINames(client)
    await names.read()
    one = KeyTimes("p1", "k1", 1_700_000_000, None, None)
    two = KeyTimes("p2", "k2", None, 1_800_000_000, 1_900_000_000)
    assert sorted(names.key_times(), key=str) == [one, two]
    company.routes[KEYS.format("p1")] = refusing(500)
    company.routes[KEYS.format("p2")] = listing()
    await names.read()
    assert names.key_times() == [one]
    company.routes[PROJECTS] = listing({"id": "p2", "name": "Two", "status": "active"})
    await names.read()
    assert names.key_times() == []


async def test_lists_are_read_to_the_end(upstream: Upstream, client: Client) -> None:
    """has_more decides; the cursor is last_id, or the last item's id, and a last_id on the last
    page means nothing.
    """
    upstream.script = [
        listing({"id": "a"}, more=True, last="x"),
        listing({"id": "b"}, more=True),
        listing({"id": "c"}, last="c"),
        listing(),
    ]
    upstream.routes = {KEYS.format(project): listing() for project in "abc"}
    assert (await OpenAINames(client).read()).projects == {"a": None, "b": None, "c": None}
    assert [asked.all("after") for asked in upstream.asked[:3]] == [[], ["x"], ["b"]]
    assert {asked.one("include_archived") for asked in upstream.asked[:3]} == {"true"}


async def test_a_list_without_end(upstream: Upstream, client: Client) -> None:
    """A cursor that comes again is an error."""
    upstream.routes = {PROJECTS: listing({"id": "a"}, more=True, last="x")}
    with pytest.raises(BadResponse, match=r"organization/projects: .*had before"):
        await OpenAINames(client).read()


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_one_project_never_fails_the_rest(
    status: int, company: Upstream, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """A project whose keys cannot be read is left out and logged once."""
    company.routes[KEYS.format("p1")] = refusing(status)
    names = OpenAINames(client)
    with caplog.at_level(logging.WARNING, "otel_openai_usage"):
        assert [dict((await names.read()).api_keys) for _ in range(2)] == [{"k2": "batch"}] * 2
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("refused", "expected"),
    [
        (
            [USERS],
            Names(
                {"p1": "One", "p2": None, "p3": "Old", "p4": "Older"},
                {"k1": "prod", "k2": "batch"},
                {"user-1": "Ada", "sa-1": "robot"},
            ),
        ),
        (
            [PROJECTS],
            Names({}, {}, {"user-1": "Ada L.", "user-2": None, "user-3": None}),
        ),
        (
            [KEYS.format("p1"), KEYS.format("p2")],
            Names(
                {"p1": "One", "p2": None, "p3": "Old", "p4": "Older"},
                {},
                {"user-1": "Ada L.", "user-2": None, "user-3": None},
            ),
        ),
    ],
)
async def test_a_scope_that_is_missing_in_part(
    refused: list[str], expected: Names, company: Upstream, client: Client
) -> None:
    """What may be listed is, and the scope that the rest needs is named."""
    company.routes |= dict.fromkeys(refused, refusing(403, SCOPES))
    names = OpenAINames(client)
    assert await names.read() == expected
    assert names.missing_scopes == ("api.management.read",)


async def test_a_scope_that_is_missing(company: Upstream, client: Client) -> None:
    """If nothing may be listed, that is raised."""
    company.routes = dict.fromkeys((PROJECTS, USERS), refusing(403, SCOPES))
    with pytest.raises(MissingScope):
        await OpenAINames(client).read()


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [(PROJECTS, 401, Rejected), (USERS, 500, Unavailable), (KEYS.format("p2"), 401, Rejected)],
)
async def test_errors_come_through(
    path: str, status: int, error: type[Exception], company: Upstream, client: Client
) -> None:
    """A rejected key, and a list of all that cannot be read, fail the reading."""
    company.routes[path] = refusing(status)
    with pytest.raises(error):
        await OpenAINames(client).read()


async def test_lookup(upstream: Upstream, client: Client) -> None:
    """Single ids are named; what OpenAI does not know is None and not asked for again for ten
    minutes; a failure decides nothing.
    """
    time = 0.0
    upstream.routes = {
        "organization/projects/proj_abc": payload("project"),
        "organization/projects/proj_abc/api_keys": payload("api_keys"),
        "organization/projects/p5": refusing(500),
        "organization/projects/p4/api_keys/k4": refusing(400, "project is archived"),
    }
    names = OpenAINames(client, now=lambda: time)
    wanted = (
        ["proj_abc", "gone", "p5", "a/b"],
        [("proj_abc", "key_abc"), ("proj_abc", "gone"), ("p4", "k4")],
    )
    expected = Names(
        {"proj_abc": "Project example", "gone": None, "a/b": None},
        {"key_abc": "My API Key", "gone": None, "k4": None},
        {"user_abc": "First Last"},
    )
    assert await names.lookup(*wanted) == expected
    first = len(upstream.asked)
    assert await names.lookup(*wanted) == expected
    again = {asked.path for asked in upstream.asked[first:]}
    assert again == {
        "organization/projects/proj_abc",
        "organization/projects/proj_abc/api_keys",
        "organization/projects/p5",
    }
    time = 601.0
    upstream.routes["organization/projects/gone"] = {"id": "gone", "name": "Back"}
    assert (await names.lookup(["gone"], [])).projects == {"gone": "Back"}


async def test_lookup_with_a_rejected_key(upstream: Upstream, client: Client) -> None:
    """A rejected key raises, and is not taken for an unknown name."""
    upstream.routes = {"organization/projects/p": refusing(403, SCOPES)}
    with pytest.raises(MissingScope):
        await OpenAINames(client).lookup(["p"], [])


async def test_a_single_key_is_asked_for_by_itself(upstream: Upstream, client: Client) -> None:
    """One unnamed key of a project is one call, and its owner is named with it."""
    upstream.routes = {"organization/projects/proj_abc/api_keys/key_abc": payload("api_key")}
    assert await OpenAINames(client).lookup([], [("proj_abc", "key_abc")]) == Names(
        {}, {"key_abc": "My API Key"}, {"user_abc": "First Last"}
    )
    assert len(upstream.asked) == 1


ODD_LISTS = {
    "half an emoji": (PROJECTS, b'{"id":"p9","name":"bot \\ud83d"}', "replaced"),
    "no Unicode": (PROJECTS, b'{"id":"p9","name":"caf\xe9"}', "replaced"),
    "a project without id": (PROJECTS, b'{"name":"ghost"}', "left_out"),
    "a project with a null id": (PROJECTS, b'{"id":null,"name":"ghost"}', "left_out"),
    "null": (PROJECTS, b"null", "left_out"),
    "an array": (USERS, b"[]", "left_out"),
    "an endless id": (PROJECTS, b'{"id":"' + b"p" * 100_000 + b'","name":"x"}', "left_out"),
    "a number as name": (USERS, b'{"id":"u9","name":["x"]}', "replaced"),
    "an owner without id": (
        KEYS.format("p1"),
        b'{"id":"k9","name":"ci","owner":{"type":"service_account","service_account":{"name":"ci"}}}',
        "replaced",
    ),
    "an empty owner": (KEYS.format("p1"), b'{"id":"k9","name":"ci","owner":[]}', ""),
}


@pytest.mark.parametrize("oddity", ODD_LISTS)
async def test_one_odd_item_costs_at_most_itself(
    oddity: str, company: Upstream, connect: Connect
) -> None:
    """All other names are known, and what could not be read is counted."""
    path, item, outcome = ODD_LISTS[oddity]
    counted: list[str] = []
    client = await connect(odd=lambda endpoint, outcome, count: counted.append(outcome))
    expected = await OpenAINames(client).read()
    plain = msgspec.json.encode(company.routes[path])
    company.routes[path] = b"\xef\xbb\xbf" + plain.replace(b'"data":[', b'"data":[' + item + b",")
    names = await OpenAINames(client).read()
    assert names.projects.items() >= expected.projects.items()
    assert names.api_keys.items() >= expected.api_keys.items()
    assert names.users.items() >= expected.users.items()
    assert set(counted) == ({outcome} if outcome else set())


async def test_an_id_that_was_cut_is_not_asked_for(upstream: Upstream, client: Client) -> None:
    """Ids are cut at 1,024 characters; a cut one is unknown, and never part of a URL."""
    cut = "p" * 1024
    names = await OpenAINames(client).lookup([cut], [(cut, "k1"), (cut, "k2"), ("p", cut)])
    assert names == Names({cut: None}, {"k1": None, "k2": None, cut: None}, {})
    assert upstream.asked == []


async def test_an_outage_with_many_statuses_makes_one_line(
    company: Upstream, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys that cannot be listed are logged once, whichever 5xx they meet."""
    names = OpenAINames(client)
    for status in (500, 501, 503):
        company.routes[KEYS.format("p1")] = refusing(status)
        await names.read()
    assert [record.getMessage() for record in caplog.records] == ["names are incomplete"]


async def test_names_come_piece_by_piece(company: Upstream, client: Client) -> None:
    """Projects are reported before users and keys are read, and each project's keys as they come."""
    parts: list[Names] = []

    async def found(names: Names) -> None:
        parts.append(names)

    company.routes[USERS] = refusing(500)
    with pytest.raises(Unavailable):
        await OpenAINames(client).read(found)
    assert parts[0].projects == {"p1": "One", "p2": None, "p3": "Old", "p4": "Older"}
    assert {key for part in parts for key in part.api_keys} == {"k1", "k2"}


async def test_names_in_use_do_not_wait_for_lists(upstream: Upstream, connect: Connect) -> None:
    """With 400 projects, whose limits and keys take ten minutes at 60 requests a minute, the names
    of projects come at once, and so does a key that turns up in usage meanwhile.
    """
    projects = [{"id": f"p{n}", "name": f"P{n}", "status": "active"} for n in range(400)]

    def page(request: web.Request) -> dict[str, Any]:
        after = int(request.query.get("after", "p-1")[1:]) + 1
        part = projects[after : after + 100]
        return listing(*part, more=after < 300, last=part[-1]["id"])

    upstream.routes = {
        PROJECTS: page,
        USERS: listing(),
        **{KEYS.format(f"p{n}"): listing({"id": f"k{n}", "name": f"K{n}"}) for n in range(400)},
        **{f"{PROJECTS}/p{n}/api_keys/k{n}": {"id": f"k{n}", "name": f"K{n}"} for n in range(400)},
    }
    client = await connect(requests_per_minute=60)
    names = OpenAINames(client)
    named: dict[str, str | None] = {}
    all_named = asyncio.Event()

    async def found(part: Names) -> None:
        named.update(part.projects)
        if len(named) == 400:
            all_named.set()

    async with asyncio.timeout(30):
        limits = asyncio.create_task(OpenAILimits(client).read())
        reading = asyncio.create_task(names.read(found))
        await all_named.wait()
        while len(upstream.asked) < 40:  # noqa: ASYNC110 - the minute of the lists is used up
            await asyncio.sleep(0.01)
        keys = (await names.lookup([], [("p399", "k399"), ("p200", "k200")])).api_keys
    assert keys == {"k399": "K399", "k200": "K200"}
    assert not limits.done()
    assert not reading.done()
    for task in (limits, reading):
        task.cancel()
    await asyncio.gather(limits, reading, return_exceptions=True)
