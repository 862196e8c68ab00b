"""Every setting, with its default and its meaning; docs/configuration.md is made of it."""

from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator

from otel_openai_usage.config.fields import (
    WHOLE,
    Amount,
    Auto,
    DatabaseUrl,
    Day,
    Duration,
    File,
    First,
    HeaderValue,
    Interval,
    OptionalDay,
    OptionalInterval,
    OptionalSecret,
    OptionalUrl,
    Plain,
    PositiveDuration,
    Secret,
    Section,
    Size,
    Start,
    Text,
    Url,
    problem,
)
from otel_openai_usage.domain.endpoints import SHOWN_TOKEN_TYPES, USAGE_ENDPOINTS
from otel_openai_usage.domain.gen_ai import Profile

_Positive = Annotated[int, Field(ge=1), WHOLE]
_Port = Annotated[int, Field(ge=0, le=65535), WHOLE]


class Organization(Section):
    """An OpenAI organization; each is polled on its own, a failing one never stops another."""

    name: Annotated[str, Field(min_length=1)] = "default"
    """The attribute `organization`, on every series. State is keyed by it, so it should not change.
    """
    id: Text = None
    """OpenAI's id of the organization (`org-…`), shown where the API does not say it. It is not
    sent to OpenAI.
    """
    admin_key: OptionalSecret = None
    """The admin key (`sk-admin-…`). Without it `OPENAI_ADMIN_KEY` is read, then
    `OPENAI_SECRET_KEY`.
    """
    admin_key_file: File = None
    """A file that holds the admin key instead. It is read again when it changes, so a key can be
    rotated without a restart.
    """
    base_url: Url = "https://api.openai.com/v1"
    """Where the API is, its version included. Without it `OPENAI_BASE_URL` is read."""


class Api(Section):
    """How OpenAI is asked."""

    timeout: PositiveDuration = timedelta(seconds=30)
    """How long one request may take."""
    max_concurrency: _Positive = 4
    """Requests at the same time, per organization. One that has not ended after 5s does not count any
    more, so that a slow answer keeps no other request waiting.
    """
    requests_per_minute: _Positive = 60
    """Requests in a minute, per organization, all sources together; usage and costs go first."""
    retries: Annotated[int, Field(ge=0), WHOLE] = 5
    """How often a failed request is tried again, with growing pauses; Retry-After is obeyed."""
    max_bytes: Annotated[Size, Field(ge=2**20)] = 128 * 2**20
    """Bytes of answers in memory at a time, all organizations together, what they become while they
    are booked included; at least 1MiB. An answer that needs more is read in shorter windows.
    """


class Usage(Section):
    """The usage endpoints."""

    enabled: bool = True
    """Whether usage is polled."""
    endpoints: tuple[str, ...] = tuple(USAGE_ENDPOINTS)
    """Which of the usage endpoints are polled."""
    interval: Interval = timedelta(seconds=60)
    """How often the freshest window is read, at least 1s."""
    idle_interval: OptionalInterval = None
    """How often an endpoint without usage in the last day is polled, once it was read completely since
    the start; null: ten times `interval`. Never below it.
    """
    bucket_width: Literal["1m", "1h", "1d"] = "1m"
    """The width of the buckets of the freshest window."""
    group_by: tuple[str, ...] = ("project_id", "user_id", "api_key_id", "model", "batch")
    """The dimensions that are asked for. Where an endpoint lacks one, it is left out there."""
    token_types: tuple[str, ...] = SHOWN_TOKEN_TYPES
    """Which tokens have series of `openai.api.tokens`. There are also `input_text`, `output_text`,
    `input_image`, `output_image`, `input_cached_text`, `input_cached_audio`, `input_cached_image`,
    `input_cache_write_30m` and `input_cache_write_12h`. All of them are stored and priced in any
    case."""
    settle: Duration = timedelta(hours=3)
    """How far back fine buckets are read again, because OpenAI still adds to them."""
    reconcile: Duration = timedelta(days=7)
    """How far back coarse buckets (1h, 1d) are compared and made good; at least `settle`."""
    reconcile_interval: Interval = timedelta(minutes=15)
    """How often they are."""
    start: Start = "today"
    """On the very first start count from: now, today (UTC), or a duration back."""


class Costs(Section):
    """The costs endpoint."""

    enabled: bool = True
    """Whether costs are polled."""
    interval: Interval = timedelta(hours=1)
    """How often, at least 1s."""
    group_by: tuple[str, ...] = ("project_id", "line_item")
    """The dimensions that are asked for. One that OpenAI refuses, for all days or before a date, is
    left out there, and that is reported once."""
    days: Annotated[int, Field(ge=1, le=180), WHOLE] = 2
    """How many UTC days `openai.api.daily_cost` shows."""
    reconcile: Duration = timedelta(days=7)
    """How far back days are read again."""


class Limits(Section):
    """Spend limits of the organization and its projects."""

    enabled: bool = True
    """Whether they are polled."""
    interval: Interval = timedelta(hours=1)
    """How often, at least 1s."""
    rates: bool = False
    """Whether the projects' rate limits are polled, too: one request per project."""


class Names(Section):
    """Names of projects, API keys and users."""

    enabled: bool = True
    """Whether they are polled; without them names are `unknown`."""
    interval: Interval = timedelta(hours=1)
    """How often, at least 1s."""
    users: bool = False
    """Whether series with a user_id have the attribute `user_name`."""
    emails: bool = False
    """Whether users are named by their e-mail address. Else addresses are neither shown nor stored,
    and a user without a name is `unknown`.
    """
    keys: bool = False
    """Whether it is shown when API keys were created, were last used and expire."""


class Legacy(Section):
    """The old usage endpoint, which takes an ordinary key."""

    enabled: Auto = "auto"
    """auto: if there is an ordinary key and no organization has an admin key."""
    api_key: OptionalSecret = None
    """An ordinary key. Without it `OPENAI_API_KEY` is read."""
    base_url: OptionalUrl = None
    """Where that API is; null: as the first organization's."""
    interval: Interval = timedelta(minutes=5)
    """How often, at least 1s."""
    requests_per_minute: _Positive = 5
    """Requests in a minute."""
    user_public_ids: tuple[str, ...] = ()
    """Users to ask for one by one; none: one call for the organization. `["*"]` asks for every
    user of the organization, and needs `organizations[0].id`.
    """


class Events(Section):
    """The listener for CloudEvents that meter single responses."""

    enabled: bool = False
    """Whether it listens."""
    host: Annotated[str, Field(min_length=1)] = "localhost"
    """The address to listen on; beyond loopback it needs tokens."""
    port: _Port = 8888
    """The port; 0 is any free one."""
    tokens: tuple[Secret, ...] = ()
    """Bearer tokens that are accepted; none: everybody's events."""
    tokens_file: File = None
    """A file with one token a line, read again when it changes."""
    max_body: Annotated[Size, Field(ge=1)] = 2**20
    """The largest request body."""
    dedupe: Duration = timedelta(days=32)
    """How long an event's identity is remembered."""
    attributes: dict[str, str] = Field(default_factory=dict)
    """Attributes that are taken from the event's data."""


class Prices(Section):
    """Estimated cost."""

    enabled: bool = True
    """Whether cost is estimated from usage and list prices."""
    overrides: dict[str, dict[str, object]] = Field(default_factory=dict)
    """Prices of your own, per organization and model."""
    file: File = None
    """genai-prices' data file, in place of the list of the installed package. Read again when it
    changes; while it cannot be used, the last good list stays."""


class History(Section):
    """How long rows are kept."""

    hours: PositiveDuration = timedelta(days=90)
    """How long rows of hours are kept."""
    days: PositiveDuration = timedelta(days=1100)
    """How long rows of days are kept."""
    first: First = "month"
    """Which past days are read in the background at every start, where the store lacks them: `month`
    (this month and the month before), `none`, or a duration back. Costs come first. No counter moves.
    """


class BudgetItem(Section):
    """A budget of your own."""

    name: Annotated[str, Field(min_length=1)]
    """The attribute `budget`; each has its own."""
    amount: Amount
    """What the period may cost, in currency units."""
    currency: Annotated[str, Field(min_length=3, max_length=3), AfterValidator(str.lower)] = "usd"
    """The currency of the amount. Cost in another one is left out."""
    period: Literal["day", "week", "month", "quarter", "year"] = "month"
    """UTC; a week begins on Monday."""
    match: dict[str, str] = Field(default_factory=dict)
    """Which cost counts: attributes and values, such as `project_name: Search`, or patterns such as
    `model: gpt-5*`. Empty: all.
    """
    basis: Literal["billed", "estimated"] = "billed"
    """Which cost counts. Where the bill cannot answer `match`, it is the estimated one."""


class Webhook(Section):
    """Where reached thresholds of budgets are sent. Slack understands the body."""

    url: OptionalSecret = None
    """An https URL; http only for loopback. Redirects are not followed."""
    url_file: File = None
    """A file with the URL instead, read each time."""
    thresholds: tuple[Amount, ...] = (
        Decimal("0.5"),
        Decimal("0.8"),
        Decimal("1.0"),
    )
    """Parts of a budget. Only the highest one that is newly reached is sent."""


class Budgets(Section):
    """Budgets of your own. OpenAI's spend limits are budgets without configuration."""

    items: tuple[BudgetItem, ...] = ()
    """The budgets."""
    webhook: Webhook = Webhook()
    """Where reached thresholds are sent."""


class CreditItem(Section):
    """Prepaid money."""

    organization: Annotated[str, Field(min_length=1)] = "default"
    """The organization that may spend it."""
    date: Day
    """The UTC day from which it counts."""
    amount: Amount
    """How much was bought, in currency units."""
    currency: Annotated[str, Field(min_length=3, max_length=3), AfterValidator(str.lower)] = "usd"
    """Its currency."""
    expires: OptionalDay = None
    """The first UTC day on which what is left of it is gone."""


class Attributes(Section):
    """What the series carry."""

    rename: dict[str, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)
    """Attributes under other names, such as `model: gen_ai.response.model`."""
    drop: tuple[str, ...] = ()
    """Attributes to leave out; their series are summed, nothing is lost."""
    hash: tuple[str, ...] = ()
    """Attributes whose values are shown as a keyed hash, such as `user_id` and `subject`. The key is
    kept in the state.
    """
    profile: Profile = "openai"
    """The names of tokens: `openai` (openai.api.tokens), `gen_ai` (gen_ai.client.inference.usage.*, by
    OpenTelemetry's conventions for generative AI), or `both`.
    """
    resource: dict[str, Plain] = Field(default_factory=dict)
    """Constant resource attributes, on top of `OTEL_RESOURCE_ATTRIBUTES`."""
    to_resource: tuple[str, ...] = ()
    """Attributes that go into the resource over OTLP: one ResourceMetrics each, with a
    `service.instance.id` of its own. In a scrape they stay labels. In a backend that takes OTLP
    they are labels only where it copies them from the resource, as Prometheus does with
    `promote_resource_attributes`.
    """
    skip_zero: bool = False
    """Whether series that were never above zero are left out."""
    zero_hold: Duration = timedelta(seconds=60)
    """How long a new series is shown at 0 first; at least your scrape interval."""
    max_series: _Positive = 100_000
    """Series per instrument; later ones fold into one with `otel.metric.overflow=true`."""


class State(Section):
    """Where totals and rows are kept."""

    path: File = None
    """The SQLite file; null: in the user's state directory. `:memory:` keeps nothing."""
    url: DatabaseUrl = None
    """A PostgreSQL database instead of a file: `postgresql://user@host:5432/usage?sslmode=verify-full`,
    with libpq's parameters and several hosts as in libpq. Without it `OTEL_OPENAI_USAGE_STATE_URL` is
    read. Not together with `path`.
    """
    password_file: File = None
    """A file with the password for `url`, read at each connection. `PGPASSWORD` and `PGPASSFILE` work,
    too.
    """
    lease: Annotated[PositiveDuration, Field(ge=timedelta(seconds=1))] = timedelta(seconds=15)
    """How long a process with the state on `url` may be silent before another may take the state over.
    Set it above the database's fail-over time.
    """
    connections: Annotated[int, Field(ge=2), WHOLE] = 3
    """Connections to `url` of one process, at most."""
    standby: bool = False
    """Whether this replica never owns an organization: it needs no admin key, and takes events only."""
    strict: bool = False
    """Whether `run` refuses a state that lost something, instead of going on from it with a warning."""


class Prometheus(Section):
    """The page that Prometheus scrapes."""

    enabled: bool = True
    """Whether it is served."""
    host: Annotated[str, Field(min_length=1)] = "localhost"
    """The address to listen on. Without it `OTEL_EXPORTER_PROMETHEUS_HOST` is read."""
    port: _Port = 9185
    """The port; 0 is any free one. Without it `OTEL_EXPORTER_PROMETHEUS_PORT` is read."""
    path: str = "/metrics"
    """The path of the page."""
    web_config_file: File = None
    """TLS and basic authentication, in the format of Prometheus' exporter-toolkit."""
    created: bool = False
    """Whether counters have `_created` samples in OpenMetrics: when counting began. Prometheus 3 uses
    them with feature flags only, and each is a sample more.
    """

    @field_validator("path")
    @classmethod
    def _own_path(cls, path: str) -> str:
        if not path.startswith("/") or any(sign in path for sign in "?#{} "):
            raise problem(f"expected a path such as /metrics, got {path!r}")
        if path in ("/", "/healthz", "/readyz"):
            raise problem(
                f"expected a path other than /, /healthz and /readyz, which have their own pages, got {path!r}"
            )
        return path


class Tls(Section):
    """TLS towards the collector."""

    ca_file: File = None
    """Certificates of the authorities to trust, PEM."""
    cert_file: File = None
    """The client's certificate, PEM; with `key_file`."""
    key_file: File = None
    """The client's key, PEM."""
    insecure: bool = False
    """No TLS, for gRPC endpoints without http:// or https://."""


class Otlp(Section):
    """Sending to an OpenTelemetry Collector."""

    enabled: Auto = "auto"
    """auto: if an endpoint is given, here or by `OTEL_EXPORTER_OTLP_[METRICS_]ENDPOINT`."""
    endpoint: Text = None
    """Such as `http://collector:4317` for gRPC or `http://collector:4318` for HTTP, where
    /v1/metrics is appended to its path unless it ends so.
    """
    protocol: Literal["grpc", "http/protobuf"] = "grpc"
    """The protocol."""
    headers: dict[str, HeaderValue] = Field(default_factory=dict)
    """Headers of every request, such as an authorization."""
    compression: Literal["gzip", "none"] = "gzip"
    """The compression."""
    interval: PositiveDuration = timedelta(seconds=60)
    """How often everything is sent, changed or not."""
    timeout: PositiveDuration = timedelta(seconds=10)
    """How long one request may take."""
    tls: Tls | None = None
    """Certificates and keys."""

    @field_validator("protocol", mode="before")
    @classmethod
    def _no_json(cls, protocol: object) -> object:
        if protocol == "http/json":
            raise problem(
                "http/json is not spoken here; http/protobuf is understood by every collector"
            )
        return protocol

    @property
    def on(self) -> bool:
        """Whether anything is sent."""
        return self.endpoint is not None if self.enabled == "auto" else self.enabled

    @property
    def insecure(self) -> bool:
        """Whether the endpoint is talked to in plain text: its scheme decides, then `tls.insecure`."""
        scheme = urlsplit(self.endpoint or "").scheme
        return scheme == "http" or (
            scheme != "https" and self.tls is not None and self.tls.insecure
        )


class Dashboard(Section):
    """Where the expenditure dashboard listens."""

    host: Annotated[str, Field(min_length=1)] = "localhost"
    """The address to listen on. It has no passwords: beyond loopback put a proxy in front."""
    port: _Port = 8050
    """The port; 0 is any free one."""
    prefix: str = "/"
    """The path below which a reverse proxy shows it, such as `/openai/`."""

    @field_validator("prefix")
    @classmethod
    def _whole_prefix(cls, prefix: str) -> str:
        if (
            not prefix.startswith("/")
            or "//" in prefix
            or any(sign in prefix for sign in "?#{} \\")
        ):
            raise problem(f"expected a path such as /openai/, got {prefix!r}")
        return prefix if prefix.endswith("/") else f"{prefix}/"


class Log(Section):
    """What is logged, to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """From which level on."""
    format: Literal["text", "json"] = "text"
    """One line per event, as text or as JSON."""

    @field_validator("level", mode="before")
    @classmethod
    def _any_case(cls, level: object) -> object:
        lower = level.lower() if isinstance(level, str) else level
        return "warning" if lower == "warn" else lower


class Settings(Section):
    """Everything that can be set."""

    organizations: Annotated[tuple[Organization, ...], Field(min_length=1)] = (Organization(),)
    """One or more OpenAI organizations; each is polled on its own, a failing one never stops
    another.
    """
    api: Api = Api()
    """How OpenAI is asked."""
    usage: Usage = Usage()
    """The usage endpoints."""
    costs: Costs = Costs()
    """The costs endpoint."""
    limits: Limits = Limits()
    """Spend limits of the organization and its projects."""
    names: Names = Names()
    """Names of projects, API keys and users."""
    legacy: Legacy = Legacy()
    """The old usage endpoint, which takes an ordinary key."""
    events: Events = Events()
    """The listener for CloudEvents that meter single responses."""
    prices: Prices = Prices()
    """Estimated cost."""
    history: History = History()
    """How long rows are kept."""
    attributes: Attributes = Attributes()
    """What the series carry."""
    budgets: Budgets = Budgets()
    """What periods may cost."""
    credits: tuple[CreditItem, ...] = ()
    """Prepaid money, for the balance. What expires first is used first."""
    state: State = State()
    """Where totals and rows are kept."""
    prometheus: Prometheus = Prometheus()
    """The page that Prometheus scrapes."""
    otlp: Otlp = Otlp()
    """Sending to an OpenTelemetry Collector."""
    dashboard: Dashboard = Dashboard()
    """Where the expenditure dashboard listens."""
    log: Log = Log()
    """What is logged, to stderr."""

    # Not of the file: what else the environment says, and what was noticed on the way.
    sdk_disabled: Annotated[bool, Field(exclude=True)] = False
    """OTEL_SDK_DISABLED: nothing is exported."""
    sdk_exporters: Annotated[tuple[str, ...], Field(exclude=True)] = ()
    """Exporters of OTEL_METRICS_EXPORTER that run in the OpenTelemetry SDK, such as `console`."""
    warnings: Annotated[tuple[str, ...], Field(exclude=True)] = ()
    """What a user should know about this configuration; to be logged."""

    @property
    def has_admin_key(self) -> bool:
        """Whether any organization has an admin key, or a file for one."""
        return any(one.admin_key or one.admin_key_file for one in self.organizations)

    @property
    def reads_legacy(self) -> bool:
        """Whether the legacy source is polled."""
        if self.legacy.enabled == "auto":
            return self.legacy.api_key is not None and not self.has_admin_key
        return self.legacy.enabled

    @property
    def organization_ids(self) -> dict[str, str]:
        """OpenAI's ids of the organizations by name, where they are configured."""
        return {
            organization.name: organization.id
            for organization in self.organizations
            if organization.id
        }


OUTSIDE_THE_FILE = ("sdk_disabled", "sdk_exporters", "warnings")
"""Attributes of `Settings` that are no keys of the file."""
