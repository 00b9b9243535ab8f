"""The service level objectives, and their rules: how much of a window was bad, and alerts on the budget's burn.

Alerts follow the Site Reliability Workbook, chapter 5: a long window says that it matters, a short one that it goes
on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from monitoring.durations import Times

Rule = dict[str, Any]

HEALTH = "/health.*|/livez|/readyz"
WAITING = (
    "/v1/(chat/completions|responses|responses/.response_id.|runs|runs/.run_id./events|sessions/.session_id./runs)"
)
"""Routes whose answers wait for a model, or stream: how long they take is not the API's doing."""
LATENCY = "0.25"  # seconds; a boundary of the histogram's buckets
FRESH = "5m"
OUTBOX_AGE = "max by (namespace) (kgents_outbox_oldest_age_seconds)"
BUS_AGE = 'max by (namespace) (kgents_stream_oldest_age_seconds{stream="KGENTS_USAGE"})'
"""How long usage has waited; NaN while no process can tell, which no comparison holds for."""
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
BURNS = {
    "page": (("1h", "5m", 14.4), ("6h", "30m", 6.0)),
    "ticket": (("1d", "2h", 3.0), ("3d", "6h", 1.0)),
}
_FOR = {"page": "2m", "ticket": "15m"}


@dataclass(frozen=True, slots=True)
class Objective:
    """`target` is the share that is to be good; `bad` the query for the share that was bad in a window."""

    name: str
    alert: str
    target: float
    promise: str
    bad: Callable[[str], str]

    @property
    def budget(self) -> float:
        """The share that may be bad."""
        return round(1 - self.target, 6)


def record(window: str) -> str:
    """The name of the recorded share that was bad in a window."""
    return f"namespace:kgents_slo_bad:ratio_rate{window}"


def _availability(window: str) -> str:
    # Requests that are refused by their head alone are counted apart.
    every = f'sum by (namespace) (rate(kgents_http_requests_total{{route!~"{HEALTH}"}}[{window}]))'
    good = f'sum by (namespace) (rate(kgents_http_requests_total{{route!~"{HEALTH}",status!~"5.."}}[{window}]))'
    shed = f'sum by (namespace) (rate(kgents_requests_refused_total{{reason=~"queue|connections"}}[{window}]))'
    return f"1 - ({good} or 0 * {every}) / ({every} + ({shed} or 0 * {every}))"


def _latency(window: str) -> str:
    name, routes = "kgents_http_request_duration_seconds", f'route!~"{HEALTH}|{WAITING}|unmatched"'
    fast = f'sum by (namespace) (rate({name}_bucket{{{routes},le="{LATENCY}"}}[{window}]))'
    return f"1 - {fast} / sum by (namespace) (rate({name}_count{{{routes}}}[{window}]))"


def _freshness(window: str) -> str:
    return f"1 - avg_over_time(namespace:kgents_usage_fresh:bool[{window}])"


OBJECTIVES = (
    Objective(
        "availability",
        "KgentsAvailabilityBurn",
        0.999,
        "99.9 % of requests are neither answered with 5xx nor refused for overload",
        _availability,
    ),
    Objective(
        "latency",
        "KgentsLatencyBurn",
        0.95,
        f"95 % of requests that wait for no model are answered within {LATENCY} s",
        _latency,
    ),
    Objective(
        "freshness",
        "KgentsUsageFreshnessBurn",
        0.99,
        "99 % of the time, all usage older than 5 minutes is with the meter",
        _freshness,
    ),
)


def recordings(times: Times) -> list[Rule]:
    """What is recorded. With shortened times the names stay those of the true windows."""
    age, fresh = "namespace:kgents_usage_backlog_age:seconds", times.number(FRESH)
    rules: list[Rule] = [
        {
            "record": age,
            "expr": "max by (namespace) (kgents_outbox_oldest_age_seconds"
            ' or kgents_stream_oldest_age_seconds{stream="KGENTS_USAGE"})',
        },
        {
            "record": "namespace:kgents_usage_fresh:bool",
            # Where one of the two is not known, the other can only tell that usage is not fresh.
            "expr": f"{age} < bool {fresh}"
            f" and on (namespace) ({age} >= {fresh} or ({OUTBOX_AGE} >= 0 and {BUS_AGE} >= 0))",
        },
    ]
    rules += [
        {"record": record(window), "labels": {"slo": objective.name}, "expr": objective.bad(times(window))}
        for objective in OBJECTIVES
        for window in WINDOWS
    ]
    return rules


def burn_alerts(times: Times, annotate: Callable[[str, str, str], dict[str, str]]) -> list[Rule]:
    """Two alerts on each objective: one that wakes somebody, one for the next working day."""
    return [
        {
            "alert": objective.alert,
            "expr": " or ".join(
                f'({record(long)}{{slo="{objective.name}"}} > {burn * objective.budget:g}'
                f' and {record(short)}{{slo="{objective.name}"}} > {burn * objective.budget:g})'
                for long, short, burn in burns
            ),
            "for": times(_FOR[severity]),
            "labels": {"severity": severity},
            "annotations": annotate(
                objective.alert,
                f"The error budget of {objective.name} burns too fast in {{{{ $labels.namespace }}}}",
                f"Promised: {objective.promise}. Bad now: {{{{ $value | humanizePercentage }}}}.",
            ),
        }
        for objective in OBJECTIVES
        for severity, burns in BURNS.items()
    ]
