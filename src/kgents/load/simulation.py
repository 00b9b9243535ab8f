"""What an autoscaler makes of a load, second by second: replicas, utilization and latency over time.

The model is deliberately small: requests are spread evenly over the pods that are ready, each costs the same CPU time,
and what a pod can't serve waits in it. The autoscaler sees what metrics-server would tell it, as late as it would.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from kgents.load.autoscaler import Autoscaler, Pod, Settings

MOST = 1e12  # of a figure: beyond it floats don't count seconds well, and products overflow
LONGEST = 7 * 86_400  # seconds that a load may take: each is simulated
BUSIEST = 0.98  # of a pod's CPU, at which the formula for the wait stops: what is beyond waits in the queue


class Point(NamedTuple):
    """So many requests a second from this second on, going evenly to the next point's."""

    second: float
    rate: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a pod can do, as `kgents capacity` measures it. Times in seconds, CPU in thousandths of a core."""

    cpu_per_request: float
    request: int
    limit: int
    idle: int = 10
    latency: float = 0.010
    in_flight: float = 0.0  # seconds that a request is under way without using CPU, such as waiting for a model
    start: float = 5.0  # from the pod's creation to its readiness

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Capacity:
        """The capacity in a JSON object. Raises ValueError for what no pod can do."""
        names = [field.name for field in fields(cls)]
        if unknown := sorted(set(document) - set(names)):
            raise ValueError(f"it has {', '.join(unknown)}; there are {', '.join(names)}")
        if missing := [name for name in names[:3] if name not in document]:
            raise ValueError(f"it has no {', '.join(missing)}")
        for name, value in document.items():
            if not isinstance(value, int | float) or not 0 <= value < MOST:
                raise ValueError(f"{name} is {value!r}, and is to be a number from 0 to {MOST:g}")
        found = cls(**document)
        if found.cpu_per_request == 0 or found.request == 0 or found.limit <= found.idle:
            raise ValueError("cpu_per_request and request are to be more than 0, and limit more than idle")
        return found

    @property
    def rate(self) -> float:
        """The most requests a second that a pod serves."""
        return (self.limit - self.idle) / 1000 / self.cpu_per_request


@dataclass(frozen=True, slots=True)
class Timing:
    """How often who looks, in seconds."""

    sync: float = 15.0  # --horizontal-pod-autoscaler-sync-period
    resolution: float = 15.0  # metrics-server's --metric-resolution
    phase: float = 0.0  # from the load's first point until metrics-server reads next


class Moment(NamedTuple):
    """One second of the simulation. `utilization` is per cent of the ready pods' requests, latency in seconds."""

    second: int
    rate: float
    replicas: int
    ready: int
    utilization: float
    latency: float
    waiting: float


@dataclass(slots=True)
class _Pod:
    name: str
    created: float
    ready_at: float
    waiting: float = 0.0
    used: float = 0.0  # CPU seconds since its start
    flying: float = 0.0
    scrapes: list[tuple[float, float]] = field(default_factory=list)


def simulate(
    settings: Settings, capacity: Capacity, load: Sequence[Point], timing: Timing | None = None, replicas: int = 0
) -> list[Moment]:
    """Each second from the load's first point to its last. It begins with the least number of replicas (or so many),
    all ready for a while. Raises ValueError for a load without a course, or longer than a week.
    """
    if len(load) < 2 or any(later.second <= earlier.second for earlier, later in itertools.pairwise(load)):
        raise ValueError("a load needs two points at least, each later than the one before")
    if load[-1].second - load[0].second > LONGEST:
        raise ValueError(f"a load takes {LONGEST} seconds (a week) at most")
    return _Run(settings, capacity, timing or Timing(), replicas or settings.least).over(load)


class _Run:
    def __init__(self, settings: Settings, capacity: Capacity, timing: Timing, replicas: int) -> None:
        self._autoscaler = Autoscaler(settings)
        self._capacity = capacity
        self._timing = timing
        self._wanted = replicas
        self._made = 0
        self._pods: list[_Pod] = []
        self._begun = -1e6
        for _ in range(replicas):
            self._add(self._begun)

    def over(self, load: Sequence[Point]) -> list[Moment]:
        found = []
        first, last = load[0].second, load[-1].second
        scrape = first + self._timing.phase
        look = second = first
        while second < last:
            rate = rate_at(load, second)
            moment = self._serve(second, rate)
            found.append(moment)
            second += 1
            if second >= scrape:
                self._scrape(second)
                scrape += self._timing.resolution
            if second >= look:
                self._scale(second)
                look += self._timing.sync
        return found

    def _add(self, now: float) -> None:
        self._made += 1
        self._pods.append(_Pod(f"pod-{self._made}", now, now + self._capacity.start))

    def _serve(self, now: float, rate: float) -> Moment:
        capacity = self._capacity
        ready = [pod for pod in self._pods if pod.ready_at <= now]
        waiting = latency = 0.0
        for pod in ready:
            asked = pod.waiting + rate / len(ready)
            served = min(asked, capacity.rate)
            pod.waiting = asked - served
            pod.used += served * capacity.cpu_per_request + capacity.idle / 1000
            busy = min(BUSIEST, served / capacity.rate)
            # Waiting in an M/D/1 queue (Pollaczek-Khinchine), and behind what could not be served yet.
            queue = busy / (2 * (1 - busy)) / capacity.rate
            mine = capacity.latency + queue + pod.waiting / capacity.rate
            pod.flying = served * (mine + capacity.in_flight) + pod.waiting
            latency += mine / len(ready)
            waiting += pod.waiting
        spent = sum(min(capacity.limit, self._rate_of(pod, rate, len(ready))) for pod in ready)
        utilization = 100 * spent / (capacity.request * len(ready)) if ready else 0.0
        return Moment(int(now), rate, self._wanted, len(ready), utilization, latency, waiting)

    def _rate_of(self, pod: _Pod, rate: float, ready: int) -> float:
        """What a pod uses in this second, in thousandths of a core."""
        capacity = self._capacity
        served = capacity.rate if pod.waiting else rate / ready
        return served * capacity.cpu_per_request * 1000 + capacity.idle

    def _scrape(self, now: float) -> None:
        for pod in self._pods:
            pod.scrapes = [*pod.scrapes[-1:], (now, pod.used)]

    def _scale(self, now: float) -> None:
        wanted = self._autoscaler.look(now, self._wanted, [self._seen(now, pod) for pod in self._pods])
        while len(self._pods) < wanted:
            self._add(now)
        if len(self._pods) > wanted:
            # Not ready before ready, young before old, as a ReplicaSet chooses.
            staying = sorted(self._pods, key=lambda pod: (pod.ready_at > now, pod.created))
            left = sum(pod.waiting for pod in staying[wanted:])
            self._pods = staying[:wanted]
            for pod in self._pods:
                pod.waiting += left / wanted
        self._wanted = wanted

    def _seen(self, now: float, pod: _Pod) -> Pod:
        values: dict[str, int] = {}
        sampled = window = 0.0
        if len(pod.scrapes) == 2:
            (before, used_before), (sampled, used) = pod.scrapes
            window = sampled - before
            values = {"cpu": math.ceil(1000 * (used - used_before) / window)}
            values |= {metric.name: math.ceil(1000 * pod.flying) for metric in self._others()}
        ready = pod.ready_at <= now
        since = pod.ready_at if ready else pod.created
        return Pod(pod.name, self._capacity.request, pod.created, ready, since, values, sampled, window)

    def _others(self) -> list[Any]:
        return [metric for metric in self._autoscaler.settings.metrics if metric.name != "cpu"]


def rate_at(load: Sequence[Point], second: float) -> float:
    """The load at a moment, between its points."""
    for earlier, later in itertools.pairwise(load):
        if second < later.second:
            share = (second - earlier.second) / (later.second - earlier.second)
            return earlier.rate + max(0.0, share) * (later.rate - earlier.rate)
    return load[-1].rate


def steps(moments: Sequence[Moment]) -> list[tuple[int, int]]:
    """When the number of replicas changed, and to what; with the number that it began with."""
    found: list[tuple[int, int]] = []
    for moment in moments:
        if not found or found[-1][1] != moment.replicas:
            found.append((moment.second, moment.replicas))
    return found


def summary(moments: Sequence[Moment]) -> Mapping[str, float]:
    """The whole run in figures."""
    latencies = sorted(moment.latency for moment in moments)
    return {
        "seconds": len(moments),
        "least_replicas": min(moment.replicas for moment in moments),
        "most_replicas": max(moment.replicas for moment in moments),
        "pod_seconds": sum(moment.replicas for moment in moments),
        "p95_latency_ms": 1000 * latencies[int(0.95 * (len(latencies) - 1))],
        "worst_latency_ms": 1000 * latencies[-1],
        "seconds_behind": sum(moment.waiting > 0 for moment in moments),
    }
