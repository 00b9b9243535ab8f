"""A pod of the API without memory or CPU time: it shows in the metrics that alerts look at, and loses nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.installation import NAMESPACE, Installation
from tests.cluster.test_changes import steady
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


def counted(installation: Installation, metric: str) -> float:
    """What cAdvisor, in every kubelet, counts for the API's containers."""
    nodes = [each["metadata"]["name"] for each in installation.cluster.get("nodes")["items"]]
    pages = [
        installation.cluster.kubectl("get", f"--raw=/api/v1/nodes/{node}/proxy/metrics/cadvisor") for node in nodes
    ]
    line = re.compile(rf'^{metric}{{([^}}]*container="api"[^}}]*)}} (\S+)', re.MULTILINE)
    return sum(
        float(value) for page in pages for labels, value in line.findall(page) if f'namespace="{NAMESPACE}"' in labels
    )


def status_of(installation: Installation, pod: str) -> dict[str, Any]:
    found: dict[str, Any] = installation.cluster.get("pod", pod)["status"]["containerStatuses"][0]
    return found


def test_a_pod_out_of_memory_is_seen_and_loses_nothing(installation: Installation, tmp_path: Path) -> None:
    pod = installation.pods("kgents", "api")[0]
    before = status_of(installation, pod)["restartCount"]
    with steady(installation, tmp_path / "history", "the API out of memory"):
        with pytest.raises(RuntimeError):
            installation.cluster.kubectl("exec", f"-n{NAMESPACE}", pod, "--", "/usr/bin/python3.11", "-c", HOGS)
        wait_until(lambda: status_of(installation, pod)["restartCount"] > before, seconds=60)
    # What kube-state-metrics tells as kube_pod_container_status_last_terminated_reason. cAdvisor's own count of such
    # ends needs the kernel's log, which a machine of tests may not have.
    assert status_of(installation, pod)["lastState"]["terminated"]["reason"] == "OOMKilled"


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
def test_a_pod_without_enough_cpu_is_seen_and_loses_nothing(installation: Installation, tmp_path: Path) -> None:
    with steady(installation, tmp_path / "history", "the API throttled", rate=BUSY):
        metric = "container_cpu_cfs_throttled_periods_total"
        before = counted(installation, metric)
        wait_until(lambda: counted(installation, metric) > before, seconds=90, what="the API is throttled")
