"""The dashboards."""
# ruff: noqa: E501 - a query reads best in one piece

from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard

from tools.dashboards.customers import customers
from tools.dashboards.parts import (
    BOTH,
    COSTS,
    Panel,
    Query,
    course,
    listing,
    one,
    page,
    project_variable,
    ranking,
    top,
    variable,
)

TOKENS = f"openai_api_tokens_total{{{BOTH}}}"
KEYED = f'{BOTH}, model=~"$model", api_key_name=~"$key"'
REQUESTED = f'{COSTS}, model=~"$model", api_key_name=~"$key"'
ORGANIZATION = 'organization=~"$organization"'
CACHED = (
    f'sum(increase(openai_api_tokens_total{{{COSTS}, token_type="input_cached"}}[$__range])) '
    f'/ sum(increase(openai_api_tokens_total{{{COSTS}, token_type="input"}}[$__range]))'
)

_FORECAST = f'openai_api_cost_month_forecast{{{COSTS}, percentile="50", scope='
FORECAST = f'sum({_FORECAST}"organization"}}) or sum({_FORECAST}"project"}})'
"""The organization's forecast; with projects chosen, which it does not have, the sum of theirs."""


def filled(board: dashboard.Dashboard, panels: Sequence[Panel]) -> dashboard.Dashboard:
    """A dashboard with its panels, which Grafana lays out by width and height."""
    for panel in panels:
        board = board.with_panel(panel)
    return board


def overview() -> dashboard.Dashboard:
    """What it costs, who uses it, how it goes on."""
    board = page(
        "openai-overview",
        "OpenAI / Overview",
        "Spend and usage as OpenAI reports them. Days and months are UTC.",
    )
    return filled(
        board.with_variable(project_variable()),
        (
            one(
                "Spend today",
                "Since midnight UTC, as far as OpenAI has billed it.",
                f"sum(openai:cost:today{{{COSTS}}})",
                "currencyUSD",
            ),
            one(
                "Spend this month",
                "Since the 1st, UTC.",
                f"sum(openai_api_cost_month{{{COSTS}}})",
                "currencyUSD",
            ),
            one(
                "Forecast to month end",
                "What the month will have cost, as likely more as less. With projects chosen: theirs, added up.",
                FORECAST,
                "currencyUSD",
            ),
            one(
                "Forecast of limit",
                "Forecast divided by the organization's spend limit at OpenAI. Above 100 % requests will be refused.",
                f'max(openai:spend_limit:burn_rate{{{ORGANIZATION}, scope="organization"}})',
                "percentunit",
                warn=0.8,
                bad=1,
            ),
            one(
                "Tokens",
                "Input and output tokens in the time shown.",
                f"sum(increase({TOKENS}[$__range]))",
                "short",
            ),
            one(
                "Input from cache",
                "Share of input tokens that came from OpenAI's cache, which is cheaper.",
                CACHED,
                "percentunit",
            ),
            course(
                "Tokens per hour by project",
                "The ten projects that used most in the time shown.",
                [Query(top("project_name", TOKENS), "{{project_name}}")],
                "short",
                stacked=True,
            ),
            course(
                "Tokens per hour by model",
                "The ten models that were used most in the time shown.",
                [Query(top("model", TOKENS), "{{model}}")],
                "short",
                stacked=True,
            ),
            ranking(
                "Spend this month by project",
                "The ten projects that cost most since the 1st.",
                f"topk(10, sum by (project_name) (openai_api_cost_month{{{COSTS}}}))",
                "{{project_name}}",
                "currencyUSD",
            ),
            ranking(
                "Tokens by model",
                "The ten models that were used most in the time shown.",
                f"topk(10, sum by (model) (increase({TOKENS}[$__range])))",
                "{{model}}",
                "short",
            ),
            course(
                "Requests per hour by project",
                "The ten projects that asked most in the time shown.",
                [
                    Query(
                        top("project_name", f"openai_api_requests_total{{{COSTS}}}"),
                        "{{project_name}}",
                    )
                ],
                "short",
            ),
            course(
                "Spend and forecast",
                "The month so far as it grew. The forecast says where it will be when the month ends.",
                [
                    Query(f"sum(openai_api_cost_month{{{COSTS}}})", "spent"),
                    Query(FORECAST, "forecast"),
                    Query(
                        f'sum(max by (organization) (openai_api_spend_limit{{{ORGANIZATION}, project_id=""}}))',
                        "limit",
                    ),
                ],
                "currencyUSD",
            ),
        ),
    )


def cost() -> dashboard.Dashboard:
    """Money."""
    # `max`, because a Collector goes on showing a renamed project under its old name for a while.
    daily = f"max by (organization, project_id, line_item, date) (openai_api_daily_cost{{{COSTS}}})"
    board = page(
        "openai-cost",
        "OpenAI / Cost",
        "What OpenAI bills. It bills whole UTC days, which grow until the day ends and settle within a few days.",
        since="now-30d",
    )
    return filled(
        board.with_variable(project_variable()),
        (
            one(
                "Spend today",
                "Since midnight UTC, as far as OpenAI has billed it.",
                f"sum(openai:cost:today{{{COSTS}}})",
                "currencyUSD",
                width=6,
            ),
            one(
                "Spend this month",
                "Since the 1st, UTC.",
                f"sum(openai_api_cost_month{{{COSTS}}})",
                "currencyUSD",
                width=6,
            ),
            one(
                "Forecast to month end",
                "What the month will have cost, as likely more as less. With projects chosen: theirs, added up.",
                FORECAST,
                "currencyUSD",
                width=6,
            ),
            one(
                "Highest use of a limit",
                "Spend this month divided by the limit, of the organization or project that is nearest to it.",
                f"max(openai:spend_limit:used_ratio{{{ORGANIZATION}}})",
                "percentunit",
                warn=0.8,
                bad=1,
                width=6,
            ),
            course(
                "Cost by day",
                "Each line is one UTC day: it grows while the day lasts, and is corrected afterwards.",
                [Query(f"sum by (date) ({daily})", "{{date}}")],
                "currencyUSD",
            ),
            course(
                "Spend this month by project",
                "The ten projects that cost most.",
                [
                    Query(
                        f"topk(10, sum by (project_name) (openai_api_cost_month{{{COSTS}}}))",
                        "{{project_name}}",
                    )
                ],
                "currencyUSD",
                stacked=True,
            ),
            ranking(
                "Cost by line item",
                "What the days that OpenAI still reports were spent on; the fifteen largest.",
                f"topk(15, sum by (line_item) ({daily}))",
                "{{line_item}}",
                "currencyUSD",
            ),
            ranking(
                "Cost per million tokens by model",
                "Seven days' cost of a model divided by its tokens, cached and batch prices included.",
                f'topk(15, sum by (model) (openai:cost_per_million_tokens:7d{{{ORGANIZATION}, scope="model"}}))',
                "{{model}}",
                "currencyUSD",
            ),
            course(
                "Estimated cost per hour by model",
                "By list prices, as usage comes in: hours before OpenAI bills it. The ten that cost most.",
                [
                    Query(
                        # A tool call has an operation and no model.
                        top("model, operation", f"openai_api_estimated_cost_total{{{COSTS}}}"),
                        "{{model}} {{operation}}",
                    )
                ],
                "currencyUSD",
                stacked=True,
            ),
            ranking(
                "Estimated cost by API key",
                "By list prices, in the time shown. OpenAI bills by project; this says which key.",
                f"topk(10, sum by (api_key_name) (increase(openai_api_estimated_cost_total{{{COSTS}}}[$__range])))",
                "{{api_key_name}}",
                "currencyUSD",
            ),
            listing(
                "Projects",
                "Spend since the 1st, forecast, and the project's limit, where it has one.",
                [
                    Query(
                        f"sum by (organization, project_name) (openai_api_cost_month{{{COSTS}}})",
                        "spent this month",
                    ),
                    Query(
                        f'max by (organization, project_name) (openai_api_cost_month_forecast{{{COSTS}, scope="project", percentile="50"}})',
                        "forecast",
                    ),
                    Query(
                        f"sum by (organization, project_name) (openai:cost:today{{{COSTS}}})",
                        "today",
                    ),
                ],
                "currencyUSD",
            ),
        ),
    )


def drilldown() -> dashboard.Dashboard:
    """Who uses what, with which key."""
    tokens = f"openai_api_tokens_total{{{KEYED}}}"
    requests = f"openai_api_requests_total{{{REQUESTED}}}"
    scope = 'organization=~"$organization", project_name=~"$project"'
    board = page(
        "openai-project",
        "OpenAI / Project and key",
        "One project, key or model, or any choice of them.",
    )
    board = (
        board.with_variable(project_variable())
        .with_variable(
            variable("model", "Model", f"label_values(openai_api_requests_total{{{scope}}}, model)")
        )
        .with_variable(
            variable(
                "key",
                "API key",
                f"label_values(openai_api_requests_total{{{scope}}}, api_key_name)",
            )
        )
    )
    return filled(
        board,
        (
            one(
                "Tokens",
                "Input and output tokens in the time shown.",
                f"sum(increase({tokens}[$__range]))",
                "short",
                width=6,
            ),
            one(
                "Requests",
                "Requests to models in the time shown.",
                f"sum(increase({requests}[$__range]))",
                "short",
                width=6,
            ),
            one(
                "Tokens per request",
                "Input and output tokens of an average request.",
                f"sum(increase({tokens}[$__range])) / sum(increase({requests}[$__range]))",
                "short",
                width=6,
            ),
            one(
                "Spend this month",
                "Of the projects chosen. OpenAI bills by project, not by key.",
                f"sum(openai_api_cost_month{{{COSTS}}})",
                "currencyUSD",
                width=6,
            ),
            one(
                "Estimated cost",
                "By list prices, in the time shown.",
                f"sum(increase(openai_api_estimated_cost_total{{{REQUESTED}}}[$__range]))",
                "currencyUSD",
                width=6,
            ),
            course(
                "Estimated cost per hour by API key",
                "By list prices. The ten keys that cost most in the time shown.",
                [
                    Query(
                        top("api_key_name", f"openai_api_estimated_cost_total{{{REQUESTED}}}"),
                        "{{api_key_name}}",
                    )
                ],
                "currencyUSD",
                stacked=True,
                width=18,
            ),
            course(
                "Tokens per hour by API key",
                "The ten keys that used most in the time shown.",
                [Query(top("api_key_name", tokens), "{{api_key_name}}")],
                "short",
                stacked=True,
            ),
            course(
                "Tokens per hour by model",
                "The ten models that were used most in the time shown.",
                [Query(top("model", tokens), "{{model}}")],
                "short",
                stacked=True,
            ),
            course(
                "Input, output, cached",
                "Cached tokens are a part of input.",
                [
                    Query(
                        f"3600 * sum by (token_type) (rate(openai_api_tokens_total{{{REQUESTED}}}[$__rate_interval]))",
                        "{{token_type}}",
                    )
                ],
                "short",
            ),
            course(
                "Input from cache",
                "Share of input tokens, by model.",
                [
                    Query(
                        f'sum by (model) (rate(openai_api_tokens_total{{{REQUESTED}, token_type="input_cached"}}[$__rate_interval])) '
                        f'/ (sum by (model) (rate(openai_api_tokens_total{{{REQUESTED}, token_type="input"}}[$__rate_interval])) > 0)',
                        "{{model}}",
                    )
                ],
                "percentunit",
            ),
            listing(
                "Keys",
                "Tokens and requests in the time shown. `unknown` is a key that was deleted, or cannot be looked up.",
                [
                    Query(
                        f"sum by (organization, project_name, api_key_name, model) (increase({tokens}[$__range])) > 0",
                        "tokens",
                    ),
                    Query(
                        f"sum by (organization, project_name, api_key_name, model) (increase({requests}[$__range])) > 0",
                        "requests",
                    ),
                ],
                "short",
            ),
            course(
                "Images, searches and sessions per hour",
                "What is not counted in tokens.",
                [
                    Query(
                        f"3600 * sum(rate(openai_api_images_total{{{COSTS}}}[$__rate_interval]))",
                        "images",
                    ),
                    Query(
                        f"3600 * sum by (operation) (rate(openai_api_searches_total{{{COSTS}}}[$__rate_interval]))",
                        "{{operation}}",
                    ),
                    Query(
                        f"3600 * sum(rate(openai_api_sessions_total{{{COSTS}}}[$__rate_interval]))",
                        "code interpreter sessions",
                    ),
                ],
                "short",
            ),
            course(
                "Vector stores",
                "Bytes kept, by project.",
                [
                    Query(
                        f"sum by (project_name) (openai_api_vector_store_usage_bytes{{{COSTS}}})",
                        "{{project_name}}",
                    )
                ],
                "bytes",
            ),
        ),
    )


def health() -> dashboard.Dashboard:
    """Whether the numbers can be trusted."""
    ours = "otel_openai_usage"
    chosen = ORGANIZATION
    board = page(
        "openai-exporter",
        "OpenAI / Exporter health",
        "Whether what the other dashboards show is fresh and complete.",
        since="now-6h",
    )
    return filled(
        board,
        (
            one(
                "Sources failing",
                "Sources whose last poll failed. See the table for which.",
                f"count(max by (organization, source) (openai_api_up{{{chosen}}}) == 0) or vector(0)",
                "none",
                warn=1,
                bad=3,
                width=3,
            ),
            one(
                "Oldest usage",
                "Time since the usage source that was read longest ago was read.",
                f'time() - min(openai_api_last_success_seconds{{{chosen}, source=~"usage/.*"}})',
                "s",
                warn=900,
                bad=3600,
                width=3,
            ),
            one(
                "Costs read",
                "Time since costs were read.",
                f'time() - min(openai_api_last_success_seconds{{{chosen}, source="costs"}})',
                "s",
                warn=7200,
                bad=10800,
                width=3,
            ),
            one(
                "Series folded",
                "Series beyond max_series, added up in an overflow series.",
                f'sum(max by (instrument) ({ours}_series{{state="folded"}})) or vector(0)',
                "none",
                warn=1,
                width=3,
            ),
            one(
                "Usage lost",
                "Downtime that lay beyond `reconcile`.",
                f'sum({ours}_gap_seconds_total{{{chosen}, outcome="lost"}})',
                "s",
                warn=1,
                width=3,
            ),
            one(
                "Waiting to be overtaken",
                "What counters show above OpenAI's own totals, since OpenAI took it back.",
                f"sum({ours}_restated_pending{{{chosen}}}) or vector(0)",
                "short",
                width=3,
            ),
            one(
                "Unpriced tokens",
                "Tokens of models without a known price; the estimated cost lacks them.",
                f"sum(increase({ours}_unpriced_tokens_total{{{chosen}}}[$__range])) or vector(0)",
                "short",
                warn=1,
                width=6,
            ),
            listing(
                "Sources",
                "1 is up. Seconds since the last success and since the newest bucket that held data.",
                [
                    Query(f"min by (organization, source) (openai_api_up{{{chosen}}})", "up"),
                    Query(
                        f"time() - max by (organization, source) (openai_api_last_success_seconds{{{chosen}}})",
                        "read, s ago",
                    ),
                    Query(
                        f"time() - max by (organization, source) (openai_api_newest_bucket_seconds{{{chosen}}})",
                        "newest bucket ended, s ago",
                    ),
                ],
                "none",
            ),
            course(
                "Requests to OpenAI by status",
                "Answers of OpenAI's API per minute; none is no answer.",
                [
                    Query(
                        f"60 * sum by (status) (rate({ours}_api_requests_total{{{chosen}}}[$__rate_interval]))",
                        "{{status}}",
                    )
                ],
                "short",
            ),
            course(
                "How long a poll takes",
                "The slower half and the slowest twentieth, all sources.",
                [
                    Query(
                        f"histogram_quantile({share}, sum by (le) (rate({ours}_poll_duration_seconds_bucket{{{chosen}}}[$__rate_interval])))",
                        name,
                    )
                    for share, name in ((0.5, "half"), (0.95, "19 of 20"))
                ],
                "s",
            ),
            course(
                "Late tokens per hour",
                "Tokens by how long after its bucket ended a token was first seen.",
                [
                    Query(
                        f"3600 * sum by (lag) (rate({ours}_late_tokens_total{{{chosen}}}[$__rate_interval]))",
                        "{{lag}} or more",
                    )
                ],
                "short",
            ),
            course(
                "Series",
                "Live series by instrument.",
                [Query(f'max by (instrument) ({ours}_series{{state="live"}})', "{{instrument}}")],
                "short",
            ),
            course(
                "Failed exports",
                "OTLP exports that did not arrive, per hour. The next one makes them good.",
                [
                    Query(
                        f"3600 * sum by (exporter) (rate({ours}_exports_failed_total[$__rate_interval])) or vector(0)",
                        "{{exporter}}",
                    )
                ],
                "short",
            ),
            course(
                "State on disk",
                "Size of the SQLite file.",
                [Query(f"max({ours}_state_size_bytes)", "state")],
                "bytes",
            ),
        ),
    )


PAGES = {
    "overview": overview,
    "cost": cost,
    "project-and-key": drilldown,
    "customers": customers,
    "exporter-health": health,
}
"""By the name of the file."""
