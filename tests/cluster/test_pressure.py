"""A pod of the API without memory or CPU time: alerts have something to fire for, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitoring.external import CADVISOR, EXTERNAL, KUBE_STATE_METRICS
from tests.cluster.installation import NAMESPACE, Installation
from tests.cluster.others import asked_by, others
from tests.cluster.test_changes import steady
from tests.support.prometheus import Prometheus
from tests.support.waiting import wait_until

HOGS = """
import os, time
with open("/proc/1/oom_score_adj", "w") as file:
    file.write("1000")  # of all, it is the API that the kernel is to end; the others are small
for _ in range(60):
    if os.fork() == 0:
        kept = b"x" * 12_000_000
        time.sleep(30)
        os._exit(0)
    time.sleep(0.05)
time.sleep(30)
"""
CPU = "150m"  # for a pod that needs as much for its requests alone, two of which often fall into 0.1 s
BUSY = 30.0  # requests a second


def status_of(installation: Installation, pod: str) -> dict[str, Any]:
    found: dict[str, Any] = installation.cluster.get("pod", pod)["status"]["containerStatuses"][0]
    return found


@pytest.fixture(scope="module")
def prometheus(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It has seen every pod of the API before anything happens: an alert may be about what has changed."""
    with others(installation.cluster, tmp_path_factory.mktemp("others")) as server:
        seen = "kube_pod_container_status_restarts_total", "container_cpu_usage_seconds_total"
        for metric in seen:
            wait_until(
                lambda metric=metric: {pod for pod, _ in about(server, metric)} >= set(installation.pods("kgents")),
                seconds=90,
                what=f"{metric} tells of every pod",
            )
        yield server


def about(prometheus: Prometheus, expr: str) -> set[tuple[str, str]]:
    """The pods and containers of which there is an answer."""
    found = [series["metric"] for series in prometheus.query(expr) if "container" in series["metric"]]
    return {(labels["pod"], labels["container"]) for labels in found if labels["namespace"] == NAMESPACE}


def test_a_pod_out_of_memory_is_seen_and_loses_nothing(
    installation: Installation, prometheus: Prometheus, tmp_path: Path
) -> None:
    pod = installation.pods("kgents", "api")[0]
    alert = asked_by("KgentsContainerOutOfMemory")
    assert (pod, "api") not in about(prometheus, alert)
    before = status_of(installation, pod)["restartCount"]
    with steady(installation, tmp_path / "history", "the API out of memory"):
        with pytest.raises(RuntimeError):
            installation.cluster.kubectl("exec", f"-n{NAMESPACE}", pod, "--", "/usr/bin/python3.11", "-c", HOGS)
        wait_until(lambda: status_of(installation, pod)["restartCount"] > before, seconds=60)
    assert status_of(installation, pod)["lastState"]["terminated"]["reason"] == "OOMKilled"
    wait_until(lambda: (pod, "api") in about(prometheus, alert), seconds=60, what="the alert is about the pod")


@pytest.fixture
def little_cpu(installation: Installation) -> Iterator[None]:
    container = {"name": "api", "resources": {"requests": {"cpu": CPU}, "limits": {"cpu": CPU}}}
    change = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "kgents-api"},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    assert installation.deploy(change, seconds=300).returncode == 0
    yield
    assert installation.deploy().returncode == 0


@pytest.mark.usefixtures("little_cpu")
def test_a_pod_without_enough_cpu_is_seen_and_loses_nothing(
    installation: Installation, prometheus: Prometheus, tmp_path: Path
) -> None:
    alert = asked_by("KgentsCpuThrottled")
    with steady(installation, tmp_path / "history", "the API throttled", rate=BUSY):
        pods = {(pod, "api") for pod in installation.pods("kgents", "api")}
        wait_until(lambda: about(prometheus, alert) & pods, seconds=120, what="the alert is about a pod of the API")


@pytest.mark.parametrize("source", [KUBE_STATE_METRICS, CADVISOR], ids=["kube-state-metrics", "cAdvisor"])
def test_every_metric_that_alerts_and_panels_ask_for_is_told(prometheus: Prometheus, source: str) -> None:
    """After a container has ended, and one had a limit of its CPU time: before, there is nothing of some."""
    told = prometheus.metrics()
    wanted = {metric.name: metric.labels for metric in EXTERNAL.values() if metric.source == source}
    missing = {name: labels - told.get(name, set()) for name, labels in wanted.items()}
    assert {name for name, labels in missing.items() if labels or name not in told} == set()
