"""What `kgents top` shows, worked out from two readings of every process's metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

PROBES = ("/health", "/health/saas", "/livez", "/readyz")  # not what clients ask for

Labels = frozenset[tuple[str, str]]
Sample = Mapping[tuple[str, Labels], float]  # of one process: a series' value


@dataclass(frozen=True, slots=True)
class Reading:
    """All processes at a moment (monotonic, in seconds), by name, and the health page."""

    at: float
    processes: Mapping[str, Sample]
    health: Mapping[str, Any]


def sample_of(page: str) -> Sample:
    """The series of a metrics page."""
    from prometheus_client.parser import text_string_to_metric_families

    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def figures(before: Reading, after: Reading) -> dict[str, Any]:
    """The figures of the time between two readings, as JSON. A process that was not there before counts from the next
    reading on, for what is told per second.
    """
    change = _Change(before, after)
    answered = {
        labels: value
        for labels, value in change.grown("kgents_http_requests_total")
        if dict(labels)["route"] not in PROBES
    }
    durations = dict(change.grown("kgents_http_request_duration_seconds_bucket"))
    ended = dict(change.grown("kgents_runs_total"))
    tokens = dict(change.grown("kgents_tokens_total"))
    components = after.health.get("components") or {}
    return {
        "status": after.health.get("status", "unavailable"),
        "seconds": round(change.seconds, 3),
        "requests": {
            "per_second": change.rate(answered),
            "errors_per_second": change.rate(answered, lambda labels: labels["status"] >= "500"),
            "refused_per_second": change.rate(dict(change.grown("kgents_requests_refused_total")))
            + change.rate(dict(change.grown("kgents_rate_limited_total"))),
            "in_flight": round(change.now("kgents_http_requests_in_flight", sum)),
            "p50_ms": _quantile(durations, 0.5),
            "p95_ms": _quantile(durations, 0.95),
        },
        "runs": {
            "per_second": change.rate(ended),
            "failed_per_second": change.rate(ended, lambda labels: labels["status"] == "failed"),
            "in_flight": round(change.now("kgents_runs_in_flight", sum)),
        },
        "tokens": {
            f"{direction}_per_second": change.rate(tokens, lambda labels, one=direction: labels["direction"] == one)
            for direction in ("input", "output")
        },
        "backlog": {
            # Each process measures the same outbox.
            "outbox": round(change.now("kgents_outbox_backlog_messages", max)),
            "oldest_seconds": round(change.now("kgents_outbox_oldest_age_seconds", max), 1),
            "bus": (components.get("nats") or {}).get("backlog"),
        },
        "processes": [change.process(name) for name in sorted(after.processes)],
        "components": [{"component": name, **found} for name, found in components.items()],
    }


class _Change:
    """What became of the counters."""

    def __init__(self, before: Reading, after: Reading) -> None:
        self._before = before
        self._after = after
        self.seconds = after.at - before.at

    def grown(self, name: str) -> Iterator[tuple[Labels, float]]:
        """By how much each series of a counter has grown, over all processes."""
        found: dict[Labels, float] = {}
        for process, sample in self._after.processes.items():
            earlier = self._before.processes.get(process)
            for (series, labels), value in sample.items():
                if series == name and earlier is not None:
                    was = earlier.get((series, labels), 0.0)
                    # A process that was started again counts from 0.
                    found[labels] = found.get(labels, 0.0) + (value - was if value >= was else value)
        yield from found.items()

    def rate(self, grown: Mapping[Labels, float], wanted: Any = lambda _labels: True) -> float:
        """Per second, of the series whose labels are wanted."""
        total = sum(value for labels, value in grown.items() if wanted(dict(labels)))
        return round(total / self.seconds, 1)

    def now(self, name: str, together: Any) -> float:
        """A gauge now, over all processes."""
        values = [
            value
            for sample in self._after.processes.values()
            for (series, _), value in sample.items()
            if series == name and not math.isnan(value)  # which a process tells that does not know
        ]
        return together(values or [0.0])  # type: ignore[no-any-return]

    def process(self, name: str) -> dict[str, Any]:
        """What a process takes."""
        after, before = self._after.processes[name], self._before.processes.get(name)
        key = ("process_cpu_seconds_total", frozenset[tuple[str, str]]())
        used = after.get(key, 0.0) - before.get(key, 0.0) if before else 0.0
        memory = after.get(("process_resident_memory_bytes", frozenset()), 0.0)
        return {
            "process": name,
            "cpu_percent": round(100 * max(0.0, used) / self.seconds, 1),
            "memory_mib": round(memory / 2**20, 1),
        }


def _quantile(grown: Mapping[Labels, float], share: float) -> float | None:
    """A quantile in milliseconds from a histogram's buckets, as PromQL's histogram_quantile: evenly spread within a
    bucket; None without a request.
    """
    buckets: dict[float, float] = {}
    for labels, value in grown.items():
        named = dict(labels)
        if named["route"] not in PROBES:
            bound = float(named["le"])
            buckets[bound] = buckets.get(bound, 0.0) + value
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    rank, low, below = share * buckets[bounds[-1]], 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            if bound == float("inf"):
                return round(low * 1000, 2)
            part = (rank - below) / (buckets[bound] - below)
            return round((low + (bound - low) * part) * 1000, 2)
        low, below = bound, buckets[bound]
    return None
