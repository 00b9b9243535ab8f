"""The picture of a load test, and of a capacity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kgents.load.usl import Law

DPI = 110
BESIDE: Mapping[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}


def draw(document: Mapping[str, Any], path: Path) -> bool:
    """Draw a load test into a PNG; False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(10, 8), layout="constrained")
    profile, target = document["profile"], document["target"]
    valid = "" if document["valid"] else " - NOT VALID"
    figure.suptitle(f"{profile['name']}: {document['began']}, commit {target['commit']}{valid}")
    if profile["searches"]:
        _by_rate(figure, sorted(document["steps"], key=lambda step: float(step["offered"])), target["p99_ms"])
    else:
        _over_time(figure, document["steps"], target["p99_ms"])
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return True


def _over_time(figure: Any, steps: Sequence[Mapping[str, Any]], target_ms: float) -> None:
    rate, wait, errors = figure.subplots(3, 1, sharex=True, height_ratios=[2, 3, 1])
    start, points = 0.0, []
    for step in steps:
        points += [{**point, "second": start + point["second"]} for point in step["timeline"]]
        start += step["seconds"]
    seconds = [point["second"] for point in points]
    rate.step(seconds, [point["arrivals"] for point in points], where="post", color="gray", label="arrivals/s")
    rate.step(seconds, [point["answers"] for point in points], where="post", color="tab:blue", label="answers/s")
    wait.plot(seconds, [point.get("p50") for point in points], color="tab:green", label="p50")
    wait.plot(seconds, [point.get("p99") for point in points], color="tab:red", label="p99")
    wait.axhline(target_ms, color="gray", ls="--", lw=1, label="target")
    wait.set_yscale("log")
    wait.set_ylabel("ms, from the intended start")
    errors.bar(seconds, [point["errors"] for point in points], color="tab:red", width=1.0)
    errors.set_ylabel("errors")
    errors.set_xlabel("seconds")
    rate.set_ylim(bottom=0)
    errors.set_ylim(bottom=0, top=max(1, *(point["errors"] for point in points)))
    for axes in (rate, wait):
        axes.legend(**BESIDE)
    for axes in (rate, wait, errors):
        axes.grid(alpha=0.3)


def _by_rate(figure: Any, steps: Sequence[Mapping[str, Any]], target_ms: float) -> None:
    rate, wait, cores = figure.subplots(3, 1, sharex=True)
    offered = [step["offered"] for step in steps]
    rate.plot(offered, offered, color="gray", ls="--", lw=1, label="offered/s")
    rate.plot(offered, [step["achieved"] for step in steps], color="tab:blue", marker="o", label="answered/s")
    wait.plot(offered, [step["latency_ms"].get("p50") for step in steps], color="tab:green", marker="o", label="p50")
    wait.plot(offered, [step["latency_ms"].get("p99") for step in steps], color="tab:red", marker="o", label="p99")
    first = [step["first_token_ms"].get("p99") for step in steps]
    if any(value is not None for value in first):
        wait.plot(offered, first, color="tab:orange", marker="o", label="first token p99")
    wait.axhline(target_ms, color="gray", ls="--", lw=1, label="target")
    wait.set_yscale("log")
    wait.set_ylabel("ms, from the intended start")
    for name in sorted({name for step in steps for name in step["processes"]}):
        cores.plot(offered, [step["processes"].get(name, {}).get("cores") for step in steps], marker="o", label=name)
    used = [step["generator"]["vegeta_cores"] + step["generator"]["driver_cores"] for step in steps]
    cores.plot(offered, used, marker="x", ls=":", label="load")
    cores.set_ylabel("cores")
    cores.set_xlabel("requests/s offered")
    met = [step["offered"] for step in steps if step["met"]]
    for axes in (rate, wait, cores):
        if met:
            axes.axvline(max(met), color="tab:purple", ls=":", lw=1)
        axes.grid(alpha=0.3)
        axes.legend(**BESIDE)


def draw_capacity(document: Mapping[str, Any], path: Path) -> bool:
    """Draw the throughput by the number at once, with the law that was fitted, into a PNG; False without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    law = Law(**document["usl"]["law"])
    points = document["points"]
    sizes = [point["size"] for point in points]
    figure = Figure(figsize=(10, 6), layout="constrained")
    figure.suptitle(f"capacity: {document['began']}, commit {document['target']['commit']}")
    rate, wait = figure.subplots(2, 1, sharex=True)
    rate.plot(sizes, [point["rate"] for point in points], color="tab:blue", ls="", marker="o", label="measured")
    curve = [max(sizes) ** (number / 100) for number in range(101)]
    rate.plot(curve, [law.at(size) for size in curve], color="tab:orange", label="the law")
    rate.set_ylabel("answers/s")
    rate.set_ylim(bottom=0)
    for name, color in (("p50", "tab:green"), ("p99", "tab:red")):
        wait.plot(sizes, [point["latency_ms"][name] for point in points], color=color, ls="", marker="o", label=name)
    wait.set_ylabel("ms")
    wait.set_yscale("log")
    wait.set_xscale("log", base=2)
    wait.set_xlabel("requests at once")
    for axes in (rate, wait):
        axes.grid(alpha=0.3)
        axes.legend(**BESIDE)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return True
