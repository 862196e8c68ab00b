"""The instruments of usage, cost and limits, as table rows."""

from dataclasses import dataclass
from typing import Literal

_COMMON = ("project_id", "project_name")
_LEGACY = ("organization_id", "organization_name", "operation", "snapshot_id")
_KEYED = ("model", "operation", *_COMMON, "user_id", "api_key_id", "api_key_name", "batch")


@dataclass(frozen=True, slots=True)
class Instrument:
    """One instrument.

    `prometheus` is its name in Prometheus. `attributes` are those that it has by default; grouping
    by other dimensions adds theirs. The values are float if `floating`, else int.
    """

    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    prometheus: str
    description: str
    attributes: tuple[str, ...]
    floating: bool = False


INSTRUMENTS: dict[str, Instrument] = {
    item.name: item
    for item in (
        Instrument(
            "openai.api.tokens",
            "counter",
            "{token}",
            "openai_api_tokens_total",
            "Tokens used since counting began, as OpenAI reports them, as of the last poll; "
            "input_* and output_* are parts of them",
            ("organization", *_KEYED, "token_type"),
        ),
        Instrument(
            "openai.api.requests",
            "counter",
            "{request}",
            "openai_api_requests_total",
            "Requests to models since counting began (OpenAI's num_model_requests), as of the"
            " last poll",
            ("organization", *_KEYED),
        ),
        Instrument(
            "openai.api.images",
            "counter",
            "{image}",
            "openai_api_images_total",
            "Images processed since counting began, as of the last poll",
            ("organization", *_KEYED),
        ),
        Instrument(
            "openai.api.characters",
            "counter",
            "{character}",
            "openai_api_characters_total",
            "Characters turned into speech since counting began, as of the last poll",
            ("organization", *_KEYED),
        ),
        Instrument(
            "openai.api.audio",
            "counter",
            "s",
            "openai_api_audio_seconds_total",
            "Seconds of audio transcribed since counting began, as of the last poll",
            ("organization", *_KEYED),
        ),
        Instrument(
            "openai.api.sessions",
            "counter",
            "{session}",
            "openai_api_sessions_total",
            "Code interpreter sessions since counting began, as of the last poll",
            ("organization", "operation", *_COMMON),
        ),
        Instrument(
            "openai.api.searches",
            "counter",
            "{search}",
            "openai_api_searches_total",
            "File and web search calls since counting began, as of the last poll",
            ("organization", *_KEYED),
        ),
        Instrument(
            "openai.api.vector_store.usage",
            "gauge",
            "By",
            "openai_api_vector_store_usage_bytes",
            "Bytes in vector stores, in the newest bucket that OpenAI reports",
            ("organization", *_COMMON),
        ),
        Instrument(
            "openai.api.daily_cost",
            "gauge",
            "{currency}",
            "openai_api_daily_cost",
            "Cost of one UTC day as OpenAI reports it, as of the last poll",
            ("organization", "date", *_COMMON, "line_item", "organization_id", "currency"),
            floating=True,
        ),
        Instrument(
            "openai.api.cost",
            "counter",
            "{currency}",
            "openai_api_cost_total",
            "Cost since counting began as OpenAI reports it, whole UTC days, as of the last poll",
            ("organization", *_COMMON, "line_item", "currency"),
            floating=True,
        ),
        Instrument(
            "openai.api.estimated_cost",
            "counter",
            "{currency}",
            "openai_api_estimated_cost_total",
            "Cost of usage since counting began by list prices, before OpenAI bills it; "
            "compare with openai.api.cost",
            (
                "organization",
                "model",
                "operation",
                *_COMMON,
                "api_key_id",
                "api_key_name",
                "batch",
                "currency",
            ),
            floating=True,
        ),
        Instrument(
            "openai.api.cost_month",
            "gauge",
            "{currency}",
            "openai_api_cost_month",
            "Cost of this UTC month so far: billed, and what the newest days are estimated to cost"
            " beyond their bill; absent while days of the month are still to be read",
            ("organization", *_COMMON, "currency", "part"),
            floating=True,
        ),
        Instrument(
            "openai.api.cost_last_month",
            "gauge",
            "{currency}",
            "openai_api_cost_last_month",
            "Cost of the UTC month before this one, in the same parts; absent while days of it are"
            " still to be read",
            ("organization", *_COMMON, "currency", "part"),
            floating=True,
        ),
        Instrument(
            "openai.api.cost_month_forecast",
            "gauge",
            "{currency}",
            "openai_api_cost_month_forecast",
            "What this UTC month will have cost, of the organization and of each project; with"
            " percentile 90 one of ten such months costs more. Percentiles cannot be added up",
            ("organization", "scope", *_COMMON, "currency", "percentile"),
            floating=True,
        ),
        Instrument(
            "openai.api.budget",
            "gauge",
            "{currency}",
            "openai_api_budget",
            "What the period of a budget may cost; OpenAI's spend limits are budgets, too",
            ("organization", "budget", "currency"),
            floating=True,
        ),
        Instrument(
            "openai.api.budget_spent",
            "gauge",
            "{currency}",
            "openai_api_budget_spent",
            "What the current period of a budget cost so far; absent while days of it are unread",
            ("organization", "budget", "currency", "part"),
            floating=True,
        ),
        Instrument(
            "openai.api.budget_forecast",
            "gauge",
            "{currency}",
            "openai_api_budget_forecast",
            "What the current period of a budget will have cost. Percentiles cannot be added up",
            ("organization", "budget", "currency", "percentile"),
            floating=True,
        ),
        Instrument(
            "openai.api.balance",
            "gauge",
            "{currency}",
            "openai_api_balance",
            "What is left of the prepaid money in `credits`",
            ("organization", "currency"),
            floating=True,
        ),
        Instrument(
            "openai.api.balance_ends",
            "gauge",
            "s",
            "openai_api_balance_ends_seconds",
            "Unix time at which the balance runs out at the rate of the last seven days",
            ("organization", "currency"),
            floating=True,
        ),
        Instrument(
            "openai.api.cost_unusual",
            "gauge",
            "",
            "openai_api_cost_unusual",
            "Today's estimated cost until the last whole hour against what is usual at this hour,"
            " in robust standard deviations",
            ("organization", "scope", *_COMMON, "model"),
            floating=True,
        ),
        Instrument(
            "openai.api.spend_limit",
            "gauge",
            "{currency}",
            "openai_api_spend_limit",
            "Monthly spend limit of the organization, or of a project, in currency units",
            ("organization", *_COMMON, "currency"),
            floating=True,
        ),
        Instrument(
            "openai.api.spend_limit_enforcing",
            "gauge",
            "",
            "openai_api_spend_limit_enforcing",
            "1 while OpenAI enforces the spend limit (requests are refused), else 0",
            ("organization", *_COMMON),
        ),
        Instrument(
            "openai.api.rate_limit",
            "gauge",
            "",
            "openai_api_rate_limit",
            "What a project may ask of a model, by limit, such as tokens_per_minute; "
            "with limits.rates",
            ("organization", *_COMMON, "model", "limit"),
        ),
        Instrument(
            "openai.api.key_created",
            "gauge",
            "s",
            "openai_api_key_created_seconds",
            "Unix time at which the API key was created; with names.keys",
            ("organization", *_COMMON, "api_key_id", "api_key_name"),
            floating=True,
        ),
        Instrument(
            "openai.api.key_last_used",
            "gauge",
            "s",
            "openai_api_key_last_used_seconds",
            "Unix time at which the API key was last used, as OpenAI says; with names.keys",
            ("organization", *_COMMON, "api_key_id", "api_key_name"),
            floating=True,
        ),
        Instrument(
            "openai.api.key_expires",
            "gauge",
            "s",
            "openai_api_key_expires_seconds",
            "Unix time at which the API key expires, if it does; with names.keys",
            ("organization", *_COMMON, "api_key_id", "api_key_name"),
            floating=True,
        ),
        Instrument(
            "openai.metered.tokens",
            "counter",
            "{token}",
            "openai_metered_tokens_total",
            "Tokens of single responses, as applications reported them; input_cached is a "
            "part of input, reasoning of output",
            ("organization", "subject", "model", "type", "token_type", "estimated"),
        ),
        Instrument(
            "openai.metered.requests",
            "counter",
            "{request}",
            "openai_metered_requests_total",
            "Events that applications reported, one for each response",
            ("organization", "subject", "model", "type", "estimated"),
        ),
        Instrument(
            "openai.metered.cost",
            "counter",
            "{currency}",
            "openai_metered_cost_total",
            "Cost of single responses by list prices at their time, as applications reported them",
            ("organization", "subject", "model", "type", "currency"),
            floating=True,
        ),
        Instrument(
            "openai.unmetered.tokens",
            "gauge",
            "{token}",
            "openai_unmetered_tokens",
            "Tokens of the current UTC day that OpenAI reports and no event explains; below 0"
            " while OpenAI lags behind the events",
            ("organization", "model", "token_type"),
        ),
        Instrument(
            "openai.metered.coverage",
            "gauge",
            "",
            "openai_metered_coverage",
            "Part of the current UTC day's tokens that events explain, 1 for all of them",
            ("organization", "model", "token_type"),
            floating=True,
        ),
        Instrument(
            "openai.api.up",
            "gauge",
            "",
            "openai_api_up",
            "1 if the last poll of the source succeeded, else 0",
            ("organization", "source"),
        ),
        Instrument(
            "openai.api.last_success",
            "gauge",
            "s",
            "openai_api_last_success_seconds",
            "Unix time of the last successful poll of the source",
            ("organization", "source"),
            floating=True,
        ),
        Instrument(
            "openai.api.newest_bucket",
            "gauge",
            "s",
            "openai_api_newest_bucket_seconds",
            "Unix time of the end of the newest bucket that held data",
            ("organization", "source"),
            floating=True,
        ),
        Instrument(
            "chatgpt_api_usage.up",
            "gauge",
            "",
            "chatgpt_api_usage_up",
            "1 if the last poll of the legacy usage endpoint succeeded, else 0",
            (),
        ),
        Instrument(
            "chatgpt_api_usage.requests",
            "counter",
            "{request}",
            "chatgpt_api_usage_requests_total",
            "Requests of the current UTC day, as the legacy usage endpoint reports them; "
            "begins at 0 every day",
            _LEGACY,
        ),
        Instrument(
            "chatgpt_api_usage.context_tokens",
            "counter",
            "{token}",
            "chatgpt_api_usage_context_tokens_total",
            "Context tokens of the current UTC day, as the legacy usage endpoint reports "
            "them; begins at 0 every day",
            _LEGACY,
        ),
        Instrument(
            "chatgpt_api_usage.generated_tokens",
            "counter",
            "{token}",
            "chatgpt_api_usage_generated_tokens_total",
            "Generated tokens of the current UTC day, as the legacy usage endpoint reports "
            "them; begins at 0 every day",
            _LEGACY,
        ),
    )
}
"""By OpenTelemetry name."""
