"""Pictures of a load: as PNG, and in the terminal."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from kgents.errors import Unprocessable
from kgents.load.simulation import Moment

BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN = "_.-=+*%#"


def write_png(
    path: Path, moments: Sequence[Moment], *, target: int, title: str, seen: Sequence[tuple[float, int]] = ()
) -> None:
    """Replicas, utilization and latency over time, above each other; and the replicas that were `seen` (second, number)
    where it really ran. Raises Unprocessable without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise Unprocessable(
            "A picture needs matplotlib. Install it with `pip install 'kgents[plots]'`, or leave --png out.",
            code="no-matplotlib",
        ) from None
    seconds = [moment.second for moment in moments]
    figure = Figure(figsize=(10, 9), layout="constrained")
    rate, pods, busy, wait = figure.subplots(4, 1, sharex=True)
    figure.suptitle(title)
    rate.plot(seconds, [moment.rate for moment in moments], color="tab:blue")
    rate.set_ylabel("requests/s")
    pods.step(seconds, [moment.replicas for moment in moments], where="post", color="tab:green", label="replicas")
    pods.step(seconds, [moment.ready for moment in moments], where="post", color="tab:olive", ls=":", label="ready")
    if seen:
        at, replicas = zip(*seen, strict=True)
        pods.step(at, replicas, where="post", color="tab:purple", label="replicas seen")
    pods.set_ylabel("pods")
    pods.legend(loc="upper right")
    busy.plot(seconds, [moment.utilization for moment in moments], color="tab:orange")
    busy.axhline(target, color="gray", ls="--", lw=1)
    busy.set_ylabel("CPU, % of request")
    wait.plot(seconds, [1000 * moment.latency for moment in moments], color="tab:red")
    wait.set_ylabel("latency, ms")
    if max(moment.latency for moment in moments) > 10 * min(moment.latency for moment in moments):
        wait.set_yscale("log")
    wait.set_xlabel("seconds")
    for axes in (rate, pods, busy, wait):
        axes.grid(alpha=0.3)
        if axes.get_yscale() == "linear":
            axes.set_ylim(bottom=0)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def lines(moments: Sequence[Moment], width: int, *, unicode: bool) -> list[str]:
    """A line for each figure, with a column for each stretch of time: its greatest value, from 0 to the most of all."""
    figures = {
        "requests/s": [moment.rate for moment in moments],
        "replicas": [float(moment.replicas) for moment in moments],
        "CPU %": [moment.utilization for moment in moments],
        "latency ms": [1000 * moment.latency for moment in moments],
    }
    columns = max(1, min(width - 26, len(moments)))
    return [
        f"{name:<11} {_bars(values, columns, unicode=unicode)} to {max(values):,.0f}"
        for name, values in figures.items()
    ]


def _bars(values: Sequence[float], columns: int, *, unicode: bool) -> str:
    marks = BLOCKS if unicode else PLAIN
    most = max(values) or 1.0
    bounds = [round(number * len(values) / columns) for number in range(columns + 1)]
    tallest = [max(values[start:end]) for start, end in itertools.pairwise(bounds)]
    return "".join(marks[min(len(marks) - 1, int(value / most * len(marks)))] for value in tallest)
