"""GETs JSON bodies from OpenAI over HTTP. Does not interpret them."""

import asyncio
import itertools
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import metadata
from types import TracebackType
from typing import Protocol, Self, TypeVar

import aiohttp

from otel_openai_usage.config.secrets import redact
from otel_openai_usage.errors import Rejected, SourceError, Unavailable
from otel_openai_usage.providers.budget import Budget, CountedBody
from otel_openai_usage.providers.openai import answers, retry
from otel_openai_usage.providers.openai.answers import ADMIN, Advice, Body
from otel_openai_usage.providers.openai.gate import Gate
from otel_openai_usage.providers.openai.inflate import unpacked
from otel_openai_usage.providers.openai.key import Key
from otel_openai_usage.providers.openai.text import Odd, mend
from otel_openai_usage.providers.provider import NoteOdd, Observe
from otel_openai_usage.proxies import proxy_for

log = logging.getLogger(__name__)

T = TypeVar("T")

_LARGE = 2**18
"""Bytes of a body that is read off the event loop."""
_LOG_ODD_AGAIN_AFTER = 3600.0
_SERVER_ERROR = 500
_ERROR_BODY = 2**16
"""Bytes that are read of the body of a refusal."""
_HEADER_LINE = 2**16
"""Bytes of one header line; proxies and gateways add long ones."""
_HEADERS = 256


class Guard(Protocol):
    """Refuses the key and the answers of another organization: see `openai.guard`.

    Each method raises a SourceError or StateError to refuse.
    """

    async def admit(self, secret: str) -> None: ...
    async def answered(self, secret: str, header: str | None) -> None: ...
    async def named(self, ids: Collection[str]) -> None: ...


_headers: ContextVar[list[str] | None] = ContextVar("headers", default=None)
"""Collects the header `openai-organization` while a key is probed; else None."""


class Client:
    """The HTTP client of one organization, shared by all its sources. Use it inside `async with`.

    The sources share one rate limit, one bound on concurrency, one key and one connection pool, by
    priority: 0 goes first (usage, costs), then 1 (names in use), 2 (limits) and 3 (other names).
    `timeout` in seconds is for one request from connecting to the last byte; `retries` is how often
    a request is repeated. `budget` bounds the memory of answers; clients may share it. Proxies are
    those of the environment `env`. Raises ConfigError for a proxy that cannot be used.
    """

    def __init__(
        self,
        *,
        name: str,
        base_url: str,
        key: Key,
        timeout: float = 30.0,
        max_concurrency: int = 4,
        requests_per_minute: int = 60,
        retries: int = 5,
        observe: Observe | None = None,
        advice: Advice = ADMIN,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        session: Callable[..., aiohttp.ClientSession] = aiohttp.ClientSession,
        budget: Budget | None = None,
        odd: NoteOdd | None = None,
        env: Mapping[str, str] = os.environ,
    ) -> None:
        self.name = name
        self._base = base_url.rstrip("/")
        self._proxy = proxy_for(self._base, env)
        self._budget = budget or Budget()
        self._odd = odd
        self._odd_logged: dict[tuple[str, str], float] = {}
        self._key = key
        self._timeout = timeout
        self._gate = Gate(requests_per_minute=requests_per_minute, max_concurrency=max_concurrency)
        self._retries = retries
        self._answers = 0
        self._is_away = False
        self._observe = observe
        self._advice = advice
        self._sleep = sleep
        self._now = now
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._make_session = session
        self._session: aiohttp.ClientSession | None = None
        self.guard: Guard | None = None
        """Admits keys, and checks the organization that answers name."""

    def __repr__(self) -> str:
        return f"Client({self.name!r}, {redact(self._base)!r})"

    async def __aenter__(self) -> Self:
        proxy = self._proxy
        self._session = self._make_session(
            timeout=aiohttp.ClientTimeout(total=None),  # `_exchange` has a deadline for all of it
            proxy=proxy and proxy.url,
            headers={
                "User-Agent": f"otel-openai-usage/{_version()}",
                "Accept": "application/json",
                "Accept-Encoding": "gzip",
            },
            auto_decompress=False,
            read_bufsize=2**18,
            max_line_size=_HEADER_LINE,
            max_field_size=_HEADER_LINE,
            max_headers=_HEADERS,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(
        self, path: str, params: Sequence[tuple[str, str]] = (), *, endpoint: str, priority: int = 0
    ) -> bytes:
        """The body at `path` below the base URL: JSON, whole. As `read` in all else."""
        return await self.read(path, answers.whole, params, endpoint=endpoint, priority=priority)

    async def read(
        self,
        path: str,
        reading: Callable[[Body], T],
        params: Sequence[tuple[str, str]] = (),
        *,
        endpoint: str,
        priority: int = 0,
    ) -> T:
        """Return `reading(body)` of the body at `path` below the base URL. Raises SourceError.

        Requests that may succeed later are repeated. If nothing of the organization was answered
        during all repetitions of a request, the API is away: until it answers again each request is
        sent once, and the next poll asks again. `reading` raises BadResponse for a body that it
        cannot read; for a large body it is called in a thread. `endpoint` names the request in
        telemetry and logs: it contains no ids, so that there are few endpoints.
        """
        answers_before = self._answers
        for attempt in itertools.count():
            try:
                return await self._with_key(path, reading, params, endpoint, priority)
            except SourceError as error:
                limit = 0 if self._is_away else self._retries
                wait = retry.delay(error, attempt, limit=limit, rng=self._rng)
                if wait is None:
                    if isinstance(error, Unavailable) and self._answers == answers_before:
                        self._is_away = True
                    raise
                log.debug(
                    "request is repeated",
                    extra={
                        "event": "request_repeated",
                        "organization": self.name,
                        "endpoint": endpoint,
                        "wait": wait,
                        "error": str(error),
                    },
                )
            await self._sleep(wait)
        raise AssertionError("unreachable")

    async def _with_key(
        self,
        path: str,
        reading: Callable[[Body], T],
        params: Sequence[tuple[str, str]],
        endpoint: str,
        priority: int,
    ) -> T:
        secret = await self._key.current()
        await self._admit(secret)
        try:
            return await self._once(path, reading, params, endpoint, priority, secret)
        except Rejected:
            fresh = await self._key.reread()
            if fresh == secret:
                raise
        log.info("key changed", extra={"event": "key_changed", "organization": self.name})
        await self._admit(fresh)
        return await self._once(path, reading, params, endpoint, priority, fresh)

    async def _once(
        self,
        path: str,
        reading: Callable[[Body], T],
        params: Sequence[tuple[str, str]],
        endpoint: str,
        priority: int,
        secret: str,
    ) -> T:
        call = f"GET {path}"
        async with self._gate.slot(priority):
            status, headers, body = await self._exchange(call, path, params, endpoint, secret)
        error = answers.error_of(
            call, status, headers, body, now=self._now(), secret=secret, advice=self._advice
        )
        if error is not None:
            self._budget.drop(body)
            raise error
        await self._note_organization(secret, headers.get("openai-organization"))

        def read() -> tuple[T, int]:
            replaced = mend(body)
            return answers.read(call, status, body, reading, secret=secret), replaced

        try:
            result, replaced = read() if len(body) < _LARGE else await asyncio.to_thread(read)
        except BaseException:
            # The error lives on, and its frames hold the body: it must not hold the memory.
            self._budget.drop(body)
            raise
        self.note_odd(endpoint, Odd(replaced=replaced))
        return result

    def note_odd(self, endpoint: str, odd: Odd) -> None:
        """Count values of an answer that were replaced or left out, and log it once an hour. Safe in
        any thread.
        """
        for outcome, count in (("replaced", odd.replaced), ("left_out", odd.left_out)):
            if not count:
                continue
            if self._odd is not None:
                self._odd(endpoint, outcome, count)
            now = time.monotonic()
            last = self._odd_logged.get((endpoint, outcome))
            if last is None or now - last >= _LOG_ODD_AGAIN_AFTER:
                self._odd_logged[endpoint, outcome] = now
                log.warning(
                    "values of an answer cannot be read; they are replaced or left out",
                    extra={
                        "event": "odd_values",
                        "organization": self.name,
                        "endpoint": endpoint,
                        "outcome": outcome,
                        "values": count,
                    },
                )

    @contextmanager
    def probing(self) -> Iterator[list[str]]:
        """Requests inside are not guarded: they find out which organization the key belongs to.

        The list receives the headers `openai-organization` of their answers.
        """
        found: list[str] = []
        token = _headers.set(found)
        try:
            yield found
        finally:
            _headers.reset(token)

    async def check_key(self) -> None:
        """Raise OtherOrganization or SourceError unless the guard admits the current key."""
        await self._admit(await self._key.current())

    async def check_organization(self, ids: Collection[str]) -> None:
        """Raise OtherOrganization if an answer that names these is not of the state's."""
        if self.guard is not None and _headers.get() is None:
            await self.guard.named(ids)

    async def _admit(self, secret: str) -> None:
        if self.guard is not None and _headers.get() is None:
            await self.guard.admit(secret)

    async def _note_organization(self, secret: str, header: str | None) -> None:
        collected = _headers.get()
        if collected is not None:
            collected += [header] if header else []
        elif self.guard is not None:
            await self.guard.answered(secret, header)

    async def _exchange(
        self, call: str, path: str, params: Sequence[tuple[str, str]], endpoint: str, secret: str
    ) -> tuple[int, Mapping[str, str], CountedBody]:
        if self._session is None:
            raise RuntimeError("a Client must be entered before it is used")
        started = time.perf_counter()
        status: int | None = None
        headers = {"Authorization": f"Bearer {secret}"}
        login = self._proxy.login if self._proxy else {}
        is_tunnelled = self._base.startswith("https:")
        if not is_tunnelled:  # the proxy reads the request itself
            headers |= login
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._session.get(
                    f"{self._base}/{path}",
                    params=list(params),
                    headers=headers,
                    proxy_headers=login if is_tunnelled else None,
                    allow_redirects=False,
                ) as response,
            ):
                status = response.status
                if status < _SERVER_ERROR:
                    self._answers += 1
                    self._is_away = False
                body = await self._body(response, call)
                return status, response.headers, body
        except TimeoutError as error:
            status = None
            raise Unavailable(
                f"{call}: no answer within {self._timeout:g} s; raise api.timeout if this goes on"
            ) from error
        except aiohttp.ClientPayloadError as error:
            # The text of this error contains a number that looks like a status, so it is left out.
            status = None
            raise Unavailable(
                f"{call}: the answer broke off or could not be unpacked; check base_url and the network"
            ) from error
        # ValueError: a host or a header that the libraries below cannot encode
        except (aiohttp.ClientError, OSError, ValueError) as error:
            status = None
            raise Unavailable(f"{call}: {self._reason(error, secret)}") from error
        finally:
            if self._observe is not None:
                self._observe(endpoint, status, time.perf_counter() - started)

    async def _body(self, response: aiohttp.ClientResponse, call: str) -> CountedBody:
        """All of a good answer's body, the beginning of a refusal's."""
        body = self._budget.body()
        encoding = response.headers.get("Content-Encoding", "")
        is_refusal = not 200 <= response.status < 300
        async for piece in unpacked(response.content.iter_any(), encoding, call):
            await self._budget.extend(body, piece, call)
            if is_refusal and len(body) >= _ERROR_BODY:
                response.close()
                break
        await self._budget.finish(body, call)
        return body

    def _reason(self, error: Exception, secret: str) -> str:
        """Why there was no answer, with advice."""
        if isinstance(error, aiohttp.ClientHttpProxyError):
            said = f"the proxy answered {error.status} {error.message}"
        elif isinstance(error, aiohttp.ClientResponseError):  # its text has a status of its own
            said = f"the answer is no HTTP that can be read: {error.message}"
        else:
            said = str(error) or type(error).__name__
        suspects = "base_url and"
        if self._proxy:
            suspects = f"base_url, {self._proxy.variable} and"
        return f"{redact(said, secret)[:300]}; check {suspects} the network"


def _version() -> str:
    try:
        return metadata.version("otel-openai-usage")
    except metadata.PackageNotFoundError:
        return "0"
