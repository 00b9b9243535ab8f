"""A capacity in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kgents.load.report import table
from kgents.load.usl import Fit, Law, Point

Document = Mapping[str, Any]
_NUMBERS = {
    "api_cpu": ("API, CPU asked for", "m"),
    "api_memory": ("API, memory asked for", "Mi"),
    "api_memory_limit": ("API, limit of memory", "Mi"),
    "least": ("API, pods at least", ""),
    "most": ("API, pods at most", ""),
    "utilization": ("API, CPU to be kept at, of what is asked for", " %"),
    "worker_replicas": ("workers", ""),
    "worker_cpu": ("worker, CPU asked for", "m"),
    "worker_memory": ("worker, memory asked for", "Mi"),
    "worker_memory_limit": ("worker, limit of memory", "Mi"),
}


def markdown(document: Document, *, picture: str = "", level: int = 1) -> str:
    """What was measured, the law, and the proposal with its reasons."""
    fit = document["usl"]
    law, errors = Law(**fit["law"]), Law(**fit["errors"])
    parts = [
        f"{'#' * level} Capacity\n",
        f"`{document['command']}`, {document['began']}, commit {document['target']['commit']}.\n",
        "A closed loop with so many requests at once, each size twice, without streams.\n",
    ]
    if picture:
        parts.append(f"![capacity]({picture})\n")
    parts += [
        table(*_points(document, law)),
        _law(law, errors, fit, document["points"]),
        f"{'#' * (level + 1)} What to deploy\n",
    ]
    parts.append("\n".join(f"- {reason}" for reason in document["reasoning"]) + "\n")
    demand = document["demand"]
    parts.append(
        f"The demand is assumed, not measured: {demand['expected']:g} requests/s expected, {demand['peak']:g} at the "
        "peak. `kgents capacity conclude` works the numbers out for yours. What the measurement leaves out: several "
        "API processes on one database (what PostgreSQL can take was not measured), and models that make a run wait.\n"
    )
    rows = [[label, f"{document['proposal'][name]}{unit}"] for name, (label, unit) in _NUMBERS.items()]
    parts.append(table(["number", "value"], rows))
    return "\n".join(parts)


def _points(document: Document, law: Law) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            *(str(point["size"]), f"{point['rate']:,.0f}", f"{law.at(point['size']):,.0f}"),
            *(f"{point['latency_ms'][name]:.1f}" for name in ("p50", "p99")),
            *(f"{point['cores'].get(name, 0.0):.2f}" for name in ("api", "worker")),
        ]
        for point in document["points"]
    ]
    return ["at once", "answered/s", "by the law", "p50 ms", "p99 ms", "API cores", "worker cores"], rows


def _law(law: Law, errors: Law, fit: Document, points: Sequence[Document]) -> str:
    coherency = f"{law.coherency:.2g} ± {errors.coherency:.2g}"
    fitted = Fit(law, errors, fit["relative_error"], fit["explained"])
    doubts = fitted.doubts([Point(point["size"], point["rate"]) for point in points])
    return (
        f"The Universal Scalability Law that fits best: one request at a time takes {1000 / law.rate:.2f} ms "
        f"({law.rate:.0f}/s ± {errors.rate:.0f}); contention {law.contention:.3f} ± {errors.contention:.3f}; "
        f"coherency {coherency}. It has {law.most:.0f} requests/s at most, {law.best}: a fit, not a bound. It is "
        f"{fit['relative_error']:.1%} off the points (root mean square) and explains {fit['explained']:.1%} of their "
        "variance; ± is a standard error."
        + (f" **It does not describe what was measured: {doubts}.**" if doubts else "")
        + "\n"
    )
