"""What `kgents loadtest --pods` sees of an installation."""

from __future__ import annotations

from kgents.load.pods import Pods
from tests.cluster.installation import NAMESPACE, Installation
from tests.support.waiting import wait_until


def test_the_pods_are_seen_with_what_they_are_and_take(installation: Installation) -> None:
    cluster = installation.cluster
    pods = Pods(NAMESPACE, (str(cluster.kubectl_program), f"--kubeconfig={cluster.kubeconfig}"))

    def measured() -> bool:
        found = pods.look()
        return bool(found) and all(use.memory > 0 for use in found.values())

    wait_until(measured, seconds=90, what="metrics-server tells of every pod")
    found = pods.look()

    components = ("kgents-api", "kgents-worker", "kgents-nats")
    assert all(any(name.startswith(component) for name in found) for component in components)
    assert all("restarts, image sha256:" in use.identity for use in found.values())
