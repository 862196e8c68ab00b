"""The API of the simulated organization, over HTTP; `/simulator/…` is for tests and demos and asks
for no key.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from aiohttp import web

from otel_openai_usage.domain.endpoints import ENDPOINTS, Endpoint
from otel_openai_usage.domain.model import Window
from otel_openai_usage.errors import ListenError
from otel_openai_usage.simulator import answers, lateness
from otel_openai_usage.simulator.chance import code
from otel_openai_usage.simulator.chat import Models
from otel_openai_usage.simulator.faults import ANSWERS, Fault, Faults
from otel_openai_usage.simulator.legacy import Legacy
from otel_openai_usage.simulator.lists import Absent, Ask, Lists
from otel_openai_usage.simulator.query import Parameters, Refused, query, values
from otel_openai_usage.simulator.wire import Style
from otel_openai_usage.simulator.world import World

ADMIN_KEY = "sk-admin-simulated"
USAGE = "api.usage.read"
MANAGEMENT = "api.management.read"
Body: TypeAlias = bytes | dict[str, object]
Clock: TypeAlias = Callable[[], datetime]
Answer: TypeAlias = Callable[[Ask], Body]
PREFIX = "/v1/organization/"
_LATENESS = {"prompt": lateness.PROMPT, "demo": lateness.DEMO, "harsh": lateness.HARSH}


def _clock() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Route:
    """A path below /v1/organization/, the scope it needs, and who answers."""

    path: str
    scope: str
    answer: Answer


class Simulation:
    """The API over a world. `keys` maps each accepted key to its scopes; it, `faults` and
    `world.lateness` may change at any time.
    """

    def __init__(
        self,
        world: World,
        *,
        faults: Faults | None = None,
        clock: Clock = _clock,
        admin_key: str = ADMIN_KEY,
        log: int = 10_000,
    ) -> None:
        self.world = world
        self.faults = faults or Faults()
        self.clock = clock
        self.keys = {
            admin_key: frozenset({USAGE, MANAGEMENT}),
            f"{admin_key}-usage": frozenset({USAGE}),
        }
        self.requests: deque[dict[str, object]] = deque(maxlen=log)
        self._answered = 0

    def routes(self) -> list[Route]:
        """All that the API offers."""
        lists = Lists(self.world)
        project = "projects/{project_id}"
        named: dict[str, Answer] = {
            "projects": lists.projects,
            project: lists.project,
            f"{project}/api_keys": lists.keys,
            f"{project}/api_keys/{{key_id}}": lists.key,
            f"{project}/service_accounts": lists.service_accounts,
            f"{project}/service_accounts/{{account_id}}": lists.service_account,
            f"{project}/users": lists.members,
            f"{project}/users/{{user_id}}": lists.member,
            f"{project}/spend_limit": lists.project_limit,
            f"{project}/rate_limits": lists.rate_limits,
            "spend_limit": lists.limit,
            "users": lists.users,
            "users/{user_id}": lists.user,
            "admin_api_keys": lists.admin_keys,
            "admin_api_keys/{key_id}": lists.admin_key,
        }
        endpoints = ENDPOINTS.values()
        routes = [Route(endpoint.path, USAGE, self._buckets(endpoint)) for endpoint in endpoints]
        # Lists need another scope than usage: with a restricted key, usage can work while names
        # fail.
        routes += [Route(path, MANAGEMENT, answer) for path, answer in named.items()]
        return routes

    def _buckets(self, endpoint: Endpoint) -> Answer:
        style = Style(organization=self.world.company.id)
        cache = answers.BucketCache()

        def answer(ask: Ask) -> Body:
            question = query(endpoint, ask.parameters, int(ask.now.timestamp()))
            return answers.page(self.world, question, ask.now, style, cache, ask.struck)

        return answer

    def handler(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """The aiohttp handler of a route."""

        async def handle(request: web.Request) -> web.StreamResponse:
            now = self.clock()
            # A list of pairs, not a dict: array parameters may be repeated.
            parameters = list(request.query.items())
            entry: dict[str, object] = {
                "time": now.timestamp(),
                "path": request.path,
                "params": parameters,
                "status": None,
            }
            self.requests.append(entry)
            response = await self._respond(route, request, parameters, now)
            entry["status"] = response.status
            return response

        return handle

    async def _respond(
        self, route: Route, request: web.Request, parameters: Parameters, now: datetime
    ) -> web.StreamResponse:
        wait = self.faults.wait(now.timestamp())
        if wait is not None:
            return self._limited(int(wait) + 1)
        # Faults strike only requests that would be answered, so that `after` and `times` of a
        # script count these alone.
        refusal = self._refusal(route, request)
        if refusal is not None:
            return refusal
        path = request.path.removeprefix(PREFIX)
        group_by = values(parameters, "group_by")
        cursor = any(name == "page" for name, _ in parameters)
        struck = self.faults.strike(path, group_by, cursor, _start_time(parameters))
        for fault in struck:
            if fault.kind == "slow":
                await asyncio.sleep(fault.seconds)
        response = await self._answer(route, request, parameters, now, struck)
        # OpenAI's `error` has been seen as a bare string instead of an object.
        is_bare = any(fault.kind == "bare_error" for fault in struck)
        if is_bare and response.status >= 400:
            body: Body = {"error": "something about this request is not right"}
            response = self._json(body, response.status)
        return response

    def _refusal(self, route: Route, request: web.Request) -> web.Response | None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not key:
            return self._json(answers.NO_KEY, 401)
        if key not in self.keys:
            return self._json(answers.wrong_key(key), 401)
        if route.scope not in self.keys[key]:
            return self._json(answers.missing_scope(route.scope), 403)
        return None

    async def _answer(
        self,
        route: Route,
        request: web.Request,
        parameters: Parameters,
        now: datetime,
        struck: list[Fault],
    ) -> web.StreamResponse:
        # A request has one answer, so the fault that was put into force first wins.
        failure = next((fault for fault in struck if fault.kind in ANSWERS), None)
        if failure is not None and failure.kind not in ("truncated", "cut"):
            return await self._failure(failure, route, request)
        try:
            body = route.answer(Ask(request.match_info, parameters, now, struck))
        except Refused as error:
            refusal = answers.error(error.message, param=error.param, code=error.code)
            return self._json(refusal, 400)
        except Absent as error:
            return self._json(answers.error(str(error), code="not_found"), 404)
        if failure is not None:
            return await self._half(_encoded(body), failure, request)
        return self._json(body, 200)

    async def _failure(
        self, fault: Fault, route: Route, request: web.Request
    ) -> web.StreamResponse:
        """The answer of a fault that needs no right answer."""
        key = request.headers["Authorization"].removeprefix("Bearer ")
        # Functions, because every response made takes a request id, also one that is not sent.
        simple: dict[str, Callable[[], web.Response]] = {
            "rate_limit": lambda: self._limited(fault.retry_after),
            "error": lambda: self._json(answers.SERVER_ERROR, fault.status or 500),
            "html": lambda: self._html(fault.status or 502),
            "wrong_key": lambda: self._json(answers.wrong_key(key), 401),
            "missing_scope": lambda: self._json(
                answers.missing_scope(route.scope), fault.status or 403
            ),
            "not_found": lambda: self.unknown(request),
            "bad_cursor": lambda: self._json(answers.BAD_CURSOR, 400),
            "lookback": lambda: self._json(answers.TOO_FAR_BACK, 400),
            "refused_group": lambda: self._json(
                answers.error(f"Grouping by {fault.group} is not supported.", param="group_by"), 400
            ),
        }
        if fault.kind in simple:
            return simple[fault.kind]()
        if fault.kind == "timeout":
            await asyncio.sleep(fault.seconds or 3600)
        return self._hung_up(request)

    async def _half(self, body: bytes, fault: Fault, request: web.Request) -> web.StreamResponse:
        """The first half of `body`: as if that were all, or with a connection that breaks."""
        half = body[: len(body) // 2]
        if fault.kind == "truncated":
            return self._json(half, 200)
        # The length of the whole body lets the client notice that the rest is missing.
        length = str(len(body))
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Content-Length": length}
        )
        await response.prepare(request)
        await response.write(half)
        self._hung_up(request)
        return response

    def unknown(self, request: web.Request) -> web.Response:
        """The 404 of a path that is not offered."""
        return self._json(answers.error(f"Invalid URL ({request.method} {request.path})"), 404)

    def _limited(self, wait: int | str | None) -> web.Response:
        # No 429 of the usage endpoints is published; this has the form of the model endpoints'.
        message = "Rate limit reached for organization reports on requests per min (RPM)."
        body = answers.error(message, kind="requests", code="rate_limit_exceeded")
        response = self._json(body, 429)
        if wait is not None:
            response.headers["Retry-After"] = str(wait)
        return response

    def _html(self, status: int) -> web.Response:
        page = answers.HTML.format(status=status)
        return web.Response(text=page, status=status, content_type="text/html")

    def _hung_up(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.close()
        # It never arrives; only the log of requests shows the 499, nginx's code for this.
        return web.Response(status=499)

    def _json(self, body: Body, status: int) -> web.Response:
        self._answered += 1
        headers = {
            "x-request-id": "req_" + code(32, self.world.seed, self._answered),
            "openai-version": "2020-10-01",
        }
        return web.Response(
            body=_encoded(body), status=status, content_type="application/json", headers=headers
        )


def _start_time(parameters: Parameters) -> int:
    text = dict(parameters).get("start_time", "")
    return int(text) if text.isdecimal() else 0


def _encoded(body: Body) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


SIMULATION: web.AppKey[Simulation] = web.AppKey("simulation", Simulation)
"""Where an application keeps its `Simulation`."""


class _Control:
    """What tests and demos may ask and change."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    async def totals(self, request: web.Request) -> web.Response:
        """The truth: /simulator/totals?kind=&start=&end=&group_by= (Unix seconds)."""
        asked = request.query
        try:
            endpoint = ENDPOINTS[asked["kind"]]
            window = Window(int(asked["start"]), int(asked["end"]))
            group_by = values(list(asked.items()), "group_by")
            found = self._simulation.world.totals(endpoint.name, window, group_by)
        except (KeyError, ValueError) as error:
            raise web.HTTPBadRequest(text=f"totals: {error!r}") from error
        names = [measure.name for measure in endpoint.measures]
        rows = []
        for dims, amounts in found.items():
            named_dims = dict(zip(endpoint.dimensions, dims, strict=True))
            # Text, because a JSON number would lose digits of money in most clients.
            named_amounts = dict(zip(names, map(str, amounts), strict=True))
            rows.append({"dims": named_dims, "amounts": named_amounts})
        settles = self._simulation.world.settles_after.total_seconds()
        return web.json_response(
            {"kind": endpoint.name, "window": str(window), "settles_after": settles, "rows": rows}
        )

    async def faults(self, request: web.Request) -> web.Response:
        """The faults in force; a POST of {"faults": […], "requests_per_minute": …} replaces them."""
        if request.method == "POST":
            await self._change(request, self._simulation.faults.load)
        faults = self._simulation.faults
        return web.json_response(
            {
                "faults": [asdict(fault) for fault in faults.faults],
                "requests_per_minute": faults.requests_per_minute,
            }
        )

    async def lateness(self, request: web.Request) -> web.Response:
        """How late usage is; a POST of {"preset": "prompt" | "demo" | "harsh"} changes it."""
        if request.method == "POST":
            await self._change(request, self._preset)
        settles = self._simulation.world.settles_after.total_seconds()
        return web.json_response({"settles_after": settles})

    async def keys(self, request: web.Request) -> web.Response:
        """POST {key: [scopes]}: the keys that are accepted from now on."""
        await self._change(request, self._accept)
        return web.json_response({"keys": len(self._simulation.keys)})

    async def requests(self, request: web.Request) -> web.Response:
        """What was asked so far, oldest first; DELETE forgets it."""
        if request.method == "DELETE":
            self._simulation.requests.clear()
        return web.json_response(list(self._simulation.requests))

    def _preset(self, document: Mapping[str, object]) -> None:
        name = str(document.get("preset"))
        if name not in _LATENESS:
            raise ValueError(f"preset: expected one of {', '.join(_LATENESS)}, got {name!r}")
        self._simulation.world.lateness = _LATENESS[name]

    def _accept(self, document: Mapping[str, object]) -> None:
        if not all(isinstance(scopes, list) for scopes in document.values()):
            raise ValueError("keys: expected a list of scopes for each")
        self._simulation.keys = {
            key: frozenset(scopes) for key, scopes in document.items() if isinstance(scopes, list)
        }

    async def _change(
        self, request: web.Request, apply: Callable[[Mapping[str, object]], None]
    ) -> None:
        try:
            document = json.loads(await request.read())
            if not isinstance(document, dict):
                raise ValueError(f"expected an object, got {document!r}")
            apply(document)
        except (ValueError, TypeError) as error:
            raise web.HTTPBadRequest(text=str(error)) from error


_BANNER = """<!doctype html><html lang=en><meta charset=utf-8><title>A simulated OpenAI organization</title>
<h1>A simulated OpenAI organization</h1>
<p>This is not OpenAI. {company.name} ({company.id}) does not exist: its usage is made up from seed {seed}, the same every time.
<p>Base URL <code>/v1</code>, admin key <code>{key}</code>; chat completions, responses and embeddings take any key that begins with
<code>sk-</code>.
<ul>{paths}</ul>
<p>For tests, without a key: <code>/simulator/totals?kind=&amp;start=&amp;end=&amp;group_by=</code> (the truth),
<code>/simulator/faults</code>, <code>/simulator/lateness</code>, <code>/simulator/keys</code>, <code>/simulator/requests</code></html>
"""


def application(
    world: World, *, faults: Faults | None = None, clock: Clock = _clock, admin_key: str = ADMIN_KEY
) -> web.Application:
    """The simulated API as an aiohttp application; `app[SIMULATION]` holds what can be changed
    while it runs.
    """
    simulation = Simulation(world, faults=faults, clock=clock, admin_key=admin_key)
    control = _Control(simulation)

    async def banner(_: web.Request) -> web.Response:
        paths = "".join(
            f"<li><code>GET {PREFIX}{route.path}</code></li>" for route in simulation.routes()
        )
        text = _BANNER.format(company=world.company, seed=world.seed, key=admin_key, paths=paths)
        return web.Response(text=text, content_type="text/html")

    async def unknown(request: web.Request) -> web.Response:
        return simulation.unknown(request)

    app = web.Application()
    app[SIMULATION] = simulation
    app.router.add_get("/", banner)
    for route in simulation.routes():
        app.router.add_get(PREFIX + route.path, simulation.handler(route))
    Models(world.seed, clock).add_to(app.router)
    Legacy(world, clock).add_to(app.router)
    app.router.add_get("/simulator/totals", control.totals)
    for path, handler in (("faults", control.faults), ("lateness", control.lateness)):
        app.router.add_get(f"/simulator/{path}", handler)
        app.router.add_post(f"/simulator/{path}", handler)
    app.router.add_post("/simulator/keys", control.keys)
    app.router.add_get("/simulator/requests", control.requests)
    app.router.add_delete("/simulator/requests", control.requests)
    app.router.add_route("*", "/{path:.*}", unknown)
    return app


@asynccontextmanager
async def running(
    app: web.Application, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[str]:
    """Serve `app` while the block runs; yields its URL without a path. Port 0 takes a free one.
    Raises ListenError.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        bound = runner.addresses[0]
        # An IPv6 address needs brackets in a URL.
        url_host = f"[{host}]" if ":" in host else host
        yield f"http://{url_host}:{bound[1]}"
    except OSError as error:
        why = error.strerror or error
        raise ListenError(
            f"simulate: cannot listen on {host}:{port}: {why}; choose another --host or --port"
        ) from error
    finally:
        await runner.cleanup()


async def serve(
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    world: World | None = None,
    faults: Faults | None = None,
    clock: Clock = _clock,
    admin_key: str = ADMIN_KEY,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a simulated organization until cancelled; `ready` is called with its URL once it
    listens. Raises ListenError.
    """
    app = application(world or World(), faults=faults, clock=clock, admin_key=admin_key)
    async with running(app, host, port) as url:
        if ready is not None:
            ready(url)
        await asyncio.Event().wait()
