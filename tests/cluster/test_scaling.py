"""Real load drives the real autoscaler from two pods up and back, as the simulator says that it will.

The short form waits for pods to come and go. The full one (`make autoscaling`) has times that can be predicted, holds
the load for as long as it takes to measure what a request costs, and compares each step with the simulator's.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.machine import facts
from kgents.load import simulation
from kgents.load.autoscaler import Metric, Policy, Rules, Settings
from kgents.load.simulation import Capacity, Moment, Point, Timing
from tests.cluster.installation import NAMESPACE, Installation
from tests.cluster.steady import Steady, told
from tests.faults.checker import check
from tests.support.tenants import tenant_of
from tests.support.waiting import wait_until

# Thousandths of a core that a pod of the API asks for here: a load that two cores can bear is to be much, and what
# three idle pods take (60 to 90) little enough for two.
REQUEST = 90
QUIET, BUSY = 2.0, 60.0  # requests a second
MANY = 4  # pods
TARGET = os.environ.get("KGENTS_SCALING")
FULL = bool(TARGET or os.environ.get("KGENTS_FULL"))
QUIET_SECONDS, BUSY_SECONDS = (30.0, 100.0) if FULL else (10.0, 0.0)
PREDICTED_WINDOW = 60  # seconds of the autoscaler's look back before it goes down, where that is to be predicted
WINDOW = PREDICTED_WINDOW if FULL else 15
LONGEST = 120.0 + 4 * WINDOW  # seconds that it may take until the pods have come, and until they have gone
SYNC, RESOLUTION = 5.0, 15.0
SETTINGS = Settings(
    2,
    8,
    [Metric("cpu", 70)],
    Rules(0, [Policy("Percent", 100, 15), Policy("Pods", 4, 15)]),
    Rules(PREDICTED_WINDOW, [Policy("Pods", 2, 15)]),
)
PHASES = [0.0, 5.0, 10.0]  # when metrics-server reads for the first time is not known, but within its resolution
SHIFT = 15  # seconds by which a step may come earlier or later than it is predicted


class Seen(NamedTuple):
    """What the cluster says at a moment; CPU in thousandths of a core, of all pods of the API."""

    second: float
    wanted: int
    cpu: int


def changes() -> list[dict[str, Any]]:
    """The overlay's autoscaler, quicker to go down, and pods that ask for little."""
    container = {"name": "api", "resources": {"requests": {"cpu": f"{REQUEST}m"}}}
    down = {"stabilizationWindowSeconds": WINDOW, "policies": [{"type": "Pods", "value": 2, "periodSeconds": 15}]}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "kgents-api"},
            "spec": {"template": {"spec": {"containers": [container]}}},
        },
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "kgents-api"},
            "spec": {"maxReplicas": SETTINGS.most, "behavior": {"scaleDown": down}},
        },
    ]


def watch(installation: Installation, began: float) -> Seen:
    """One look at the autoscaler and the metrics that it goes by."""
    found = installation.cluster.get("hpa", "kgents-api")
    selector = "labelSelector=app.kubernetes.io/component%3Dapi"
    path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/pods?{selector}"
    pods = json.loads(installation.cluster.kubectl("get", f"--raw={path}"))["items"]
    cpu = sum(_thousandths(container["usage"]["cpu"]) for pod in pods for container in pod["containers"])
    return Seen(time.monotonic() - began, found["status"].get("desiredReplicas", 0), cpu)


def _thousandths(quantity: str) -> int:
    scale = {"n": 1e-6, "u": 1e-3, "m": 1.0}.get(quantity[-1:])
    return round(float(quantity[:-1]) * scale if scale else float(quantity) * 1000)


def test_replicas_follow_the_load_as_predicted(installation: Installation, tmp_path: Path) -> None:
    done = installation.deploy(*changes())
    assert done.returncode == 0, done.stderr
    wait_until(lambda: watch(installation, 0.0).wanted == 2, seconds=180, what="the autoscaler wants two pods")
    seen: list[Seen] = []
    points: list[Point] = []
    history = tmp_path / "history"
    with tenant_of(installation) as tenant:
        with Steady(installation.url, tenant.key, history, rate=QUIET) as load:
            began = time.monotonic()
            points.append(Point(0, QUIET))

            def look_until(enough: Any) -> None:
                while not enough():
                    seen.append(watch(installation, began))
                    time.sleep(2)

            def since() -> float:
                return seen[-1].second - points[-1].second

            look_until(lambda: seen and since() > QUIET_SECONDS)
            points += [Point(time.monotonic() - began, QUIET), Point(time.monotonic() - began + 0.1, BUSY)]
            load.rate = BUSY
            look_until(lambda: since() > BUSY_SECONDS and (seen[-1].wanted >= MANY or since() > LONGEST))
            points += [Point(time.monotonic() - began, BUSY), Point(time.monotonic() - began + 0.1, QUIET)]
            load.rate = QUIET
            look_until(lambda: seen[-1].wanted == 2 or since() > LONGEST)
            look_until(lambda: since() > 30)
            points.append(Point(time.monotonic() - began, QUIET))
        verdict = check(installation, tenant.http, history)
    keep(seen, points, load, len(verdict.violations))
    assert not verdict.broken, str(verdict)
    assert not load.failed, told(load.failed)
    most = max(each.wanted for each in seen)
    assert most >= MANY, _steps(seen)
    assert seen[-1].wanted == 2, _steps(seen)
    if FULL:
        moments = predicted(seen, points)
        steps = (simulation.steps(moments), _steps(seen))
        assert max(moment.replicas for moment in moments) - most in (-1, 0, 1), steps
        apart = _apart(seen, moments)
        assert not apart, (apart, *steps)


def predicted(seen: Sequence[Seen], points: Sequence[Point]) -> list[Moment]:
    """What the simulator makes of the load, for the phase of metrics-server that fits best."""
    capacity = measured(seen, points)
    courses = [simulation.simulate(SETTINGS, capacity, points, Timing(SYNC, RESOLUTION, phase)) for phase in PHASES]
    return min(courses, key=lambda moments: len(_apart(seen, moments)))


def measured(seen: Sequence[Seen], points: Sequence[Point]) -> Capacity:
    """The CPU time of a pod and of a request, from the end of the busy time and of the quiet one after it; before, pods
    that have just started tell of their start.
    """
    busy = [each for each in seen if points[3].second - 40 < each.second < points[3].second]
    quiet = [each for each in seen if each.second > points[-1].second - 40]
    used, used_quiet = (sum(each.cpu for each in part) / len(part) for part in (busy, quiet))
    pods, pods_quiet = (sum(each.wanted for each in part) / len(part) for part in (busy, quiet))
    # used = pods * idle + BUSY * cost, and so in the quiet time
    idle = (used_quiet * BUSY - used * QUIET) / (pods_quiet * BUSY - pods * QUIET)
    cost = (used - pods * idle) / BUSY
    return Capacity(cost / 1000, REQUEST, 1000, idle=max(0, round(idle)))


def keep(seen: Sequence[Seen], points: Sequence[Point], load: Steady, violations: int) -> None:
    """Write the run into the file that KGENTS_SCALING names, for tests/cluster/page.py."""
    if TARGET:
        document = {
            **facts(),
            "request": REQUEST,
            "points": [(round(second, 1), rate) for second, rate in points],
            "seen": [(round(each.second, 1), each.wanted, each.cpu) for each in seen],
            "requests": load.sent,
            "failed": len(load.failed),
            "violations": violations,
        }
        Path(TARGET).write_text(json.dumps(document, indent=1) + "\n")


def _apart(seen: Sequence[Seen], moments: Sequence[Moment]) -> list[Seen]:
    return [each for each in seen if not _is_near(each, moments)]


def _is_near(each: Seen, moments: Sequence[Moment]) -> bool:
    second = min(each.second, moments[-1].second)  # after which nothing changes
    around = [moment.replicas for moment in moments if abs(moment.second - second) <= SHIFT]
    return min(around) - 1 <= each.wanted <= max(around) + 1


def _steps(seen: Sequence[Seen]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for each in seen:
        if not found or found[-1][1] != each.wanted:
            found.append((round(each.second), each.wanted))
    return found
