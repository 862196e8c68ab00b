"""The dashboard of metered responses: which customer used what, and who used the rest."""

from grafana_foundation_sdk.builders import dashboard

from tools.dashboards.parts import Query, course, listing, one, page, ranking, top, variable

CHOSEN = 'organization=~"$organization", subject=~"$subject", model=~"$model"'
TOKENS = f'openai_metered_tokens_total{{{CHOSEN}, token_type=~"input|output"}}'
COST = f"openai_metered_cost_total{{{CHOSEN}}}"
REQUESTS = f"openai_metered_requests_total{{{CHOSEN}}}"
DAY = 'organization=~"$organization", model=~"$model", token_type=~"input|output"'


def customers() -> dashboard.Dashboard:
    """Who uses what, as the applications report it."""
    board = page(
        "openai-customers",
        "OpenAI / Customers",
        "Single responses as your applications report them, by customer (subject). See docs/metering.md.",
    )
    board = board.with_variable(
        variable(
            "subject",
            "Customer",
            'label_values(openai_metered_requests_total{organization=~"$organization"}, subject)',
        )
    )
    board = board.with_variable(
        variable(
            "model",
            "Model",
            'label_values(openai_metered_requests_total{organization=~"$organization"}, model)',
        )
    )
    outcome = "otel_openai_usage_events_total"
    for panel in (
        one(
            "Tokens",
            "Input and output tokens in the time shown.",
            f"sum(increase({TOKENS}[$__range]))",
            "short",
            width=6,
        ),
        one(
            "Responses",
            "Responses in the time shown.",
            f"sum(increase({REQUESTS}[$__range]))",
            "short",
            width=6,
        ),
        one(
            "Customers",
            "Customers with a response in the time shown.",
            f"count(sum by (subject) (increase({REQUESTS}[$__range])) > 0)",
            "short",
            width=6,
        ),
        one(
            "Explained today",
            "Part of the tokens that OpenAI reports for today (UTC) that your applications explain, on average over models.",
            f"avg(openai_metered_coverage{{{DAY}}})",
            "percentunit",
            width=6,
        ),
        course(
            "Cost per hour by customer",
            "The ten customers whose responses cost most, by list price. See docs/showback.md.",
            [Query(top("subject", COST), "{{subject}}")],
            "currencyUSD",
            stacked=True,
        ),
        ranking(
            "Cost by customer",
            "By list price: the ten customers whose responses cost most in the time shown.",
            f"topk(10, sum by (subject, currency) (increase({COST}[$__range])))",
            "{{subject}} {{currency}}",
            "currencyUSD",
        ),
        course(
            "Tokens per hour by customer",
            "The ten customers that used most in the time shown.",
            [Query(top("subject", TOKENS), "{{subject}}")],
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
            "Tokens by customer",
            "The ten customers that used most in the time shown.",
            f"topk(10, sum by (subject) (increase({TOKENS}[$__range])))",
            "{{subject}}",
            "short",
        ),
        ranking(
            "Who used the rest?",
            "Tokens of today (UTC) that OpenAI reports and no event explains, by model. Below 0 while OpenAI lags behind.",
            f"topk(10, sum by (model) (openai_unmetered_tokens{{{DAY}}}))",
            "{{model}}",
            "short",
        ),
        listing(
            "Customers and models",
            "In the time shown.",
            [
                Query(
                    f"sum by (organization, subject, model) (increase({TOKENS}[$__range])) > 0",
                    "tokens",
                ),
                Query(
                    f"sum by (organization, subject, model) (increase({REQUESTS}[$__range])) > 0",
                    "responses",
                ),
            ],
            "short",
        ),
        course(
            "Events per minute",
            "What came in. Duplicates are counted once; of conflicting ones the first stays; refused ones were not stored.",
            [Query(f"60 * sum by (outcome) (rate({outcome}[$__rate_interval]))", "{{outcome}}")],
            "short",
            width=24,
        ),
    ):
        board = board.with_panel(panel)
    return board
