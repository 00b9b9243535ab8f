"""Panels and dashboards in one style, made with Grafana's foundation SDK.

Every query is of a namespace and of the components that are chosen; the log panels take the same choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from grafana_foundation_sdk.builders import common, dashboard, logs, loki, prometheus, stat, timeseries
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    LogsSortOrder,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

P = TypeVar("P", timeseries.Panel, stat.Panel)

OURS = 'namespace=~"$namespace",component=~"$component"'
"""The series of the chosen namespace and components."""
PLACE = 'namespace=~"$namespace"'
"""Those of the chosen namespace, whatever the component."""
LINES = '{namespace=~"$namespace",app="kgents",component=~"$component",level=~"$level"}'
"""The chosen log lines."""

PROMETHEUS = DataSourceRef(type_val="prometheus", uid="prometheus")
LOKI = DataSourceRef(type_val="loki", uid="loki")
"""The data sources of deploy/components/grafana. Each query names its own, as Grafana's API wants it."""
WIDTH = 24  # columns of a dashboard
HEIGHT = 8  # rows of a panel


@dataclass(frozen=True, slots=True)
class Query:
    """A query and what its series are called, as `{{label}}`."""

    expr: str
    legend: str = ""


def _metrics(query: Query, letter: str) -> prometheus.Dataquery:
    made = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter)
    return made.datasource(PROMETHEUS).range()


def _lines(query: Query, letter: str) -> loki.Dataquery:
    made = loki.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter)
    return made.datasource(LOKI).query_type("range")


def _common(panel: P, title: str, says: str, unit: str, queries: Sequence[Query], source: DataSourceRef) -> P:
    made = _metrics if source is PROMETHEUS else _lines
    panel.title(title).description(says).unit(unit).datasource(source)
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        panel.with_target(made(query, letter))
    return panel


def graph(
    title: str,
    *queries: Query,
    says: str,
    unit: str = "short",
    width: int = 8,
    stacked: bool = False,
    line: float | None = None,
    source: DataSourceRef = PROMETHEUS,
) -> timeseries.Panel:
    """Values over time. `says` is what the panel shows and when it is bad, `line` where that begins."""
    panel = _common(timeseries.Panel(), title, says, unit, queries, source).span(width).height(HEIGHT).min(0)
    panel.draw_style(GraphDrawStyle.LINE).fill_opacity(30 if stacked else 8).line_width(1)
    panel.legend(
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if line is not None:
        panel.thresholds(_from(line)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode("dashed")  # type: ignore[arg-type]
        )
    return panel


def number(
    title: str, query: str, *, says: str, unit: str = "short", bad: float | None = None, height: int = 4
) -> stat.Panel:
    """The value now, with how it came about behind it; red from `bad` on."""
    panel = _common(stat.Panel(), title, says, unit, [Query(query)], PROMETHEUS).span(3).height(height)
    panel.graph_mode(BigValueGraphMode.AREA)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    return panel.thresholds(_from(bad)) if bad is not None else panel


def _from(bad: float) -> dashboard.ThresholdsConfig:
    steps = [Threshold(value=None, color="green"), Threshold(value=bad, color="red")]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def log_panel(title: str, expr: str, *, says: str, height: int = 12) -> logs.Panel:
    """Log lines, newest first."""
    panel = logs.Panel().title(title).description(says).datasource(LOKI).span(WIDTH).height(height)
    panel.show_time(True).wrap_log_message(True).prettify_log_message(False).enable_log_details(True)
    return panel.sort_order(LogsSortOrder.DESCENDING).with_target(_lines(Query(expr), "A"))


def row(title: str) -> dashboard.Row:
    """A heading for the panels that follow."""
    return dashboard.Row(title)


def _namespace() -> dashboard.QueryVariable:
    query = "label_values(kgents_build_info, namespace)"
    return (
        dashboard.QueryVariable("namespace")
        .label("Namespace")
        .datasource(PROMETHEUS)
        .query(query)
        .refresh(VariableRefresh.ON_DASHBOARD_LOAD)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )


def _choice(name: str, label: str, values: Sequence[str]) -> dashboard.CustomVariable:
    every = VariableOption(text="All", value="$__all", selected=True)
    return (
        dashboard.CustomVariable(name)
        .label(label)
        .values(",".join(values))
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(every)
    )


def board(
    uid: str, title: str, says: str, content: Sequence[Any], variables: Sequence[Any] = ()
) -> dashboard.Dashboard:
    """A dashboard of rows and panels, with the variables that all have."""
    made = (
        dashboard.Dashboard(title)
        .uid(f"kgents-{uid}")
        .description(says)
        .tags(["kgents"])
        .readonly()
        .timezone("utc")
        .refresh("30s")
        .time("now-3h", "now")
        .tooltip(1)  # type: ignore[arg-type]
        .link(
            dashboard.DashboardLink("kgents")
            .type("dashboards")  # type: ignore[arg-type]
            .tags(["kgents"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
    )
    for variable in (
        _namespace(),
        _choice("component", "Component", ("api", "worker")),
        _choice("level", "Log level", ("debug", "info", "warning", "error", "critical")),
        *variables,
    ):
        made.with_variable(variable)
    for each in content:
        if isinstance(each, dashboard.Row):
            made.with_row(each)
        else:
            made.with_panel(each)
    return made
