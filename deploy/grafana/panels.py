"""What all dashboards share: panels in a few words, and the variables that their queries use."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import common, stat, table, timeseries
from grafana_foundation_sdk.builders.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
    ThresholdsConfig,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphGradientMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

PROMETHEUS = DataSourceRef(type_val="prometheus", uid="$datasource")
TAG = "flywheel"
Query = tuple[str, str]
"""A PromQL expression and the legend of its series, with {{label}}."""


def dashboard(name: str, title: str, description: str, *, tasks: str = "", topics: bool = False) -> Dashboard:
    """An empty dashboard. `tasks`: "all" lets its readers choose among all tasks, "one" lets them choose one."""
    made = (
        Dashboard(title)
        .uid(f"flywheel-{name}")
        .description(description)
        .tags([TAG])
        .refresh("30s")
        .time("now-3h", "now")
        .timezone("browser")
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .link(
            DashboardLink("Flywheel").type(DashboardLinkType.DASHBOARDS).tags([TAG]).as_dropdown(True)
            .include_vars(True).keep_time(True)
        )
        .annotation(
            AnnotationQuery().name("releases").datasource(PROMETHEUS).enable(True).icon_color("blue")
            .expr('sum by (task, step) (increase(flywheel_moves_total[1m])) > 0')
        )
    )  # fmt: skip
    if tasks:
        made.with_variable(_choice("task", "label_values(flywheel_release_fraction, task)", several=tasks == "all"))
    if topics:
        made.with_variable(_choice("topic", "label_values(flywheel_opinion_alert_active, topic)", several=True))
    return made


def _choice(name: str, query: str, *, several: bool) -> QueryVariable:
    made = (
        QueryVariable(name).label(name).datasource(PROMETHEUS).query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC).multi(several)
    )  # fmt: skip
    return made.include_all(True).all_value(".*") if several else made


def row(title: str) -> Row:
    return Row(title)


def graph(
    title: str, description: str, *queries: Query, unit: str = "short", width: int = 8,
    stacked: bool = False, maximum: float | None = None, limit: float | None = None,
) -> Any:  # fmt: skip
    """Lines over time, from 0; `limit` draws a line above which things are bad. `unit` is one of Grafana's."""
    panel = (
        timeseries.Panel().title(title).description(description).datasource(PROMETHEUS).unit(unit).min(0)
        .span(width).height(8).line_width(1).fill_opacity(30 if stacked else 8)
        .gradient_mode(GraphGradientMode.NONE)
        .legend(common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
                .show_legend(True))
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )  # fmt: skip
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if maximum is not None:
        panel.max(maximum)
    if limit is not None:
        panel.thresholds(_limits((None, "green"), (limit, "red")))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.LINE))
    for ref_id, (expression, legend) in zip(string.ascii_uppercase, queries, strict=False):
        panel.with_target(Dataquery().ref_id(ref_id).expr(expression).legend_format(legend).range())
    return panel


def number(
    title: str, description: str, expression: str, *, unit: str = "short", width: int = 4,
    steps: Sequence[tuple[float | None, str]] = ((None, "blue"),), decimals: int | None = None,
) -> Any:  # fmt: skip
    """A number, large, with its course behind; `steps` are colours and the values from which they are used."""
    panel = (
        stat.Panel().title(title).description(description).datasource(PROMETHEUS).unit(unit).span(width).height(4)
        .color_mode(BigValueColorMode.VALUE).graph_mode(BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"])).thresholds(_limits(*steps))
        .with_target(Dataquery().ref_id("A").expr(expression).legend_format("__auto").range())
    )  # fmt: skip
    if decimals is not None:
        panel.decimals(decimals)
    return panel


def rows_of(title: str, description: str, expression: str, *, width: int = 24, height: int = 6) -> Any:
    """A table of the series that the expression has now, a row each."""
    return (
        table.Panel().title(title).description(description).datasource(PROMETHEUS).span(width).height(height)
        .with_target(Dataquery().ref_id("A").expr(expression).instant().format(PromQueryFormat.TABLE))
    )  # fmt: skip


def quantiles(histogram: str, selector: str, by: str, legend: str, *shares: float) -> list[Query]:
    """The quantiles of a histogram by labels, such as `task, version`; `shares` are of 1."""
    return [
        (
            f"histogram_quantile({share}, sum by (le, {by}) "
            f"(rate({histogram}_bucket{{{selector}}}[$__rate_interval])))",
            f"p{share * 100:g} {legend}",
        )
        for share in shares
    ]


def _limits(*steps: tuple[float | None, str]) -> ThresholdsConfig:
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps([Threshold(value, color) for value, color in steps])
