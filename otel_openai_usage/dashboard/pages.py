"""The page of a report: tiles, charts, movers, table. Says so where something is not known, not yet
over, or old.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dash import dcc, html

from otel_openai_usage.dashboard import cards, figures, metered, units
from otel_openai_usage.dashboard.controls import attribute, href
from otel_openai_usage.dashboard.figures import Say
from otel_openai_usage.dashboard.freshness import freshness
from otel_openai_usage.dashboard.queries import Entry, Report, Series
from otel_openai_usage.dashboard.view import DAY, GROUPS, PERIODS
from otel_openai_usage.domain.model import utc

ROWS = 15


def body(report: Report, trouble: str | None) -> Sequence[Any]:
    """Everything below the controls."""
    say = cards.money(report)
    colour = figures.colours(
        report.cost_series if report.priced else report.consumed_series, report.request_series
    )
    if report.shows_events and not report.priced:
        shown = [
            metered.consumed(report, colour),
            _tokens(report, "narrow", 300),
            _requests(report, colour, "full"),
        ]
    else:
        shown = [
            _cost(report, colour),
            _month(report, say),
            _tokens(report, "half", 230),
            _requests(report, colour, "half"),
            *_comparison(report, say),
            *([_movers(report)] if report.priced else []),
        ]
    main = html.Main(className="grid", children=[*shown, *metered.rest(report), _table(report)])
    return [*freshness(report.data, trouble), _tiles(report), main, _footer(report)]


def empty(title: str, text: Sequence[Any]) -> Any:
    """A page with nothing to show yet, and what to do."""
    return html.Main(className="empty", children=[html.H2(title), *text])


# --- tiles


def _tiles(report: Report) -> Any:
    data = report.data
    forecast = report.forecast
    say = cards.money(report)
    counted = report.counted
    tokens = counted("input") + counted("output")
    tiles = []
    if report.priced:
        kind = "" if report.basis == "billed" else ", estimated"
        tiles = [
            _tile(
                "cost",
                f"Cost{kind}, {_period(report)}",
                report.cost,
                say,
                _versus(report, report.cost_change, good=False),
            ),
            _tile(
                "month",
                f"{utc(report.today):%B} so far{kind}",
                forecast.spent,
                say,
                _budget(report),
            ),
            _tile(
                "forecast",
                f"Forecast for {utc(report.today):%B}",
                forecast.total,
                say,
                f"at {say(forecast.rate)} a day"
                if forecast.rate is not None
                else "too few days to tell",
            ),
        ]
    asked = report.counted_change("requests")
    consumed = report.counted_change("input", "output")
    of = ("Metered requests", "Metered tokens") if report.shows_events else ("Requests", "Tokens")
    tiles += [
        _tile(
            "requests",
            f"{of[0]}, {_period(report)}",
            counted("requests"),
            units.count,
            _versus(report, asked),
        ),
        _tile(
            "tokens", f"{of[1]}, {_period(report)}", tokens, units.count, _versus(report, consumed)
        ),
    ]
    savings = report.savings
    if savings.share is not None:
        cached = f"{units.percent(savings.share)} of input was cached"
        tiles.append(
            _tile("savings", "Saved by caching", savings.money, say, cached)
            if savings.money is not None
            else _tile("savings", "Cached input", counted("input_cached"), units.count, cached)
        )
    return html.Div(
        className="tiles", **attribute("data-organization", data.organization), children=tiles
    )


def _period(report: Report) -> str:
    name = PERIODS.get(report.view.period)
    return name[0].lower() + name[1:] if name else report.asked.brief


def _tile(name: str, title: str, value: float | None, say: Say, below: Any) -> Any:
    exact = "" if value is None else repr(round(float(value), 6))
    return html.Div(
        className="tile",
        id=f"tile-{name}",
        **attribute("data-value", exact),
        children=[
            html.H3(title),
            html.Div(units.NONE if value is None else say(value), className="value", title=exact),
            html.Div(below, className="below"),
        ],
    )


def _versus(report: Report, change: float | None, *, good: bool | None = None) -> Any:
    if change is None or report.compared is None:
        return "no earlier period to compare"
    word = "flat" if abs(change) < 0.0005 else "up" if change > 0 else "down"
    tone = (
        ""
        if good is None or word == "flat"
        else " worse"
        if (change > 0) is not good
        else " better"
    )
    after, before = report.compared
    title = f"{after.text}, compared with {before.text}"
    return html.Span(
        title=title,
        children=[
            html.B(units.percent(change, signed=True), className=f"change{tone}"),
            f" vs {before.brief}",
        ],
    )


def _budget(report: Report) -> Any:
    forecast = report.forecast
    if forecast.limit is None:
        return (
            "no spend limit is set"
            if not report.view.filters
            else "the budget is not by this filter"
        )
    share = forecast.spent / forecast.limit if forecast.limit else 1.0
    filled = html.Span(
        style={"width": f"{min(share, 1) * 100:.1f}%"}, className="over" if share >= 1 else ""
    )
    return [
        html.Span(className="meter", children=filled),
        html.Span(f"{units.percent(share)} of {units.brief(forecast.limit, report.data.currency)}"),
    ]


# --- charts


def _cost(report: Report, colour: Mapping[str, str]) -> Any:
    by = cards.by(report)
    say = cards.money(report)
    if not report.priced:
        text = f"OpenAI's bill is not known by {by} here, and nothing is priced yet. docs/dashboard.md tells how to have either."
        return cards.nothing("Cost", text, size="wide", name="cost")
    series = report.cost_series
    note = _cost_note(report, by)
    if not series:
        return cards.nothing(
            "Cost", "Nothing cost anything in this period.", size="wide", note=note, name="cost"
        )
    title = f"Cost by {by}"
    graph = cards.graph(
        figures.stacked(report, series, colour, figures.brief(report.data.currency), title),
        "cost",
        300,
    )
    return cards.card(
        title,
        [graph, cards.legend(report, series, colour, say, links=True)],
        size="wide",
        note=note,
        name="cost",
    )


def _cost_note(report: Report, by: str) -> str:
    width = "per week" if report.weekly else "per day"
    if report.basis == "billed":
        until = report.data.billed_until
        late = (
            " Today is not over, and OpenAI bills some hours later."
            if report.span.live and until and until > report.today
            else ""
        )
        return f"As billed, {width}.{late}"
    why = "" if report.billable else f" OpenAI's bill is not read by {by}."
    tokens, models = report.unpriced
    low = (
        f" {units.count(tokens)} tokens have no known price and are missing: {_some(models)}."
        if tokens
        else ""
    )
    return f"Estimated from list prices, {width}.{why}{low}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _tokens(report: Report, size: str, height: int) -> Any:
    series = [one for one in report.token_series if one.total]
    if not series:
        return cards.nothing(
            "Tokens", "No tokens were used in this period.", size=size, name="tokens"
        )
    graph = cards.graph(
        figures.stacked(report, series, figures.TOKENS, units.count, "Tokens"), "tokens", height
    )
    legend = cards.legend(report, series, figures.TOKENS, units.count, links=False)
    return cards.card("Tokens", [graph, legend], size=size, note=cards.every(report), name="tokens")


def _requests(report: Report, colour: Mapping[str, str], size: str) -> Any:
    series = report.request_series
    if not series:
        return cards.nothing(
            "Requests", "No requests were made in this period.", size=size, name="requests"
        )
    title = f"Requests by {cards.by(report)}"
    graph = cards.graph(
        figures.stacked(report, series, colour, units.count, title), "requests", 230
    )
    legend = cards.legend(report, series, colour, units.count, links=True)
    return cards.card(title, [graph, legend], size=size, note=cards.every(report), name="requests")


def _comparison(report: Report, say: Say) -> Sequence[Any]:
    both = report.billed_and_estimated
    if both is None:
        return []
    if not any(values.any() for values in both):
        text = "Nothing was billed or estimated in this period."
        return [cards.nothing("Billed and estimated", text, size="half", name="comparison")]
    settled = report.difference
    text = "No day of this period is billed and priced yet."
    if settled is not None:
        billed, estimated = settled
        share = estimated / billed - 1
        word = (
            "meets the bill"
            if abs(share) < 0.0005
            else f"is {units.percent(abs(share))} {'above' if share > 0 else 'below'} the bill"
        )
        text = f"Over the days that are settled the estimate {word}."
    legend = [Series("b", "Billed", both[0]), Series("e", "Estimated", both[1])]
    shades = {"Billed": figures.BILLED, "Estimated": figures.ESTIMATED}
    figure = figures.billed_and_estimated(
        report, both, figures.brief(report.data.currency), "Billed and estimated"
    )
    body = [
        cards.graph(figure, "comparison", 230),
        cards.legend(report, legend, shades, say, links=False),
    ]
    return [cards.card("Billed and estimated", body, size="half", note=text, name="comparison")]


def _month(report: Report, say: Say) -> Any:
    title = f"{utc(report.today):%B}"
    if not report.priced:
        return cards.nothing(title, "No cost is known.", size="narrow", name="month-chart")
    forecast = report.forecast
    facts = [
        ("So far", say(forecast.spent)),
        ("Forecast", units.money(forecast.total, report.data.currency)),
    ]
    if forecast.limit is not None:
        facts.append(
            ("Budget", units.brief(forecast.limit, report.data.currency).removesuffix(".00"))
        )
        facts.append(("Budget reached", _reached(report)))
    lines = html.Dl(
        className="facts",
        children=[part for name, value in facts for part in (html.Dt(name), html.Dd(value))],
    )
    known = (
        "with its forecast"
        if forecast.total is not None
        else "too few days cost anything for a forecast"
    )
    graph = cards.graph(
        figures.month(report, figures.brief(report.data.currency), f"Cost in {title}"), "month", 216
    )
    return cards.card(
        title,
        [graph, lines],
        size="narrow",
        note=f"Added up day by day, {known}.",
        name="month-chart",
    )


def _reached(report: Report) -> str:
    reached = report.forecast.reached
    if reached is None:
        return "not this month" if report.forecast.rate is not None else units.NONE
    return f"on {units.day(reached)}" if reached >= report.today else f"since {units.day(reached)}"


# --- movers and table


def _movers(report: Report) -> Any:
    size = "half" if report.billed_and_estimated is not None else "full"
    if report.compared is None:
        return cards.nothing(
            "Top movers", "No earlier period to compare with yet.", size=size, name="movers"
        )
    after, before = report.compared
    note = f"{after.text}, against {before.text}."
    if not report.movers:
        return cards.nothing("Top movers", "Nothing changed.", size=size, note=note, name="movers")
    most = max(abs(entry.change or 0.0) for entry in report.movers)
    movers = html.Ul(
        className="movers", children=[_mover(report, entry, most) for entry in report.movers]
    )
    return cards.card("Top movers", [movers], size=size, note=note, name="movers")


def _mover(report: Report, entry: Entry, most: float) -> Any:
    change = entry.change or 0.0
    money = report.data.currency
    share = change / entry.before if entry.before else None
    direction = "rise" if change > 0 else "fall"
    return html.Li(
        [
            html.Span(entry.label, className="name", title=entry.label),
            html.Span(
                className="track",
                children=html.Span(
                    className=direction, style={"width": f"{abs(change) / most * 50:.1f}%"}
                ),
            ),
            html.Span(units.change(change, money), className="amount"),
            html.Span(
                "new"
                if not entry.before
                else "gone"
                if not entry.after
                else units.percent(share, signed=True),
                className="share",
            ),
        ]
    )


_HEADS = {
    "name": "",
    "cost": "Cost",
    "change": "Change",
    "estimated": "Estimated",
    "requests": "Requests",
    "input": "Input tokens",
    "cached": "Cached",
    "output": "Output tokens",
}


def _table(report: Report) -> Any:
    columns = [name for name in _HEADS if _shown(report, name)]
    entries = report.entries if report.view.rows == "all" else report.entries[:ROWS]
    title = f"By {cards.by(report)}"
    head = html.Tr([_head(report, name) for name in columns])
    body = [html.Tr([_cell(report, entry, name) for name in columns]) for entry in entries]
    more: list[Any] = []
    if len(report.entries) > ROWS:
        text, view = (
            (f"Show all {len(report.entries)}", report.view.but(rows="all"))
            if report.view.rows != "all"
            else (f"Show the first {ROWS}", report.view.but(rows=""))
        )
        more = [dcc.Link(text, href=href(view), className="more")]
    csv = html.A(
        "Download CSV", href="./table.csv" + report.view.query, className="button", id="csv"
    )
    header = html.Header(
        [html.Div([html.H2(title), html.P(report.asked.text, className="note")]), csv],
        className="split",
    )
    nothing = [] if body else [html.P("Nothing was used in this period.", className="nothing")]
    table = html.Div(
        [html.Table([html.Thead(head), html.Tbody(body)]), *nothing], className="scroll"
    )
    return html.Section(className="card full", id="table", children=[header, table, *more])


def _shown(report: Report, name: str) -> bool:
    if name == "estimated":
        return report.estimated and report.basis == "billed"
    return (
        report.priced
        if name == "cost"
        else report.priced and report.compared is not None
        if name == "change"
        else True
    )


def _head(report: Report, name: str) -> Any:
    sort = report.sort
    turned = sort.removeprefix("-") == name
    wanted = (
        name
        if turned and sort.startswith("-")
        else f"-{name}"
        if turned or name != "name"
        else name
    )
    arrow = (" ↓" if sort.startswith("-") else " ↑") if turned else ""
    title = _HEADS[name] or GROUPS[report.view.by]
    link = dcc.Link(title + arrow, href=href(report.view.but(sort=wanted)))
    state = attribute(
        "aria-sort", ("descending" if sort.startswith("-") else "ascending") if turned else "none"
    )
    return html.Th(link, className="name" if name == "name" else "", **state)


def _cell(report: Report, entry: Entry, name: str) -> Any:
    money = report.data.currency
    if name == "name":
        label = entry.label
        link = (
            dcc.Link(label, href=href(report.view.but(**{report.view.by: (entry.id,)})))
            if entry.id is not None
            else label
        )
        return html.Td(link, className="name", title=entry.id or "")
    value = getattr(entry, name)
    if name in {"cost", "estimated"}:
        return html.Td(units.exact(value, money), **attribute("data-value", _exact(value)))
    if name == "change":
        tone = "" if abs(value or 0.0) < 0.005 else "worse" if value > 0 else "better"
        return html.Td(
            units.change(value, money) if tone else units.NONE,
            className=tone,
            **attribute("data-value", _exact(value)),
        )
    return html.Td(f"{value:,}" if value else units.NONE, **attribute("data-value", str(value)))


def _exact(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _footer(report: Report) -> Any:
    other = [currency for currency in report.data.currencies if currency != report.data.currency]
    parts = ["Days are UTC."]
    if report.priced and report.view.by == "model" and report.basis == "billed":
        parts.append(
            "Cost by model is read from the words of OpenAI's line items; charges without a model stand under their own name."
        )
    if other:
        parts.append(f"Bills in {', '.join(each.upper() for each in other)} are not shown.")
    if report.data.only_metered:
        parts.append(
            "Requests and tokens are what applications told; OpenAI's own count is not read."
        )
    if report.data.legacy:
        parts.append("Usage is from OpenAI's undocumented legacy endpoint.")
    if report.data.first is not None and report.data.first > report.asked.start:
        parts.append(
            f"The store begins on {units.day(report.data.first)} {utc(report.data.first):%Y}."
        )
    return html.Footer(
        " ".join(parts),
        **attribute("data-days", str((report.asked.end - report.asked.start) // DAY)),
    )
