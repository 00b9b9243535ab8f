"""The HorizontalPodAutoscaler's algorithm, step by step as Kubernetes' controller does it.

Source: pkg/controller/podautoscaler (horizontal.go and replica_calculator.go) of Kubernetes 1.34, and
https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/. What is left out: objects' and external
metrics, and errors of single metrics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

TOLERANCE = 0.1  # --horizontal-pod-autoscaler-tolerance
CPU_INITIALIZATION = 300.0  # seconds, --horizontal-pod-autoscaler-cpu-initialization-period
INITIAL_READINESS = 30.0  # seconds, --horizontal-pod-autoscaler-initial-readiness-delay

Select = Literal["Max", "Min", "Disabled"]


class Policy(NamedTuple):
    """At most `value` pods, or per cent of the pods, in `period` seconds."""

    type: Literal["Pods", "Percent"]
    value: int
    period: int


@dataclass(frozen=True, slots=True)
class Rules:
    """How fast it may go in one direction. `window` is the stabilization window in seconds."""

    window: int
    policies: Sequence[Policy]
    select: Select = "Max"
    tolerance: float = TOLERANCE


UP = Rules(0, (Policy("Pods", 4, 15), Policy("Percent", 100, 15)))
DOWN = Rules(300, (Policy("Percent", 100, 15),))


class Metric(NamedTuple):
    """What pods are to be kept at on average: `cpu` is a percentage of the request (`resource`), any other name a value
    for each pod (`pods`), in thousandths.
    """

    name: str
    target: int


@dataclass(frozen=True, slots=True)
class Settings:
    """A HorizontalPodAutoscaler's spec."""

    least: int
    most: int
    metrics: Sequence[Metric]
    up: Rules = UP
    down: Rules = DOWN

    @classmethod
    def parse(cls, manifest: Mapping[str, Any]) -> Settings:
        """The settings in a manifest of `autoscaling/v2`. Raises ValueError for what is not simulated, and KeyError and
        TypeError for what is no manifest.
        """
        if manifest.get("kind") != "HorizontalPodAutoscaler" or manifest.get("apiVersion") != "autoscaling/v2":
            raise ValueError("that is no HorizontalPodAutoscaler of autoscaling/v2")
        spec = manifest["spec"]
        behavior = spec.get("behavior") or {}
        least = _whole("minReplicas", spec.get("minReplicas", 1))
        return cls(
            least,
            _whole("maxReplicas", spec["maxReplicas"], least),
            [_metric(metric) for metric in spec["metrics"]],
            _rules(behavior.get("scaleUp"), UP),
            _rules(behavior.get("scaleDown"), DOWN),
        )


OURS = Settings(
    2,
    10,
    [Metric("cpu", 70)],
    Rules(0, [Policy("Percent", 100, 15), Policy("Pods", 4, 15)]),
    Rules(300, [Policy("Pods", 1, 60)]),
)
"""What deploy/components/autoscaling sets."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as the controller sees it. Moments are seconds on one clock; `values` are the last sample of each metric
    (for `cpu` in thousandths of a core), taken at `sampled` over `window` seconds; empty where there is none yet.
    """

    name: str
    request: int  # thousandths of a core
    started: float | None
    ready: bool
    ready_since: float  # when it last became ready, or stopped being so
    values: Mapping[str, int] = field(default_factory=dict)
    sampled: float = 0.0
    window: float = 15.0
    pending: bool = False
    leaving: bool = False


class Autoscaler:
    """One HorizontalPodAutoscaler, with what its controller remembers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._recommended: list[tuple[float, int]] = []
        self._grown: list[tuple[float, int]] = []
        self._shrunk: list[tuple[float, int]] = []

    def look(self, now: float, current: int, pods: Sequence[Pod]) -> int:
        """How many replicas there are to be. `current` is what the Deployment's spec says."""
        if not self._recommended:
            self._recommended.append((now, current))
        desired = self._desired(now, current, pods)
        if desired > current:
            self._grown.append((now, desired - current))
        elif desired < current:
            self._shrunk.append((now, current - desired))
        return desired

    def _desired(self, now: float, current: int, pods: Sequence[Pod]) -> int:
        settings = self.settings
        if current == 0 and settings.least != 0:
            return 0
        if current > settings.most:
            return settings.most
        if current < settings.least:
            return settings.least
        found = [self._by_metric(now, current, pods, metric) for metric in settings.metrics]
        proposals = [proposal for proposal in found if proposal is not None]
        if not proposals or (len(proposals) < len(found) and max(proposals) < current):
            return current  # without a metric nothing is taken away
        return self._limited(now, current, self._stabilized(now, current, max(0, *proposals)))

    def _by_metric(self, now: float, current: int, pods: Sequence[Pod], metric: Metric) -> int | None:
        ready, unready, missing = _groups(now, pods, metric.name)
        requests = {pod.name: pod.request for pod in pods}
        values = {pod.name: pod.values[metric.name] for pod in ready}
        if not values:
            return None
        ratio = _ratio(values, requests, metric)
        grows_with_unready = bool(unready) and ratio > 1.0
        if not grows_with_unready and not missing:
            return current if self._within(ratio) else math.ceil(ratio * len(ready))
        # What is not known is taken to be what changes least.
        for pod in missing:
            if ratio < 1.0:
                full = pod.request * max(100, metric.target) // 100
                values[pod.name] = full if metric.name == "cpu" else metric.target
            elif ratio > 1.0:
                values[pod.name] = 0
        if grows_with_unready:
            values.update({pod.name: 0 for pod in unready})
        again = _ratio(values, requests, metric)
        if self._within(again) or (ratio < 1.0 < again) or (again < 1.0 < ratio):
            return current
        proposal = math.ceil(again * len(values))
        turns = (again < 1.0 and proposal > current) or (again > 1.0 and proposal < current)
        return current if turns else proposal

    def _within(self, ratio: float) -> bool:
        return 1.0 - self.settings.down.tolerance <= ratio <= 1.0 + self.settings.up.tolerance

    def _stabilized(self, now: float, current: int, desired: int) -> int:
        """Between the lowest recommendation of the window upwards and the highest of that downwards."""
        up, down = self.settings.up.window, self.settings.down.window
        low = min([desired, *(value for moment, value in self._recommended if moment > now - up)])
        high = max([desired, *(value for moment, value in self._recommended if moment > now - down)])
        oldest = now - max(up, down)
        self._recommended = [each for each in self._recommended if each[0] >= oldest] + [(now, desired)]
        return min(max(current, low), high)

    def _limited(self, now: float, current: int, desired: int) -> int:
        settings = self.settings
        if desired > current:
            limit = max(current, self._limit(now, current, settings.up, grows=True))
            return min(desired, settings.most, limit)
        if desired < current:
            limit = min(current, self._limit(now, current, settings.down, grows=False))
            return max(desired, settings.least, limit)
        return desired

    def _limit(self, now: float, current: int, rules: Rules, *, grows: bool) -> int:
        if rules.select == "Disabled":
            return current
        proposals = []
        for policy in rules.policies:
            start = current - _sum(self._grown, now - policy.period) + _sum(self._shrunk, now - policy.period)
            if policy.type == "Pods":
                proposals.append(start + policy.value if grows else start - policy.value)
            elif grows:
                proposals.append(math.ceil(start * (1 + policy.value / 100)))
            else:
                proposals.append(int(start * (1 - policy.value / 100)))
        return max(proposals) if grows == (rules.select == "Max") else min(proposals)


def _groups(now: float, pods: Sequence[Pod], name: str) -> tuple[list[Pod], list[Pod], list[Pod]]:
    """The pods that count, those that are not ready, and those without a sample (replica_calculator.go, groupPods)."""
    ready: list[Pod] = []
    unready: list[Pod] = []
    missing: list[Pod] = []
    for pod in pods:
        if pod.leaving:
            continue
        if pod.pending:
            unready.append(pod)
        elif name not in pod.values:
            missing.append(pod)
        elif name == "cpu" and _is_starting(now, pod):
            unready.append(pod)
        else:
            ready.append(pod)
    return ready, unready, missing


def _is_starting(now: float, pod: Pod) -> bool:
    """Whether a pod's CPU is still that of its start, or nothing that requests make."""
    if pod.started is None:
        return True
    if pod.started + CPU_INITIALIZATION > now:
        return not pod.ready or pod.sampled < pod.ready_since + pod.window
    return not pod.ready and pod.started + INITIAL_READINESS > pod.ready_since


def _ratio(values: Mapping[str, int], requests: Mapping[str, int], metric: Metric) -> float:
    total = sum(values.values())
    if metric.name == "cpu":
        return total * 100 // sum(requests[name] for name in values) / metric.target
    return total // len(values) / metric.target


def _sum(events: Sequence[tuple[float, int]], since: float) -> int:
    return sum(change for moment, change in events if moment > since)


def _metric(manifest: Mapping[str, Any]) -> Metric:
    if manifest["type"] == "Resource" and manifest["resource"]["name"] == "cpu":
        target = manifest["resource"]["target"]
        if target["type"] == "Utilization":
            return Metric("cpu", _whole("averageUtilization", target["averageUtilization"]))
    elif manifest["type"] == "Pods":
        target = manifest["pods"]["target"]
        if target["type"] == "AverageValue":
            return Metric(
                manifest["pods"]["metric"]["name"], _whole("averageValue", thousandths(target["averageValue"]))
            )
    raise ValueError(f"a metric like {dict(manifest)} is not simulated; there are Resource cpu and Pods")


def thousandths(quantity: str | int) -> int:
    """A Kubernetes quantity (`250m`, `2`, `1.5`, `3k`) in thousandths. Raises ValueError."""
    text = str(quantity)
    scale = {"m": 1, "k": 1_000_000, "M": 1_000_000_000}.get(text[-1:], 1000)
    digits = text[:-1] if text[-1:].isalpha() else text
    try:
        return math.ceil(float(digits) * scale)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no quantity; write it as 250m, 2 or 1.5") from None


def _rules(manifest: Mapping[str, Any] | None, default: Rules) -> Rules:
    if manifest is None:
        return default
    policies = [
        Policy(
            _one_of("type", each["type"], ("Pods", "Percent")),
            _whole("value", each["value"]),
            _whole("periodSeconds", each["periodSeconds"]),
        )
        for each in manifest.get("policies") or ()
    ]
    tolerance = float(manifest.get("tolerance", TOLERANCE))
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance is {tolerance}, and is to be 0 at least")
    return Rules(
        _whole("stabilizationWindowSeconds", manifest.get("stabilizationWindowSeconds", default.window), 0),
        policies or default.policies,
        _one_of("selectPolicy", manifest.get("selectPolicy", "Max"), ("Max", "Min", "Disabled")),
        tolerance,
    )


def _whole(name: str, value: Any, least: int = 1) -> int:
    if type(value) is not int or value < least:
        raise ValueError(f"{name} is {value!r}, and is to be a whole number of {least} at least")
    return value


def _one_of(name: str, value: Any, known: Sequence[Any]) -> Any:
    if value not in known:
        raise ValueError(f"{name} is {value!r}; there are {', '.join(known)}")
    return value
