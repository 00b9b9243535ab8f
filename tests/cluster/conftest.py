"""One cluster and one installation for all tests of this tier.

It is the cluster of `make cluster-up`, or that of KGENTS_TEST_KUBECONFIG (such as kind's), which must have the images
already. Where there is neither, one is started and stopped again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import __main__ as control
from cluster import build, images, layout, namespace
from tests.cluster.installation import Cluster, Installation

ROOT = Path(__file__).parents[2]
DOCUMENT = "docs/operations/deploy.md"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    given = os.environ.get("KGENTS_TEST_KUBECONFIG")
    if given:
        kubectl = shutil.which("kubectl")
        assert kubectl, "there is no kubectl"
        yield Cluster(Path(given), Path(kubectl))
        return
    if reason := control.lacking():
        pytest.skip(reason)
    started = namespace.pid() is None
    if started:
        _control("up")
    try:
        yield Cluster(layout.KUBECONFIG, build.build() / "kubectl")
    finally:
        if started:
            _control("down")
            assert left_behind() == []


def left_behind() -> list[str]:
    """What a cluster that was stopped has left on this machine: devices, routes, mounts, control groups, files."""
    devices = [device.name for device in Path("/sys/class/net").glob(f"{layout.LINK}*")]
    routes = subprocess.run(["ip", "route"], check=True, capture_output=True, text=True).stdout.splitlines()
    mounts = Path("/proc/mounts").read_text().splitlines()
    groups = Path("/sys/fs/cgroup").glob("**/kgents-node-*")
    return [
        *devices,
        *(route for route in routes if any(str(network) in route for network in layout.NETWORKS)),
        *(mount for mount in mounts if str(layout.RUN) in mount),
        *map(str, groups),
        *map(str, [layout.RUN] if layout.RUN.exists() else []),
    ]


def logs_of_each_node() -> dict[str, Any]:
    """The nodes of our own cluster share one file system, so that each has its logs in a folder of its own."""
    mount = {"name": "logs", "mountPath": "/var/log/pods", "subPathExpr": "$(NODE_NAME)/logs"}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "kgents-log-collector", "namespace": "kgents-logs"},
        "spec": {
            "template": {
                "spec": {
                    "containers": [{"name": "collector", "volumeMounts": [mount]}],
                    "volumes": [{"name": "logs", "hostPath": {"path": str(layout.RUN)}}],
                }
            }
        },
    }


def _control(verb: str) -> None:
    subprocess.run([sys.executable, "-m", "cluster", verb], cwd=ROOT, check=True)


def invoices_at_once() -> dict[str, Any]:
    """Workers that leave no month open after its end, nor a subscription."""
    environment = [{"name": "KGENTS_INVOICE_DELAY", "value": "0"}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "kgents-worker", "namespace": "kgents-agents"},
        "spec": {"template": {"spec": {"containers": [{"name": "worker", "env": environment}]}}},
    }


@pytest.fixture(scope="session")
def installation(cluster: Cluster) -> Installation:
    """The conformance overlay, deployed as docs/operations/deploy.md says."""
    names = {
        "kgents": images.KGENTS,
        "nats": images.NATS,
        "postgres": images.POSTGRES,
        "log-collector": images.LOG_COLLECTOR,
    }
    changes = [invoices_at_once()]
    if "KGENTS_TEST_KUBECONFIG" in os.environ:
        found = names
    else:
        archives = images.build()
        found = {name: images.load(archives[image])[0] for name, image in names.items()}
        changes.append(logs_of_each_node())
    made = Installation(cluster, found, changes)
    if not made.is_there():
        made.follow(DOCUMENT, "### Secrets")
    made.follow(DOCUMENT, "### Deploy")
    return made
