"""A cluster is changed and broken under an open loop of requests. What is planned costs no request; nothing that is not
planned loses a usage event, or counts one twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import pytest

from tests.cluster.installation import NAMESPACE, Cluster, Installation
from tests.cluster.steady import Steady, told
from tests.faults.checker import check
from tests.faults.systems import FULL, new_seed
from tests.integration.system.test_durability import after_last_restart, ended
from tests.support.events import read_events
from tests.support.results import record
from tests.support.tenants import Tenant, tenant_of
from tests.support.waiting import wait_until

RATE = 20.0  # requests a second
BEFORE = 40  # requests before the change, and after it
KILLS = 40 if FULL else 6
COMMAND = "tests/cluster/test_changes.py"
LONG = "/sleep 0.3 /words 100"  # half a minute, in which every pod is replaced


@contextmanager
def steady(installation: Installation, history: Path, what: str, rate: float = RATE) -> Iterator[Steady]:
    """The load, with some of it before and after what is done within; then the history is checked."""
    with tenant_of(installation) as tenant:
        with Steady(installation.url, tenant.key, history, rate=rate) as load:
            wait_until(lambda: load.sent >= BEFORE, seconds=30)
            yield load
            ready(installation)
            after = load.sent + BEFORE
            wait_until(lambda: load.sent >= after, seconds=30)
        verdict = check(installation, tenant.http, history)
    record(
        "A cluster that changes loses nothing",
        COMMAND,
        f"{what}: {load.sent:,} requests, {len(load.failed)} failed; {len(verdict.violations)} violations",
    )
    assert not verdict.broken, str(verdict)


def ready(installation: Installation) -> None:
    """Wait until every workload has all its pods."""

    def whole() -> bool:
        found = [each for kind in ("deployments", "statefulsets") for each in installation.cluster.get(kind)["items"]]
        return all(each["status"].get("readyReplicas", 0) == each["spec"]["replicas"] for each in found)

    wait_until(whole, seconds=180, what="every workload has all its pods")


@contextmanager
def streaming(installation: Installation) -> Iterator[None]:
    """A run whose stream is read meanwhile, and taken up wherever it breaks off: no event is missing, none twice."""
    seen: list[Any] = []

    def read(tenant: Tenant) -> None:
        path, body = f"/v1/sessions/{tenant.session()}/runs", {"input": LONG, "mode": "stream"}
        with tenant.http.stream("POST", path, json=body) as response:
            run = response.raise_for_status().headers["x-run-id"]
            with suppress(httpx2.HTTPError):
                seen.extend(read_events(response))  # up to where it breaks
        wait_until(lambda: ended(tenant.http, run, seen), seconds=120, what="the stream has been read to its end")

    with tenant_of(installation) as tenant, ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read, tenant)
        wait_until(lambda: seen or reading.done(), seconds=30, what="the stream has begun")
        yield
        reading.result()
    assert [int(event.id) for event in seen] == list(range(1, len(seen) + 1))
    assert seen[-1].type == "run.completed"
    said = "".join(event.data["text"] for event in after_last_restart(seen) if event.type == "text.delta")
    assert said == seen[-1].data["output"]["text"]


def restarted(name: str, value: str) -> dict[str, Any]:
    """A change that restarts a workload's pods."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"template": {"metadata": {"annotations": {"kgents.dev/changed": value}}}},
    }


def test_a_rolling_update_fails_no_request(installation: Installation, tmp_path: Path) -> None:
    with steady(installation, tmp_path / "history", "rolling update of API and worker") as load:
        changes = [restarted(name, str(time.time_ns())) for name in ("kgents-api", "kgents-worker")]
        with streaming(installation):
            done = installation.deploy(*changes)
    assert done.returncode == 0, done.stderr
    for name in ("deployment/kgents-api", "deployment/kgents-worker"):
        told_of = [line for line in done.stderr.splitlines() if line.startswith(f"{name}: ")]
        assert any(" of 2 updated, " in line for line in told_of), done.stderr
        assert told_of[-1] == f"{name}: ready"
    assert not load.failed, told(load.failed)


def test_an_image_that_does_not_exist_is_rolled_back_and_fails_no_request(
    installation: Installation, tmp_path: Path
) -> None:
    container = {"name": "api", "image": "localhost/kgents@sha256:" + "1" * 64}
    change = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "kgents-api"},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    with steady(installation, tmp_path / "history", "rollback") as load:
        done = installation.deploy(change)
    assert done.returncode == 1
    assert "its image can't be pulled" in done.stderr
    assert "What was deployed before is back." in done.stderr
    assert not load.failed, told(load.failed)


def test_the_autoscaler_takes_over_the_pods_that_there_are(installation: Installation, tmp_path: Path) -> None:
    without = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "kgents-api"},
        "$patch": "delete",
    }
    fixed = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "kgents-api"},
        "spec": {"replicas": 3},  # another number than an autoscaler before it has set
    }
    done = installation.deploy(without, fixed)
    assert done.returncode == 0, done.stderr
    assert len(installation.pods("kgents", "api")) == 3
    with steady(installation, tmp_path / "history", "the autoscaler takes over") as load:
        before = installation.pods("kgents", "api")
        done = installation.deploy()
        after = installation.pods("kgents", "api")
    installation.cluster.kubectl("scale", "deployment/kgents-api", f"-n{NAMESPACE}", "--replicas=2")  # as it was
    assert done.returncode == 0, done.stderr
    assert sorted(after) == sorted(before)
    assert not load.failed, told(load.failed)


def test_a_node_is_drained_without_a_failed_request(installation: Installation, tmp_path: Path) -> None:
    cluster = installation.cluster
    with steady(installation, tmp_path / "history", "drain of a node") as load:
        node = _node_to_drain(cluster)
        try:
            cluster.kubectl(
                *("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=180s"), seconds=200
            )
            # The bus has two servers left, and its budget is two: the next node would have to wait.
            with pytest.raises(RuntimeError, match="disruption budget"):
                evict(cluster, installation.pods("kgents-nats")[0])
        finally:
            cluster.kubectl("uncordon", node)
    assert not load.failed, told(load.failed)


def evict(cluster: Cluster, pod: str) -> None:
    """Ask for a pod to go, as a drain does. Raises RuntimeError where a disruption budget forbids it."""
    asked = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    cluster.kubectl("create", f"--raw={path}", "--filename=-", given=json.dumps(asked))


def _node_to_drain(cluster: Cluster) -> str:
    """One that has a pod of the API, and not the database, of which there is one."""
    pods = cluster.get("pods")["items"]
    where = {pod["metadata"]["name"]: pod["spec"].get("nodeName", "") for pod in pods}
    database = where["kgents-postgres-0"]
    found = {node for name, node in where.items() if name.startswith("kgents-api") and node and node != database}
    assert found, where
    return min(found)


def test_the_bus_is_restarted_one_server_after_the_other(installation: Installation, tmp_path: Path) -> None:
    cluster = installation.cluster
    before = uids(installation, "kgents-nats")
    ready_servers: list[int] = []

    def replaced() -> bool:
        status = cluster.get("statefulset", "kgents-nats")["status"]
        ready_servers.append(status.get("readyReplicas", 0))
        now = uids(installation, "kgents-nats")
        return ready_servers[-1] == len(now) == len(before) and not now & before

    with steady(installation, tmp_path / "history", "rolling restart of NATS") as load:
        cluster.kubectl("rollout", "restart", "statefulset/kgents-nats", f"-n{NAMESPACE}")
        wait_until(replaced, seconds=240, what="every server of the bus was replaced")
    assert min(ready_servers) >= 2  # a quorum, at every look
    assert not load.failed, told(load.failed)


def uids(installation: Installation, name: str) -> set[str]:
    """Which pods there are of a part: each has an id of its own."""
    return {pod["uid"] for pod in installation.running(name)}


def test_a_restart_of_the_database_loses_nothing(installation: Installation, tmp_path: Path) -> None:
    with steady(installation, tmp_path / "history", "restart of PostgreSQL"):
        installation.cluster.kubectl("delete", "pod", "kgents-postgres-0", f"-n{NAMESPACE}")


def test_pods_that_are_killed_lose_nothing(installation: Installation, tmp_path: Path) -> None:
    seed = new_seed()
    random = Random(seed)
    with steady(installation, tmp_path / "history", f"{KILLS} pods killed, KGENTS_SEED={seed}"):
        for _ in range(KILLS):
            names = ("kgents", "kgents-nats", "kgents-meter", "kgents-postgres")
            pod = random.choice(sorted(pod for name in names for pod in installation.pods(name)))
            installation.cluster.kubectl("delete", "pod", pod, f"-n{NAMESPACE}", "--grace-period=0", "--force")
            ready(installation)
