"""docs/saas/autoscaling.md, from a run in a cluster and from the simulator: `python -m tests.cluster.page`."""

from __future__ import annotations

import itertools
import json
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

from kgents.load import picture, simulation
from kgents.load.autoscaler import DOWN, OURS, UP, Policy, Rules, Settings
from kgents.load.simulation import Capacity, Point
from tests.cluster.test_scaling import PHASES, RESOLUTION, SETTINGS, SYNC, Seen, measured, predicted

ROOT = Path(__file__).parents[2]
RUN = ROOT / "evidence" / "autoscaling.json"
CAPACITY = ROOT / "evidence" / "capacity.json"
PAGE = ROOT / "docs" / "saas" / "autoscaling.md"
PICTURE = ROOT / "docs" / "saas" / "autoscaling.png"
MARK = "<!-- What follows is written by `python -m tests.cluster.page`; never edit it by hand. -->\n"
HOUR = 3600

BEHAVIOURS: dict[str, Settings] = {
    "ours": OURS,
    "Kubernetes' default": replace(OURS, up=UP, down=DOWN),
    "down without waiting": replace(OURS, down=Rules(0, [Policy("Percent", 100, 15)])),
    "one pod a minute up": replace(OURS, up=Rules(0, [Policy("Pods", 1, 60)])),
    "up after a minute": replace(OURS, up=Rules(60, OURS.up.policies)),
}


def loads(capacity: Capacity) -> dict[str, list[Point]]:
    """Courses of a load, in requests a second, for pods of this capacity."""
    pod = capacity.rate
    steps = [Point(0, pod), Point(600, pod), Point(601, 5 * pod), Point(1800, 5 * pod), Point(1801, pod)]
    spikes = [Point(0, pod)]
    for number in range(6):
        start = 600 * number
        spikes += [Point(start + 300, pod), Point(start + 301, 4 * pod), Point(start + 420, 4 * pod)]
        spikes += [Point(start + 421, pod)]
    return {
        "a step: five times the load for 20 minutes": [*steps, Point(HOUR, pod)],
        "a morning: to five times the load in half an hour, and back": [
            *(Point(0, pod / 2), Point(1800, 5 * pod), Point(HOUR, pod / 2)),
            Point(HOUR + 900, pod / 2),
        ],
        "spikes: four times the load for two minutes, every ten": [*spikes, Point(HOUR, pod)],
    }


def fill(text: str) -> str:
    """A paragraph in lines as long as the other documents'."""
    return textwrap.fill(text, 120, break_on_hyphens=False)


def main() -> None:
    """Write what is below the mark, and the picture."""
    run = json.loads(RUN.read_text())
    text, found, _ = PAGE.read_text().partition(MARK)
    assert found, f"{PAGE} has no mark"
    PAGE.write_text(text + MARK + "\n".join(["", *production(), *comparison(), *cluster(run)]) + "\n")


def production() -> list[str]:
    """The numbers that were measured, and come into production instead of the component's own."""
    document = json.loads(CAPACITY.read_text())
    found, demand = document["proposal"], document["demand"]
    return [
        "## What production has",
        "",
        fill(
            "The overlay `production` takes `deploy/components/capacity` after the autoscaler. It sets what was "
            f"measured: {found['least']} to {found['most']} pods, and {found['utilization']} % of the "
            f"{found['api_cpu']} thousandths of a core that each asks for. {demand['expected']:,.0f} requests/s are "
            f"expected and {demand['peak']:,.0f} come at the peak; a pod is to serve "
            f"{document['basis']['rate_per_pod']:.0f}. The measurements are in [the baseline](load-test-baseline.md); "
            "[load and capacity](../operations/load.md) says how to get the numbers for another load."
        ),
        "",
    ]


def comparison() -> list[str]:
    """The behaviours against each other."""
    capacity = Capacity(cpu_per_request=0.001, request=500, limit=1000)
    lines = [
        "## Why up at once and down slowly",
        "",
        fill(
            f"`kgents autoscale simulate` for {OURS.least} to {OURS.most} pods that serve {capacity.rate:.0f} "
            "requests/s and ask for half a core. They are made up to compare behaviours, not measured. Behind: seconds "
            "in which requests wait for CPU time. Gone: pods that were taken away, each with the streams that it had, "
            "which then go on from another pod. Pod-hours are what it costs."
        ),
        "",
    ]
    for name, load in loads(capacity).items():
        lines += [
            f"**{name[0].upper()}{name[1:]}**",
            "",
            "| behaviour | behind | worst latency | gone | most pods | pod-hours |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for behaviour, settings in BEHAVIOURS.items():
            moments = simulation.simulate(settings, capacity, load)
            figures = simulation.summary(moments)
            numbers = [moment.replicas for moment in moments]
            gone = sum(max(0, before - after) for before, after in itertools.pairwise(numbers))
            behind, worst = figures["seconds_behind"], figures["worst_latency_ms"] / 1000
            lines.append(
                f"| {behaviour} | {behind} s | {worst:.1f} s | {gone} | {figures['most_replicas']} | "
                f"{figures['pod_seconds'] / HOUR:.1f} |"
            )
        lines.append("")
    return lines


def cluster(run: dict[str, Any]) -> list[str]:
    """The run in the cluster, against what the simulator predicts for it."""
    points = [Point(second, rate) for second, rate in run["points"]]
    looks = [Seen(*each) for each in run["seen"]]
    capacity = measured(looks, points)
    seen = [(each.second, each.wanted) for each in looks]
    moments = predicted(looks, points)
    picture.write_png(PICTURE, moments, target=SETTINGS.metrics[0].target, title="A run in a cluster", seen=seen)
    steps: list[tuple[float, int]] = []
    for second, wanted in seen:
        if not steps or steps[-1][1] != wanted:
            steps.append((second, wanted))
    at = {moment.second: moment.replicas for moment in moments}
    last = max(at)
    rows = []
    for second, wanted in steps:
        near = [at[min(last, max(0, round(second) + shift))] for shift in range(-30, 31)]
        rows.append(f"| {second:.0f} s | {wanted} | {min(near)} to {max(near)} |")
    quiet, busy, seconds = points[0].rate, points[2].rate, points[3].second - points[2].second
    return [
        "## A real autoscaler under real load",
        "",
        fill(
            f"{run['date']}, commit {run['commit']}, {run['cores']} cores ({run['CPU']}), Kubernetes 1.34 with three "
            f"nodes on one machine, metrics-server with {RESOLUTION:.0f} s; `make autoscaling` runs it again. "
            "It is the overlay `conformance` with two things changed, so that two cores are enough for minutes of it: "
            f"a pod asks for {run['request']} thousandths of a core, and after a minute two pods go in 15 s. "
            f"The autoscaler looks every {SYNC:.0f} s, not every 15."
        ),
        "",
        fill(
            f"{run['requests']:,} chat completions in an open loop, {quiet:.0f}/s and then {busy:.0f}/s for "
            f"{seconds:.0f} s: {run['failed']} failed, {run['violations']} violations in ledger or meter. "
            f"A request took {1000 * capacity.cpu_per_request:.2f} ms of CPU time, a pod without any {capacity.idle} "
            "thousandths of a core; the simulator got these two figures and the load, nothing else (when "
            f"metrics-server reads first is not known: of {len(PHASES)} moments, the one that fits best)."
        ),
        "",
        "| at | replicas that the autoscaler wanted | the simulator within 30 s of it |",
        "| --- | --- | --- |",
        *rows,
        "",
        "![Load, replicas, CPU and latency over time; simulated, and the replicas that were seen](autoscaling.png)",
    ]


if __name__ == "__main__":
    main()
