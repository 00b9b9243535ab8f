"""Reports of load tests with planted figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kgents.load.usl import Law

API_IDLE, API_COST = 0.02, 0.0025  # cores, and CPU seconds a request
WORKER_IDLE, WORKER_COST = 0.01, 0.0005
LAW = Law(rate=200.0, contention=0.3, coherency=0.002)
SIZES = (1, 2, 4, 8, 16, 32, 64)


def health(**statuses: str) -> dict[str, Any]:
    """A health page on which all is connected, but for what is said otherwise."""
    components = {
        name: {"status": statuses.get(name, "connected"), "mode": "embedded", "backlog": 0}
        for name in ("sql", "nats", "meter")
    }
    return {"status": "ok" if not statuses else "degraded", "components": components}


def look(**changes: Any) -> dict[str, Any]:
    """What a target said of itself."""
    return {"version": "0.1.0", "processes": {"api": "pid 7", "worker": "pid 8"}, "health": health()} | changes


def step(offered: float = 100.0, **changes: Any) -> dict[str, Any]:
    """A step that went well."""
    processes = {
        "api": {"cores": API_IDLE + API_COST * offered, "most_memory_mib": 140.0},
        "worker": {"cores": WORKER_IDLE + WORKER_COST * offered, "most_memory_mib": 120.0},
    }
    for found in processes.values():
        found |= {"most_cores": found["cores"], "memory_growth_mib": 1.0}
    usual = {"p50": 5.0, "p90": 8.0, "p95": 10.0, "p99": 20.0, "p99_9": 30.0, "max": 40.0}
    return {
        "name": "step",
        "offered": offered,
        "sent": offered,
        "achieved": offered,
        "seconds": 2.0,
        "took": 2.0,
        "requests": round(2 * offered),
        "errors": 0,
        "statuses": {"200": round(2 * offered)},
        "latency_ms": usual,
        "first_token_ms": usual,
        "stream_ms": usual,
        "late_ms": {"p50": 0.1, "p99": 1.0},
        "kinds": {"chat": {"requests": round(2 * offered), "errors": 0, "latency_ms": usual}},
        "timeline": [{"second": 0.0, "arrivals": offered, "answers": offered, "errors": 0, "p50": 5.0, "p99": 20.0}],
        "met": True,
        "generator": {"driver_cores": 0.1, "vegeta_cores": 0.2, "other_programs_cores": 0.05},
        "processes": processes,
        "unwell": [],
    } | changes


def report(*steps: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A report of a run with these steps, or with one that went well; before its verdict."""
    return {
        "schema": 1,
        "command": "kgents loadtest --up",
        "began": "2026-11-26T12:00:00Z",
        "machine": {"CPU": "a processor", "cores": "2", "memory": "8 GiB", "kernel": "Linux 6", "Python": "3.11.7"},
        "profile": {"name": "baseline", "about": "a constant rate", "users": 0, "wait": 0.0, "searches": False},
        "target": {
            "url": "http://t",
            "version": "0.1.0",
            "commit": "0123456789ab",
            "tenants": 4,
            "p99_ms": 100.0,
            "is_own": True,
            "modes": dict.fromkeys(("sql", "nats", "meter"), "embedded"),
        },
        "before": look(),
        "after": look(),
        "backlog": 0,
        "steps": list(steps) or [step()],
        "valid": True,
        "reasons": [],
    } | changes


def stress(rates: Sequence[float] = (50, 100, 150, 200), missed: float = 300) -> dict[str, Any]:
    """A stress run that met its target at these rates, and missed it at a higher one."""
    slow = dict.fromkeys(("p50", "p90", "p95", "p99", "p99_9", "max"), 500.0)
    steps = [*(step(rate) for rate in rates), step(missed, met=False, latency_ms=slow)]
    profile = {"name": "stress", "about": "rates that rise", "users": 0, "wait": 0.0, "searches": True}
    return report(*steps, profile=profile, knee=max(rates))


def measured() -> dict[str, Any]:
    """Throughput at several sizes, exactly as the law has it."""
    points = [
        {
            "size": size,
            "rate": LAW.at(size),
            "errors": 0,
            "latency_ms": {"p50": 1000 * size / LAW.at(size), "p99": 2000 * size / LAW.at(size)},
            "cores": {"api": 0.5, "worker": 0.1},
            "generator": {"driver_cores": 0.1, "vegeta_cores": 0.2, "other_programs_cores": 0.05},
            "unwell": [],
            "backlog": 0,
        }
        for size in (*SIZES, *reversed(SIZES))
    ]
    kept = ("schema", "command", "began", "machine", "target", "backlog")
    return {**{name: value for name, value in report().items() if name in kept}, "points": points}
