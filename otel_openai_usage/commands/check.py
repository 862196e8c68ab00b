"""What `check` looks at: the key, the collector, the state file. Changes nothing; one finding for
each.
"""

import asyncio
import http.client
import os
import re
import shutil
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import aiohttp

from otel_openai_usage.composition.budgets import estimated_instead
from otel_openai_usage.composition.parts import extra_sources
from otel_openai_usage.composition.stores import describe, inspect, is_empty, queries_opener
from otel_openai_usage.composition.stores import warnings as store_warnings
from otel_openai_usage.config import (
    DatabaseLocation,
    Location,
    Organization,
    Settings,
    needs_key,
    state_location,
)
from otel_openai_usage.config.secrets import redact
from otel_openai_usage.domain.model import utc
from otel_openai_usage.errors import (
    ConfigError,
    ListenError,
    MissingScope,
    NotOffered,
    OtherOrganization,
    PortInUse,
    RateLimited,
    Rejected,
    SourceError,
    StateError,
)
from otel_openai_usage.exporters.otlp.exporter import exporter
from otel_openai_usage.http.web_config import read as read_web_config
from otel_openai_usage.providers.extra import ExtraSource
from otel_openai_usage.providers.openai.client import Client
from otel_openai_usage.providers.openai.guard import Guard
from otel_openai_usage.providers.openai.key import Key
from otel_openai_usage.providers.vault import ReadOnlyVault
from otel_openai_usage.sockets import bind

if TYPE_CHECKING:
    from otel_openai_usage.providers.openai.prices import Prices

Level = Literal["ok", "warn", "fail"]

SKEW = 30.0
"""Seconds that our clock may be off before it matters: the freshest bucket is read soon after it
ends.
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    subject: str
    told: str

    def __str__(self) -> str:
        return f"{self.level:<5} {self.subject}: {self.told}"


def findings(settings: Settings, env: Mapping[str, str], *, offline: bool) -> Iterator[Finding]:
    """Everything that was looked at; with `offline` nobody is asked. Raises ConfigError if prices
    cannot be understood.
    """
    list_prices = None
    if settings.prices.enabled:
        from otel_openai_usage.providers.openai.prices import Prices

        list_prices = Prices(settings.prices.overrides, file=settings.prices.file)
        list_prices.refresh(time.time())
    count = len(settings.organizations)
    plural = "s" if count > 1 else ""
    yield Finding("ok", "configuration", f"{count} organization{plural}")
    extras = extra_sources(settings)
    warnings = [f"{extra.name}: {extra.warning}" for extra in extras]
    for warning in (*settings.warnings, *warnings, *estimated_instead(settings)):
        yield Finding("warn", "configuration", warning)
    if list_prices is not None:
        yield from _prices(list_prices, settings.prices.file)
    # With the legacy source alone no admin key is needed, and there is none to test.
    for one in settings.organizations if needs_key(settings) else ():
        state = state_location(settings, env)
        yield from asyncio.run(_asked(settings, one, offline, state))
    for extra in extras:
        yield asyncio.run(_extra(settings, extra, offline))
    if settings.otlp.on:
        yield _otlp(settings, offline)
    state = state_location(settings, env)
    yield _state(state, strict=settings.state.strict)
    if isinstance(state, DatabaseLocation):
        yield from _database(state)
    elif str(state) != ":memory:":
        yield _disk(state)
    shared = isinstance(state, DatabaseLocation)
    yield from _listeners(settings, runs=_runs(state), shared=shared)


def _prices(list_prices: "Prices", file: Path | None) -> Iterator[Finding]:
    """The file with the price list, and its age if it is old."""
    if list_prices.problem:
        told = f"{file} cannot be used, so the list of the package is: {list_prices.problem}"
        yield Finding("fail", "prices.file", told)
        return
    days = list_prices.age_days(time.time())
    if list_prices.is_old(time.time()):
        told = (
            f"the price list is {days} days old, so newer models have no price; upgrade the package"
            " genai-prices, or set prices.file to a newer data file of it"
        )
        yield Finding("warn", "prices", told)
    elif file is not None:
        yield Finding("ok", "prices.file", f"{file}, {days} days old")


async def _extra(settings: Settings, extra: ExtraSource, offline: bool) -> Finding:
    """Ask the endpoint of an extra source once."""
    subject = f"{extra.name}: key"
    if offline:
        return Finding("ok", subject, "an ordinary key is set; it was not tried")
    try:
        path = await extra.probe(settings)
    except RateLimited as error:
        return Finding("warn", subject, str(error))
    except SourceError as error:
        return Finding("fail", subject, str(error))
    return Finding("ok", subject, f"{path} answers")


async def _asked(
    settings: Settings, one: Organization, offline: bool, state: Location
) -> list[Finding]:
    uses = [probe for probe in _PROBES if getattr(settings, probe.section).enabled]
    if not uses:
        return []
    try:
        secret = one.admin_key.get_secret_value() if one.admin_key else ""
        key = Key(secret, path=one.admin_key_file)
        kind = _kind(one.name, await key.current())
    except ConfigError as error:
        return [Finding("fail", f"{one.name}: key", str(error))]
    if offline or kind.level == "fail":
        return [kind]
    answers = [finding async for finding in _answers(settings, one, key, uses, state)]
    return [kind, *answers]


_ORDINARY = ("sk-proj-", "sk-svcacct-", "sk-None-")


_LONG = 40
"""A key of so many characters stays secret when four of them are shown."""


def _kind(name: str, secret: str) -> Finding:
    """What can be told from the key's first letters; its last four name it, as OpenAI's page of keys
    does.
    """
    named = f" (…{secret[-4:]})" if len(secret) >= _LONG else ""
    if secret.startswith(_ORDINARY):
        what = "this is a key of a project, which cannot read usage; an owner of the organization makes an admin key (sk-admin-…)"
        return Finding("fail", f"{name}: key", what + named)
    if not secret.startswith("sk-admin-"):
        return Finding(
            "warn", f"{name}: key", f"it does not begin with sk-admin-, as admin keys do{named}"
        )
    return Finding("ok", f"{name}: key", f"an admin key{named}")


@dataclass(frozen=True, slots=True)
class _Probe:
    """One cheap call that shows whether a source may be read. `needed`: without it the exporter is
    of little use.
    """

    section: str
    path: str
    params: Callable[[int], tuple[tuple[str, str], ...]]
    needed: bool


def _yesterday(today: int) -> tuple[tuple[str, str], ...]:
    return (("start_time", str(today - 86400)), ("bucket_width", "1d"), ("limit", "1"))


def _one(_: int) -> tuple[tuple[str, str], ...]:
    return (("limit", "1"),)


def _nothing(_: int) -> tuple[tuple[str, str], ...]:
    return ()


_PROBES = (
    _Probe("usage", "organization/usage/completions", _yesterday, needed=True),
    _Probe("costs", "organization/costs", _yesterday, needed=True),
    _Probe("names", "organization/projects", _one, needed=False),
    _Probe("names", "organization/users", _one, needed=False),
    _Probe("limits", "organization/spend_limit", _nothing, needed=False),
)


async def _answers(
    settings: Settings, one: Organization, key: Key, probes: list[_Probe], state: Location
) -> AsyncIterator[Finding]:
    dates: list[tuple[float, str]] = []
    async with Client(
        name=one.name,
        base_url=one.base_url,
        key=key,
        timeout=settings.api.timeout.total_seconds(),
        retries=1,
        session=_session_that_notes(dates),
    ) as client:
        today = int(time.time()) // 86400 * 86400
        for probe in probes:
            try:
                body = await client.get(probe.path, probe.params(today), endpoint=probe.path)
            except SourceError as error:
                yield _failure(one.name, probe, error)
                # A missing scope concerns one probe, a refused key all of them.
                is_key_refused = isinstance(error, Rejected) and not isinstance(error, MissingScope)
                if is_key_refused:
                    break
                continue
            yield Finding("ok", f"{one.name}: {probe.section}", f"{probe.path} answers")
            if probe.section == "costs":
                for finding in _organization(one, body):
                    yield finding
        else:
            for finding in await _owner(client, one, state):
                yield finding
    if dates:
        yield _clock(one.name, *dates[-1])


async def _owner(client: Client, one: Organization, state: Location) -> list[Finding]:
    """Whether the key is of the organization whose data the state has; nothing if it has none."""
    subject = f"{one.name}: organization"
    try:
        with queries_opener(state)() as queries:
            vault = ReadOnlyVault(queries, one.name, one.base_url)
            client.guard = Guard(client, vault, now=time.time, mono=time.monotonic)
            await client.check_key()
            counted = queries.owner(one.name).counted
    except OtherOrganization as error:
        return [Finding("fail", subject, str(error))]
    except (SourceError, StateError):
        return []  # there is no state, or what is wrong is said where it is tested
    return [Finding("ok", subject, "the key is of the state's organization")] if counted else []


def _failure(name: str, probe: _Probe, error: SourceError) -> Finding:
    """What an error says of a source, or of the key."""
    subject = f"{name}: {probe.section}"
    level: Level = "fail" if probe.needed else "warn"
    match error:
        case MissingScope():
            lacks = f"the key lacks {', '.join(error.scopes) or 'a scope'} for {probe.path}"
            return Finding(
                level, subject, f"{lacks}; grant it, or set {probe.section}.enabled: false"
            )
        case Rejected():
            return Finding("fail", f"{name}: key", str(error))
        case NotOffered() if probe.section == "limits":
            return Finding("ok", subject, "no limit is set")
        case NotOffered():
            return Finding(
                "warn", subject, f"OpenAI does not offer {probe.path} here; see base_url"
            )
        case RateLimited():
            return Finding("warn", subject, str(error))
        case _:
            return Finding(level, subject, str(error))


def _organization(one: Organization, body: bytes) -> Iterator[Finding]:
    """Whose costs these are; nothing if there were none."""
    # OpenAI does not document the field, and not every answer has it.
    matches = re.findall(rb'"organization_id"\s*:\s*"([^"]+)"', body)
    ids = sorted({match.decode() for match in matches})
    if ids and one.id and ids != [one.id]:
        yield Finding(
            "warn",
            f"{one.name}: organization",
            f"the key is one of {', '.join(ids)}, but organizations[].id is {one.id}",
        )
    elif ids:
        yield Finding("ok", f"{one.name}: organization", ", ".join(ids))


def _session_that_notes(dates: list[tuple[float, str]]) -> Callable[..., aiohttp.ClientSession]:
    """A ClientSession that notes the Date of each answer beside our own time."""

    async def note(
        _: aiohttp.ClientSession, __: SimpleNamespace, end: aiohttp.TraceRequestEndParams
    ) -> None:
        if date := end.response.headers.get("Date"):
            dates.append((time.time(), date))

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(note)

    def session(**options: Any) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(trace_configs=[trace], **options)

    return session


def _clock(name: str, ours: float, date: str) -> Finding:
    """Compare our time with an HTTP Date, which is of whole seconds."""
    try:
        theirs = parsedate_to_datetime(date).astimezone(UTC)
        skew = (datetime.fromtimestamp(ours, UTC) - theirs).total_seconds()
    except ValueError:
        return Finding("warn", f"{name}: clock", f"the answer's Date is {date!r}, which is no time")
    if abs(skew) > SKEW:
        direction = "ahead" if skew > 0 else "behind"
        text = f"ours is {abs(skew):.0f} s {direction}; set it by NTP"
        return Finding("warn", f"{name}: clock", text)
    return Finding("ok", f"{name}: clock", "agrees with OpenAI's")


def _otlp(settings: Settings, offline: bool) -> Finding:
    """Send an empty export, as `run` would send it."""
    otlp = settings.otlp
    endpoint = (otlp.endpoint or "").partition("?")[0]  # a query may hold a key
    if offline:
        return Finding("ok", "otlp", f"{endpoint} was not tried")
    try:
        sender = exporter(otlp, attempts=1)
        try:
            outcome = sender.export(b"")
        finally:
            sender.shutdown()
    except (OSError, ValueError) as error:
        return Finding("fail", "otlp", f"preparing to send to {endpoint}: {error}; see otlp.tls")
    if not outcome.ok:
        return Finding(
            "fail",
            "otlp",
            f"sending an empty export to {endpoint}: {redact(outcome.error)}; is the collector running, and otlp.endpoint right?",
        )
    if outcome.notice:
        return Finding("warn", "otlp", f"{endpoint} takes exports, and says: {outcome.notice}")
    return Finding("ok", "otlp", f"{endpoint} takes exports")


def _state(path: Location, *, strict: bool) -> Finding:
    if str(path) == ":memory:":
        return Finding(
            "warn", "state", "kept in memory, so totals begin anew with every start; set state.path"
        )
    try:
        said = inspect(path)
        if is_empty(path):
            return Finding("ok", "state", said)
        found = describe(path)
    except StateError as error:
        return Finding("fail", "state", str(error))
    if found.doubts:
        what = f"{said}: {'; '.join(found.doubts)}; restore a backup, or use `state accept`"
        return Finding("fail" if strict else "warn", "state", what)
    if found.counting_since:
        said += f", counting since {utc(found.counting_since):%Y-%m-%dT%H:%M:%SZ}"
    if found.running:
        said += ", in use by a running exporter"
    return Finding("ok", "state", said)


def _database(state: DatabaseLocation) -> Iterator[Finding]:
    """What is not safe about the database."""
    with suppress(StateError):  # it is said where the state is tested
        for sentence in store_warnings(state):
            yield Finding("warn", "state", sentence)


def _disk(state: Path) -> Finding:
    # Path.exists raises an error for a folder in one that this user may not read.
    folder = next(parent for parent in state.absolute().parents if os.path.exists(parent))  # noqa: PTH110
    free = shutil.disk_usage(folder).free
    said = f"{free / 1e6:,.0f} MB are free at {folder}"
    if free < _ROOM:
        return Finding("warn", "disk", f"{said}; make room, or set state.path to another disk")
    return Finding("ok", "disk", said)


_ROOM = 100_000_000
"""Bytes that a state may need soon."""


def _runs(state: Location) -> bool:
    """Whether an exporter runs with this state."""
    with suppress(StateError, OSError):
        return not is_empty(state) and describe(state).running
    return False


def _listeners(settings: Settings, *, runs: bool, shared: bool) -> Iterator[Finding]:
    """Whether `run` could listen where it should; if it runs already, whether it does.

    `shared` says that several may run with this state.
    """
    prometheus = settings.prometheus
    events = settings.events
    ours: list[bool] = []
    if prometheus.enabled and not settings.sdk_disabled:
        tls = False
        if prometheus.web_config_file:
            try:
                tls = read_web_config(prometheus.web_config_file).tls is not None
            except ConfigError as error:
                yield Finding("fail", "prometheus", str(error))
        finding, is_ours = _port("prometheus", prometheus.host, prometheus.port, tls=tls, runs=runs)
        ours.append(is_ours)
        yield finding
    if events.enabled:
        finding, is_ours = _port("events", events.host, events.port, tls=False, runs=runs)
        ours.append(is_ours)
        yield finding
    if runs and shared:
        yield Finding(
            "ok",
            "running exporter",
            "replicas run with this state; one more `run` shares the organizations with them",
        )
    elif runs:
        yield _running(ours)


def _running(ours: list[bool]) -> Finding:
    if ours and all(ours):
        return Finding(
            "ok", "running exporter", "it has this state and these ports; a second `run` would end"
        )
    where = "and does not listen as this configuration says" if ours else "so a second one cannot"
    return Finding(
        "fail" if ours else "warn",
        "running exporter",
        f"an exporter runs with this state, {where}; stop it, or set another state.path",
    )


def _port(subject: str, host: str, port: int, *, tls: bool, runs: bool) -> tuple[Finding, bool]:
    """The finding, and whether the exporter that runs listens there."""
    where = f"{host}:{port}"
    if port == 0:
        return Finding("ok", subject, f"{host}, any free port"), runs
    try:
        for listening in bind(host, port):
            listening.close()
    except PortInUse as error:
        if not _is_exporter(host, port, tls=tls):
            return Finding("fail", subject, f"{error}; it is no otel-openai-usage"), False
        if runs:
            return Finding("ok", subject, f"the running exporter listens on {where}"), True
        other = f"an otel-openai-usage with another state listens on {where}; stop it, or choose another port"
        return Finding("fail", subject, other), False
    except ListenError as error:
        return Finding("fail", subject, str(error)), False
    return Finding("ok", subject, f"{where} is free"), False


def _is_exporter(host: str, port: int, *, tls: bool) -> bool:
    """Whether our own server answers there. It is asked as a stranger: nothing secret is sent."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    try:
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            # Our own certificate may be for another name or signed by ourselves, and nothing
            # secret is sent.
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                name, port, timeout=3, context=context
            )
        else:
            connection = http.client.HTTPConnection(name, port, timeout=3)
        connection.request("GET", "/healthz")
        return connection.getresponse().headers.get("Server") == "otel-openai-usage"
    except (OSError, http.client.HTTPException):
        return False
