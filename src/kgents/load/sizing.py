"""What a deployment is to ask for, from what was measured: pure rules, so that anyone can follow them from evidence to
manifest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kgents.errors import Unprocessable
from kgents.load.usl import Line, line

LEAST_REPLICAS = 2  # so that a pod may go while the other serves
CPU_STEP, MEMORY_STEP = 50, 32  # thousandths of a core, MiB
LEAST_CPU = 100
SPARE_MEMORY, MOST_MEMORY = 1.25, 2.0  # times the most that was seen: of the request, of the limit
UTILIZATION_STEP = 5


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of the installation: requests a second usually and at most, and by what share they may grow before
    pods that the autoscaler asks for can serve (metrics, its next look and the pod's start: about 45 s).
    """

    expected: float = 100.0
    peak: float = 1000.0
    growth: float = 0.4

    def __post_init__(self) -> None:
        """Raises Unprocessable for a peak that is less than what is expected."""
        if self.peak < self.expected:
            raise Unprocessable(
                f"{self.expected:g} requests/s are expected, and the peak is {self.peak:g}: it can't be less. Give a "
                "higher --peak.",
                code="capacity",
            )


@dataclass(frozen=True, slots=True)
class Proposal:
    """Numbers for manifests: CPU in thousandths of a core, memory in MiB, utilization in per cent of the request."""

    api_cpu: int
    api_memory: int
    api_memory_limit: int
    worker_cpu: int
    worker_memory: int
    worker_memory_limit: int
    worker_replicas: int
    least: int
    most: int
    utilization: int


@dataclass(frozen=True, slots=True)
class Pod:
    """What a pod's process takes: cores idle, CPU seconds a request with their standard error, the most MiB seen; and
    how many of them served.
    """

    idle: float
    cpu_per_request: float
    error: float
    memory: float
    count: int

    def cores(self, rate: float) -> float:
        """At so many requests a second."""
        return self.idle + self.cpu_per_request * rate


def pod(stress: Mapping[str, Any], role: str) -> Pod:
    """What one process of a role (`api`, `worker`) took in a stress run, over all its steps."""
    points, memory, count = [], 0.0, 0
    for step in stress["steps"]:
        found = [use for name, use in step["processes"].items() if name == role or name.startswith(f"kgents-{role}-")]
        if found:
            share = 1 / len(found)
            points.append((share * step["achieved"], share * sum(use["cores"] for use in found)))
            memory = max(memory, *(use["most_memory_mib"] for use in found))
            count = max(count, len(found))
    if not points:
        raise Unprocessable(f"Nothing was seen of a process {role!r} in the stress run.", code="capacity")
    fitted: Line = line(points)
    return Pod(round(fitted.start, 4), float(f"{fitted.slope:.4g}"), float(f"{fitted.error:.2g}"), memory, count)


def propose(stress: Mapping[str, Any], demand: Demand) -> tuple[Proposal, dict[str, Any]]:
    """Numbers, and what they follow from. Raises Unprocessable for a stress run that is not valid or found no knee."""
    if not stress["valid"] or stress.get("knee") is None:
        raise Unprocessable(
            "The stress run is not valid, or no rate met its target. Run it again: kgents loadtest --profile stress",
            code="capacity",
        )
    api, worker = pod(stress, "api"), pod(stress, "worker")
    knee = float(stress["knee"]) / api.count
    at_knee = api.cores(knee)
    utilization = int(100 / (1 + demand.growth) / UTILIZATION_STEP) * UTILIZATION_STEP
    api_cpu = _up(1000 * at_knee, CPU_STEP)
    # A pod at the target utilization of what it asks for, rounding included.
    rate = (api_cpu / 1000 * utilization / 100 - api.idle) / api.cpu_per_request
    least = max(LEAST_REPLICAS, math.ceil(demand.expected / rate))
    # A worker's cost is small beside what else is in its figures, so that its error counts.
    cost = worker.cpu_per_request + 2 * worker.error
    workers = worker.idle * LEAST_REPLICAS + cost * demand.peak
    proposal = Proposal(
        api_cpu=api_cpu,
        api_memory=_up(api.memory * SPARE_MEMORY, MEMORY_STEP),
        api_memory_limit=_up(api.memory * MOST_MEMORY, MEMORY_STEP),
        worker_cpu=max(LEAST_CPU, _up(1000 * workers / LEAST_REPLICAS, CPU_STEP)),
        worker_memory=_up(worker.memory * SPARE_MEMORY, MEMORY_STEP),
        worker_memory_limit=_up(worker.memory * MOST_MEMORY, MEMORY_STEP),
        worker_replicas=LEAST_REPLICAS,
        least=least,
        most=max(least + 1, math.ceil(demand.peak / rate)),
        utilization=utilization,
    )
    basis = {
        "api": asdict(api),
        "worker": asdict(worker),
        "knee": knee,
        "cores_at_knee": round(at_knee, 4),
        "rate_per_cpu": round(knee / at_knee, 1),
        "rate_per_pod": round(rate, 1),
    }
    return proposal, basis


def reasoning(proposal: Proposal, basis: Mapping[str, Any], demand: Demand, target_ms: float) -> list[str]:
    """Why each number is what it is."""
    api, worker = basis["api"], basis["worker"]
    cpu = (
        f"A request to the API costs {1000 * api['cpu_per_request']:.2f} ms of CPU time (standard error "
        f"{1000 * api['error']:.2f} ms). At the knee an API process, of {api['count']}, answers {basis['knee']:g} "
        f"requests/s and uses {basis['cores_at_knee']:.2f} cores: {basis['rate_per_cpu']:g} requests/s for each core "
        f"with 99 of 100 answers within {target_ms:g} ms. So it asks for {proposal.api_cpu}m: all of it used is the "
        "knee."
    )
    limit = (
        "There is no CPU limit: it would stop a process for the rest of each 100 ms in which it used up its share, "
        "which is where the 99th percentile is; what other pods asked for is theirs without one."
    )
    scaling = (
        f"Load may grow by {demand.growth:.0%} before new pods serve, and the pods that are there must not pass the "
        f"knee by then: at most 1/{1 + demand.growth:g} of it, {proposal.utilization} %, where a pod serves "
        f"{basis['rate_per_pod']:g} requests/s."
    )
    replicas = (
        f"{demand.expected:g} requests/s are expected: {proposal.least} pods, of which {LEAST_REPLICAS} at least so "
        f"that one may go. {demand.peak:g} requests/s at the peak: {proposal.most} pods."
    )
    memory = (
        f"The most memory of the API was {api['memory']:g} MiB: {proposal.api_memory} MiB is asked for, a quarter "
        f"more, and twice as much as was seen, {proposal.api_memory_limit} MiB, is the limit. The worker likewise: "
        f"{worker['memory']:g} MiB seen."
    )
    workers = (
        f"A request costs the workers {1000 * worker['cpu_per_request']:.2f} ms of CPU time (standard error "
        f"{1000 * worker['error']:.2f} ms, of which two are added); {proposal.worker_replicas} workers, of which "
        f"each asks for {proposal.worker_cpu}m, keep up with the peak."
    )
    return [cpu, limit, scaling, replicas, memory, workers]


def _up(value: float, step: int) -> int:
    return math.ceil(round(value, 6) / step) * step
