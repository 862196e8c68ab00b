"""What the dashboards are put together from: panels, variables, selectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Unit: TypeAlias = Literal[
    "currencyUSD", "short", "percentunit", "s", "bytes", "none", "dateTimeFromNow", "reqps"
]
Panel: TypeAlias = stat.Panel | timeseries.Panel | bargauge.Panel | table.Panel

SOURCE = model.DataSourceRef(type_val="prometheus", uid="$datasource")
NOTHING = "no data yet"
COSTS = 'organization=~"$organization", project_name=~"$project"'
"""Selects what the variables say; costs without a project have no project_name, which `All` (.*)
matches.
"""
BOTH = f'{COSTS}, token_type=~"input|output"'
"""`input` and `output` are the totals; the other types are parts of them."""


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL and how its series are called."""

    expr: str
    legend: str = ""
    instant: bool = False


def _targets(queries: Sequence[Query], *, table: bool = False) -> list[Builder[variants.Dataquery]]:
    targets: list[Builder[variants.Dataquery]] = []
    for place, query in enumerate(queries):
        target = (
            prometheus.Dataquery().expr(query.expr).ref_id("ABCDEFGH"[place]).datasource(SOURCE)
        )
        target = target.legend_format(query.legend) if query.legend else target
        target = target.instant() if query.instant or table else target.range()
        targets.append(target.format(PromQueryFormat.TABLE) if table else target)
    return targets


def one(
    title: str,
    says: str,
    expr: str,
    unit: Unit,
    *,
    warn: float | None = None,
    bad: float | None = None,
    width: int = 4,
) -> stat.Panel:
    """One number, orange from `warn` and red from `bad`."""
    steps = [model.Threshold(value=None, color="text")]
    steps += [model.Threshold(value=warn, color="orange")] if warn is not None else []
    steps += [model.Threshold(value=bad, color="red")] if bad is not None else []
    return (
        stat.Panel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit(unit)
        .no_value(NOTHING)
        .height(4)
        .span(width)
        .thresholds(dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))
        .graph_mode(looks.BigValueGraphMode.NONE)
        .color_mode(looks.BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .targets(_targets([Query(expr, instant=True)]))
    )


def course(
    title: str,
    says: str,
    queries: Sequence[Query],
    unit: Unit,
    *,
    stacked: bool = False,
    width: int = 12,
) -> timeseries.Panel:
    """Lines over time; stacked where they add up to something."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit(unit)
        .no_value(NOTHING)
        .height(8)
        .span(width)
        .min(0)
        .fill_opacity(40 if stacked else 0)
        .line_width(1)
        .show_points(looks.VisibilityMode.AUTO)
        .legend(
            common.VizLegendOptions()
            .display_mode(looks.LegendDisplayMode.TABLE)
            .placement(looks.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(looks.TooltipDisplayMode.MULTI)
            .sort(looks.SortOrder.DESCENDING)
        )
        .targets(_targets(queries))
    )
    return (
        panel.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL))
        if stacked
        else panel
    )


def ranking(
    title: str, says: str, expr: str, legend: str, unit: Unit, *, width: int = 12
) -> bargauge.Panel:
    """The largest of many, as bars."""
    return (
        bargauge.Panel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit(unit)
        .no_value(NOTHING)
        .height(8)
        .span(width)
        .min(0)
        .orientation(looks.VizOrientation.HORIZONTAL)
        .display_mode(looks.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .targets(_targets([Query(f"sort_desc({expr})", legend, instant=True)]))
    )


def listing(
    title: str, says: str, queries: Sequence[Query], unit: Unit, *, width: int = 24
) -> table.Panel:
    """A table: labels, and a column for each query."""
    renamed: dict[str, object] = {
        f"Value #{'ABCDEFGH'[place]}": query.legend for place, query in enumerate(queries)
    }
    renamed |= {"Value": queries[0].legend} if len(queries) == 1 else {}
    hidden: dict[str, object] = {"Time": True, "__name__": True, "scope": True}
    return (
        table.Panel()
        .title(title)
        .description(says)
        .datasource(SOURCE)
        .unit(unit)
        .no_value(NOTHING)
        .height(9)
        .span(width)
        .targets(_targets(queries, table=True))
        .with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            model.DataTransformerConfig(
                id_val="organize", options={"excludeByName": hidden, "renameByName": renamed}
            )
        )
    )


def top(by: str, counter: str, limit: int = 10) -> str:
    """The rate of a counter per hour, of those `limit` that used most in the time shown. The others
    are left out.
    """
    return (
        f"3600 * sum by ({by}) (rate({counter}[$__rate_interval])) "
        f"and on ({by}) topk({limit}, sum by ({by}) (increase({counter}[$__range] @ end())))"
    )


def variable(name: str, label: str, query: str) -> dashboard.QueryVariable:
    """A choice of several, at first all of them; also of what has no such label."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .query(query)
        .datasource(SOURCE)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(model.VariableOption(selected=True, text="All", value="$__all"))
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )


def page(uid: str, title: str, says: str, *, since: str = "now-24h") -> dashboard.Dashboard:
    """An empty dashboard with the variables that all have."""
    link = (
        dashboard.DashboardLink("OpenAI")
        .type(model.DashboardLinkType.DASHBOARDS)
        .tags(["openai"])
        .as_dropdown(True)
    )
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(says)
        .tags(["openai"])
        .timezone("utc")
        .time(since, "now")
        .refresh("1m")
        .readonly()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(link.include_vars(True).keep_time(True))
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
        .with_variable(
            variable("organization", "Organization", "label_values(openai_api_up, organization)")
        )
    )


def project_variable() -> dashboard.QueryVariable:
    """Projects that used or cost something."""
    return variable(
        "project",
        "Project",
        'label_values({__name__=~"openai_api_(tokens|cost)_total", organization=~"$organization"}, project_name)',
    )
