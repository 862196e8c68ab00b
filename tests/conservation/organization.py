"""An organization whose every row is scripted: what was used, and when OpenAI's minutes, hours and
days each learn of it.

It answers as OpenAI does, but in the place of the HTTP client, so that scripts run in accelerated
time.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypeVar

from aiohttp import web

from otel_openai_usage.domain.endpoints import COSTS, ENDPOINTS, Endpoint
from otel_openai_usage.domain.model import Amount, Amounts, Dims, Width, floor
from otel_openai_usage.domain.reconciliation import total
from otel_openai_usage.providers.openai import answers
from otel_openai_usage.providers.openai.answers import Body
from otel_openai_usage.providers.openai.client import Client
from otel_openai_usage.providers.openai.key import Key

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One row: usage of a minute. `known` has when each bucket width first shows it, Unix seconds.

    A row with `until` is gone after that time: OpenAI took it back.
    """

    endpoint: str
    minute: int
    dims: Mapping[str, str | None]
    amounts: Amounts
    known: Mapping[Width, float]
    until: float = float("inf")

    def seen(self, width: Width, now: float) -> bool:
        """Whether buckets of that width show it."""
        return self.known[width] <= now < self.until


@dataclass
class Organization:
    """All usage of one organization, and how OpenAI's API behaves at the moment.

    `refused` has, for each dimension that may not be grouped by, the time before which it is
    refused.
    """

    seed: int
    rows: list[UsageRow] = field(default_factory=list)
    refused: dict[tuple[str, str], float] = field(default_factory=dict)
    trouble: float = 0.0
    overlap: float = 0.0
    page: int = 10**6
    asked: list[tuple[str, Width, int, int, tuple[str, ...]]] = field(default_factory=list)

    def use(
        self,
        endpoint: str,
        when: float,
        dims: Mapping[str, str | None],
        *amounts: Amount,
        known: float | Mapping[Width, float] | None = None,
        until: float = float("inf"),
    ) -> None:
        """Something was used in the minute of `when`; it is known at once, or when `known` says."""
        if known is None:
            known = when
        times = known if isinstance(known, Mapping) else dict.fromkeys(Width, known)
        zeros = len(ENDPOINTS[endpoint].measures) - len(amounts)
        row = UsageRow(
            endpoint, floor(int(when), 60), dict(dims), (*amounts, *(0,) * zeros), times, until
        )
        self.rows.append(row)

    def answer(
        self, endpoint: Endpoint, params: Sequence[tuple[str, str]], now: float
    ) -> tuple[int, bytes]:
        """The status and the body of an answer."""
        sent = dict(params)
        width = Width.parse(sent["bucket_width"])
        start = int(sent["start_time"])
        end = int(sent["end_time"])
        group_by = tuple(value for name, value in params if name == "group_by")
        self.asked.append((endpoint.name, width, start, end, group_by))
        # Drawn from the question, so that it does not matter in which order sources ask.
        rng = random.Random(f"{self.seed} {endpoint.name} {params} {now}")
        if rng.random() < self.trouble:
            return 503, b'{"error": {"message": "trouble"}}'
        for name in group_by:
            if start < self.refused.get((endpoint.name, name), float("-inf")):
                text = f"Unsupported group_by: {name}"
                return 400, json.dumps({"error": {"message": text, "param": "group_by"}}).encode()
        starts = list(range(start, min(end, max(int(now) + 1, start + 1)), width))
        first = int(sent.get("page", 0))
        last = first + min(int(sent["limit"]), self.page)
        more = last < len(starts)
        if first and rng.random() < self.overlap:
            first = max(0, first - rng.randint(1, 3))
        data = [
            {"object": "bucket", "start_time": begin, "end_time": begin + width, "results": results}
            for begin, results in self._buckets(endpoint, width, starts[first:last], group_by, now)
        ]
        body = {
            "object": "page",
            "data": data,
            "has_more": more,
            "next_page": str(last) if more else None,
        }
        return 200, json.dumps(body).encode()

    def _buckets(
        self,
        endpoint: Endpoint,
        width: Width,
        starts: list[int],
        group_by: tuple[str, ...],
        now: float,
    ) -> list[tuple[int, list[dict[str, object]]]]:
        found: dict[int, list[dict[str, object]]] = {begin: [] for begin in starts}
        for row in self.rows:
            begin = floor(row.minute, width)
            if row.endpoint == endpoint.name and begin in found and row.seen(width, now):
                found[begin].append(_result(endpoint, row, group_by))
        return list(found.items())

    def truth(
        self,
        endpoint: Endpoint,
        epoch: int,
        group_by: Callable[[int], tuple[str, ...]],
        now: float = float("inf"),
    ) -> dict[Dims, Amounts]:
        """What was used since `epoch`, by the grouping that applies at each minute."""
        sums: dict[Dims, Amounts] = {}
        for row in self.rows:
            if row.endpoint != endpoint.name or row.minute < epoch or row.until != float("inf"):
                continue
            if min(row.known.values()) > now:
                continue
            grouping = group_by(row.minute)
            dims = tuple(
                row.dims.get(name) if name in grouping or name in endpoint.derived else None
                for name in endpoint.dimensions
            )
            sums[dims] = total(sums[dims], row.amounts) if dims in sums else row.amounts
        return {dims: amounts for dims, amounts in sums.items() if any(amounts)}


def _result(endpoint: Endpoint, row: UsageRow, group_by: tuple[str, ...]) -> dict[str, object]:
    shown: dict[str, object] = {
        name: row.dims.get(name) if name in group_by else None for name in endpoint.group_by
    }
    if endpoint is COSTS:
        cost, quantity = row.amounts
        amount = {"value": str(cost), "currency": row.dims.get("currency") or "usd"}
        return {"object": endpoint.object, **shown, "amount": amount, "quantity": str(quantity)}
    if "batch" in shown:
        shown["batch"] = {"true": True, "false": False}.get(str(shown["batch"]))
    counts = {m.field: a for m, a in zip(endpoint.measures, row.amounts, strict=True)}
    return {"object": endpoint.object, **shown, **counts}


class FakeClient(Client):
    """A client that asks an Organization at the time of `now`, in the place of HTTP."""

    def __init__(self, organization: Organization, now: Callable[[], float]) -> None:
        super().__init__(name="default", base_url="http://127.0.0.1:9", key=Key("sk-admin-script"))
        self._organization = organization
        self._time = now

    async def read(
        self,
        path: str,
        reading: Callable[[Body], T],
        params: Sequence[tuple[str, str]] = (),
        *,
        endpoint: str,
        priority: int = 0,
    ) -> T:
        """As `Client.read`, without retries."""
        asked = next(each for each in ENDPOINTS.values() if each.path == endpoint)
        now = self._time()
        status, body = self._organization.answer(asked, params, now)
        call = f"GET {path}"
        error = answers.error_of(call, status, {}, body, now=now)
        if error is not None:
            raise error
        return answers.read(call, status, body, reading)


def fake_client(organization: Organization, now: Callable[[], float]) -> Client:
    """A client of the organization."""
    return FakeClient(organization, now)


def server(organization: Organization, now: Callable[[], float]) -> web.Application:
    """The organization's API over HTTP."""

    async def answer(request: web.Request) -> web.Response:
        path = request.match_info["path"]
        endpoint = next(
            (endpoint for endpoint in ENDPOINTS.values() if endpoint.path == path), None
        )
        if endpoint is None:
            return web.Response(status=404, body=b'{"error": {"message": "Invalid URL"}}')
        status, body = organization.answer(endpoint, list(request.query.items()), now())
        return web.Response(status=status, body=body, content_type="application/json")

    made = web.Application()
    made.router.add_get("/v1/organization/{path:.*}", answer)
    return made


def at(text: str) -> int:
    """Unix seconds of a UTC time such as `2026-11-02 09:30`."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def money(amount: int) -> Decimal:
    """Hundredths of a dollar."""
    return Decimal(amount).scaleb(-2)
