"""The dashboards as pictures of what a Prometheus answers: to look at what the queries give, without a Grafana."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monitoring.queries import boards, of_panel

POINTS = 240
UNIT = 0.42  # inches of a dashboard's row


def write(folder: Path, prometheus: str, namespace: str, seconds: float) -> None:
    """Write a PNG for each dashboard, of the last `seconds`. What is Loki's is left empty, and says so."""
    with httpx2.Client(base_url=prometheus, trust_env=False, timeout=30) as client:
        source = _Source(client, namespace, seconds)
        for name, content in boards().items():
            _picture(content, name, source).savefig(folder / f"{name}.png", dpi=80, metadata={"Software": None})


class Series(NamedTuple):
    """What a series is called, when (minutes ago, negative), and its values."""

    name: str
    minutes: list[float]
    values: list[float]


class _Source:
    def __init__(self, client: httpx2.Client, namespace: str, seconds: float) -> None:
        self._client = client
        self._namespace = namespace
        self._end = time.time()
        self._start = self._end - seconds
        self._step = max(1, round(seconds / POINTS))

    def series(self, board: str, panel: dict[str, Any]) -> list[Series]:
        """The series of a panel."""
        found = []
        for query in of_panel(board, panel):
            asked = {
                "query": query.filled(self._namespace, f"{max(10, 4 * self._step)}s"),
                "start": self._start,
                "end": self._end,
                "step": self._step,
            }
            answer = self._client.post("/api/v1/query_range", data=asked).json()
            if answer["status"] != "success":
                raise ValueError(f"{query.board}, {query.panel}: {answer['error']}")
            for each in answer["data"]["result"]:
                minutes = [(float(moment) - self._end) / 60 for moment, _ in each["values"]]
                values = [float(value) for _, value in each["values"]]
                found.append(Series(_named(query.legend, each["metric"]), minutes, values))
        return found


def _named(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda label: labels.get(label[1], ""), legend)


def _picture(content: dict[str, Any], name: str, source: _Source) -> Figure:
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in content["panels"])
    figure = Figure(figsize=(20, UNIT * rows + 0.6))
    figure.suptitle(content["title"], x=0.02, ha="left", weight="bold")
    for panel in content["panels"]:
        at = panel["gridPos"]
        left, bottom = at["x"] / 24, 1 - (at["y"] + at["h"]) / rows
        if panel["type"] == "row":
            figure.text(left + 0.01, 0.97 * (bottom + 0.3 / rows), panel["title"], weight="bold", color="tab:blue")
            continue
        box = (left + 0.025, 0.97 * (bottom + 0.9 / rows), at["w"] / 24 - 0.04, 0.97 * (at["h"] - 2.2) / rows)
        axes = figure.add_axes(box)
        axes.set_title(panel["title"], fontsize=9, loc="left")
        if panel["datasource"]["type"] == "loki":
            axes.text(0.5, 0.5, "from Loki", ha="center", va="center", color="gray")
            axes.set_axis_off()
        else:
            _plot(axes, panel, source.series(name, panel))
    return figure


def _plot(axes: Axes, panel: dict[str, Any], series: list[Series]) -> None:
    axes.tick_params(labelsize=6)
    axes.grid(alpha=0.3)
    if not series:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", color="tab:red", transform=axes.transAxes)
        return
    for each in series:
        axes.plot(each.minutes, each.values, lw=1, label=each.name or None)
    axes.set_ylim(bottom=0)
    if panel["type"] == "stat":
        last = series[0].values[-1]
        shown = "NaN" if math.isnan(last) else f"{last:.4g}"
        axes.text(0.5, 0.5, shown, ha="center", va="center", size=16, weight="bold", transform=axes.transAxes)
        axes.set_xticks([])
    else:
        axes.legend(fontsize=6, ncols=4, loc="upper left", framealpha=0.5)
