"""Rules between settings: what each key allows by itself, but not together."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from otel_openai_usage.config.fields import loopback
from otel_openai_usage.config.quantities import format_duration
from otel_openai_usage.config.settings import Organization, Settings
from otel_openai_usage.config.unknown import nearest
from otel_openai_usage.domain.budgets import MATCHABLE
from otel_openai_usage.domain.endpoints import COSTS, ENDPOINTS, TOKEN_TYPES, USAGE_ENDPOINTS
from otel_openai_usage.domain.instruments import INSTRUMENTS

ATTRIBUTES = frozenset(
    attribute
    for attributes in (
        *(item.attributes for item in INSTRUMENTS.values()),
        *(endpoint.dimensions for endpoint in ENDPOINTS.values()),
    )
    for attribute in attributes
)
"""Every attribute that a series of ours may carry."""
ALLOCATES = frozenset({"project_id", "batch", "service_tier"})
"""Attributes of OpenAI's usage that events may bring, too: allocation compares them."""
KEPT = ("organization", "date", "currency", "token_type", "operation")
"""Those that cannot be dropped: their series are not of one sort, so a sum over them says nothing.
"""


def broken(settings: Settings) -> list[tuple[str, str]]:
    """Every rule that the settings break: a path in the file, and the sentence about it."""
    problems = []
    for rule in _RULES:
        for text in rule(settings):
            place, _, sentence = text.partition(": ")
            problems.append((place, sentence))
    return problems


def noteworthy(settings: Settings) -> list[str]:
    """What is allowed but probably not meant."""
    return [sentence for rule in _NOTES for sentence in rule(settings)]


def _organizations(settings: Settings) -> Iterator[str]:
    # The store and every series tell organizations apart by these two.
    firsts: dict[tuple[str, object], int] = {}
    for index, one in enumerate(settings.organizations):
        for key in ("name", "id"):
            value = getattr(one, key)
            first = firsts.setdefault((key, value), index)
            # An id is optional, so several organizations may lack it.
            if first != index and value is not None:
                yield f"organizations[{index}].{key}: {value!r} is also the {key} of organizations[{first}]; each needs its own"
        if one.admin_key and one.admin_key_file:
            yield f"organizations[{index}].admin_key_file: admin_key is set too; one of the two must go"


def _usage(settings: Settings) -> Iterator[str]:
    usage = settings.usage
    yield from _known("usage.endpoints", usage.endpoints, USAGE_ENDPOINTS)
    # One setting for all endpoints: each takes the dimensions that it has.
    dimensions: set[str] = set()
    for endpoint in USAGE_ENDPOINTS.values():
        dimensions.update(endpoint.group_by)
    yield from _known("usage.group_by", usage.group_by, dimensions)
    yield from _known("usage.token_types", usage.token_types, TOKEN_TYPES)
    if usage.idle_interval is not None and usage.idle_interval < usage.interval:
        interval = format_duration(usage.interval)
        idle = format_duration(usage.idle_interval)
        yield f"usage.idle_interval: expected at least usage.interval ({interval}), got {idle}"
    if usage.settle > usage.reconcile:
        settle = format_duration(usage.settle)
        reconcile = format_duration(usage.reconcile)
        yield f"usage.settle: expected at most usage.reconcile ({reconcile}), got {settle}"


def _costs(settings: Settings) -> Iterator[str]:
    yield from _known("costs.group_by", settings.costs.group_by, COSTS.group_by)


def _prices(settings: Settings) -> Iterator[str]:
    names = [one.name for one in settings.organizations]
    yield from _known("prices.overrides", settings.prices.overrides, names)


def _attributes(settings: Settings) -> Iterator[str]:
    attributes = settings.attributes
    # Events bring attributes of their own, which are renamed and dropped like ours.
    known = ATTRIBUTES.union(settings.events.attributes)
    yield from _known("attributes.rename", attributes.rename, known)
    yield from _known("attributes.drop", attributes.drop, known)
    yield from _known("attributes.hash", attributes.hash, known)
    yield from _known("attributes.to_resource", attributes.to_resource, known)
    for name in attributes.hash:
        if name in KEPT:
            yield f"attributes.hash: {name} cannot be hashed, since nothing could be read from its values"
    for name in attributes.drop:
        if name in KEPT:
            yield f"attributes.drop: {name} cannot be dropped, since a sum over it says nothing"
        if name in attributes.to_resource:
            yield f"attributes.to_resource: {name} is dropped by attributes.drop; one of the two must go"
    for name, new in attributes.rename.items():
        # OpenTelemetry reserves otel.*, Prometheus labels that begin with two underscores.
        is_reserved = new.startswith((*_RESERVED, "__"))
        if is_reserved or not re.match(r"[A-Za-z_]", new):
            yield f"attributes.rename: {name}: expected a name that is free in OpenTelemetry and Prometheus, got {new!r}"
    yield from _collisions(known, attributes.rename, attributes.drop)


_RESERVED = ("otel.", "otel_")
_TAKEN = ("instrument", "le", "quantile", "job", "instance")
"""Labels that mean something else in what we show, or that Prometheus adds."""


def _collisions(
    known: Collection[str], rename: Mapping[str, str], drop: Collection[str]
) -> Iterator[str]:
    """Names that become one, as OpenTelemetry or as Prometheus spells them."""
    shown = dict.fromkeys(_TAKEN, "a name that is taken")
    # Those not renamed come first, so that the problem names the setting that has to change.
    names = sorted(set(known) - set(drop), key=lambda name: (name in rename, name))
    for name in names:
        new = rename.get(name, name)
        # Prometheus replaces what a label may not have, so `a.b` and `a_b` would be one label.
        label = re.sub(r"[^A-Za-z0-9]+", "_", new)
        if label in shown:
            yield f"attributes.rename: {name} would be called {new!r}, and so is {shown[label]}; two names cannot become one"
        shown.setdefault(label, name)


def _legacy(settings: Settings) -> Iterator[str]:
    users = settings.legacy.user_public_ids
    if not settings.reads_legacy:
        return
    if not all(user.strip() for user in users):
        yield "legacy.user_public_ids: expected the ids of users, got an empty one; leave it out"
    if "*" not in users:
        return
    if len(users) > 1:
        yield "legacy.user_public_ids: '*' already means every user; leave the others out"
    if settings.organizations[0].id is None:
        yield (
            "legacy.user_public_ids: ['*'] needs the organization's id to list its users;"
            " set organizations[0].id or OPENAI_ORG_ID (org-…)"
        )


def _events(settings: Settings) -> Iterator[str]:
    events = settings.events
    # Anybody who can reach the port without a token could invent usage.
    is_protected = loopback(events.host) or events.tokens or events.tokens_file
    if events.enabled and not is_protected:
        yield f"events.tokens: {events.host!r} can be reached from other machines, so tokens or tokens_file is needed"
    if events.tokens_file:
        yield from _readable("events.tokens_file", events.tokens_file)
    for name, path in events.attributes.items():
        if name in ATTRIBUTES - ALLOCATES:
            yield f"events.attributes.{name}: a series has an attribute of that name already; choose another"
        if not re.fullmatch(r"(\$\.)?[^\s$.\[\]*]+(\.[^\s$.\[\]*]+)*", path):
            yield f"events.attributes.{name}: expected a path in the event's data such as team or $.user.plan, got {path!r}"


def _listeners(settings: Settings) -> Iterator[str]:
    events = settings.events
    page = settings.prometheus
    both_listen = events.enabled and page.enabled
    is_same = (events.host, events.port) == (page.host, page.port)
    # Port 0 is any free port, so two of them never collide.
    if both_listen and is_same and page.port:
        yield f"events.port: {page.port} is prometheus.port too; each needs its own"
    if page.web_config_file:
        yield from _readable("prometheus.web_config_file", page.web_config_file)


def _otlp(settings: Settings) -> Iterator[str]:
    otlp = settings.otlp
    if otlp.endpoint and (reason := _unusable(otlp.endpoint, otlp.protocol)):
        yield f"otlp.endpoint: {reason}"
    for key in otlp.headers:
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", key):
            yield f"otlp.headers: {key!r} cannot be the name of a header"
    if otlp.tls is None:
        return
    if (otlp.tls.cert_file is None) != (otlp.tls.key_file is None):
        missing = "key_file" if otlp.tls.key_file is None else "cert_file"
        yield f"otlp.tls.{missing}: cert_file and key_file go together; {missing} is missing"
    for name in ("ca_file", "cert_file", "key_file"):
        if path := getattr(otlp.tls, name):
            yield from _readable(f"otlp.tls.{name}", path)


def _unusable(endpoint: str, protocol: str) -> str | None:
    try:
        url = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        good = bool(url.hostname) and url.port != 0
    except ValueError:
        return f"expected a URL such as http://collector:4317, got {endpoint!r}"
    if url.username or url.password:
        return "expected a URL without user and password; they go into otlp.headers"
    # gRPC addresses are often written as host:port; HTTP needs a whole URL.
    schemes = ["http", "https"]
    port = 4318
    if protocol == "grpc":
        schemes.append("")
        port = 4317
    if not good or url.scheme not in schemes:
        return f"expected a URL such as http://collector:{port}, got {endpoint!r}"
    return None


def _readable(path: str, file: Path) -> Iterator[str]:
    try:
        file.open("rb").close()
    except OSError as error:
        yield f"{path}: reading {str(file)!r}: {error.strerror or error}"


def _known(path: str, names: Iterable[str], known: Collection[str]) -> Iterator[str]:
    for name, count in Counter(list(names)).items():
        if name not in known:
            yield f"{path}: {name!r} is not known; did you mean {nearest(name, known)}?"
        elif count > 1:
            yield f"{path}: {name} stands {count} times"


def _state(settings: Settings) -> Iterator[str]:
    state = settings.state
    if state.path is not None and state.url is not None:
        yield "state.url: state.path is set, too; one of the two must go"
    if state.password_file is not None and state.url is None:
        yield "state.password_file: expected state.url beside it"


def _is_safe(url: str) -> bool:
    """Whether a message to this URL cannot be read on its way."""
    parts = urlsplit(url)
    is_near = parts.scheme == "http" and loopback(parts.hostname or "")
    return bool(parts.hostname) and (parts.scheme == "https" or is_near)


def _budgets(settings: Settings) -> Iterator[str]:
    names: dict[str, int] = {}
    organizations = [one.name for one in settings.organizations]
    for index, item in enumerate(settings.budgets.items):
        first = names.setdefault(item.name, index)
        if first != index:
            yield f"budgets.items[{index}].name: {item.name!r} is also the name of budgets.items[{first}]; each needs its own"
        yield from _known(f"budgets.items[{index}].match", item.match, MATCHABLE)
    webhook = settings.budgets.webhook
    if webhook.url is not None and webhook.url_file is not None:
        yield "budgets.webhook.url_file: url is set, too; one of the two must go"
    if webhook.url is not None and not _is_safe(webhook.url.get_secret_value()):
        yield "budgets.webhook.url: expected an https URL, or http for loopback (it is not shown here)"
    for index, credit in enumerate(settings.credits):
        yield from _known(f"credits[{index}].organization", [credit.organization], organizations)
        if credit.expires is not None and credit.expires <= credit.date:
            yield f"credits[{index}].expires: expected a day after {credit.date}, got {credit.expires}"


_RULES: tuple[Callable[[Settings], Iterator[str]], ...] = (
    _organizations, _usage, _costs, _prices, _attributes, _legacy, _events, _listeners, _otlp, _state, _budgets,
)  # fmt: skip


def _same_key(settings: Settings) -> Iterator[str]:
    seen: dict[tuple[str, str], Organization] = {}
    for one in settings.organizations:
        if one.admin_key is None:
            continue
        first = seen.setdefault((one.admin_key.get_secret_value(), one.base_url), one)
        if first is not one:
            yield f"organizations: {first.name!r} and {one.name!r} have the same admin key, so the same usage would be counted twice"


def _nobody_looks(settings: Settings) -> Iterator[str]:
    if settings.sdk_disabled:
        yield "OTEL_SDK_DISABLED is true: usage is counted, but nothing is exported and nothing listens for scrapes"
    elif not (settings.prometheus.enabled or settings.otlp.on or settings.sdk_exporters):
        yield "prometheus and otlp are both off, so nobody will see the numbers"


def _tls_by_default(settings: Settings) -> Iterator[str]:
    endpoint = settings.otlp.endpoint or ""
    if settings.otlp.on and endpoint and "://" not in endpoint and not settings.otlp.insecure:
        yield f"otlp.endpoint: {endpoint!r} has no scheme, so TLS is used; http://{endpoint} would be plain text"


def _too_often(settings: Settings) -> Iterator[str]:
    # Usually one request for each endpoint: the trailing minutes fit into one page.
    count = len(settings.usage.endpoints)
    needed = count * 60 / settings.usage.interval.total_seconds()
    allowed = settings.api.requests_per_minute
    if settings.usage.enabled and needed > allowed:
        interval = format_duration(settings.usage.interval)
        yield (
            f"usage.interval: {count} endpoints every {interval} are {needed:g} requests a minute, and api.requests_per_minute"
            f" allows {allowed}; usage is polled less often then, and names hardly ever"
        )


_NOTES: tuple[Callable[[Settings], Iterator[str]], ...] = (
    _same_key,
    _nobody_looks,
    _tls_by_default,
    _too_often,
)
