"""Where the network policies of production are enforced, they let through what docs/saas/security.md says, and no more.

Each party of the table is a pod with its labels, in namespaces of their own; each tries every port of every other.
Where nobody listens a way that is open is told by the refusal; one that is closed by silence.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import pytest

from tests.cluster.installation import Installation
from tests.support.flows import NAMESPACE, PEERS, PORTS, documented, ours
from tests.support.manifests import rendered
from tests.support.policies import Peer
from tests.support.waiting import wait_until

OVERLAY = "production"
SPACES = {
    NAMESPACE: "kgents-probes",
    "kgents-logs": "kgents-probes-logs",
    "kong": "kgents-probes-gateway",
    "monitoring": "kgents-probes-monitoring",
    "tracing": "kgents-probes-tracing",
    "default": "kgents-probes-other",
    "kube-system": "kube-system",
}
PODS = {name: peer for name, peer in PEERS.items() if not peer.address}
TWINS = ("api", "nats")  # a pod reaches itself by no network
PROBE = """
import asyncio, json, sys

async def is_open(host, port):
    try:
        async with asyncio.timeout(2.5):  # a lost first packet is sent again after a second
            await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return True
    except (TimeoutError, OSError):
        return False
    return True

async def main(hosts, ports):
    pairs = [(name, port) for name in hosts for port in ports]
    found = await asyncio.gather(*(is_open(hosts[name], port) for name, port in pairs))
    print(json.dumps([pair for pair, opened in zip(pairs, found) if opened]))

asyncio.run(main(json.loads(sys.argv[1]), json.loads(sys.argv[2])))
"""
PYTHON = "/opt/kgents/bin/python"
Flows = set[tuple[str, str, int]]
enforced = pytest.mark.skipif(
    "KGENTS_TEST_KUBECONFIG" in os.environ, reason="it is not known whether that cluster enforces network policies"
)


def pod(peer: Peer, name: str, image: str) -> dict[str, Any]:
    """A pod that does nothing, with the labels of a party."""
    container = {
        "name": "probe",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [PYTHON, "-c", "import time; time.sleep(3600)"],
        "resources": {"requests": {"cpu": "1m", "memory": "16Mi"}, "limits": {"memory": "128Mi"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": SPACES[peer.namespace], "labels": dict(peer.labels)},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": False},
    }


class Parties:
    """A pod for each party."""

    def __init__(self, installation: Installation) -> None:
        self._cluster = installation.cluster
        self._names = {name: f"probe-{name.replace(' ', '-')}" for name in PODS}
        image = installation.images["kgents"]
        labels = {peer.namespace: peer.namespace_labels for peer in PODS.values()}
        self._cluster.apply(
            *(
                {
                    "apiVersion": "v1",
                    "kind": "Namespace",
                    "metadata": {
                        "name": space,
                        "labels": {key: value for key, value in labels[name].items() if key.startswith("kgents.dev/")},
                    },
                }
                for name, space in SPACES.items()
                if space != name
            )
        )
        self._cluster.apply(
            *(pod(peer, self._names[name], image) for name, peer in PODS.items()),
            *(pod(PODS[name], f"{self._names[name]}-twin", image) for name in TWINS),
        )
        self._addresses = {name: self._address(PODS[name], self._names[name]) for name in PODS}
        self._twins = {name: self._address(PODS[name], f"{self._names[name]}-twin") for name in TWINS}

    def enforce(self) -> None:
        """Have the overlay's policies between them."""
        for each in rendered(OVERLAY):
            if each["kind"] == "NetworkPolicy":
                text = json.dumps(each)
                for name in (NAMESPACE, "kgents-logs"):  # others are told by their role
                    text = text.replace(f'"{name}"', f'"{SPACES[name]}"')
                self._cluster.apply(json.loads(text))

    def flows(self) -> Flows:
        """What each can reach of the others, where one of the two is ours."""
        mine = ours(OVERLAY)
        with ThreadPoolExecutor(len(PODS)) as pool:
            found = pool.map(self._reached_from, PODS)
            return {
                (source, target, port)
                for source, reached in zip(PODS, found, strict=True)
                for target, port in reached
                if source in mine or target in mine
            }

    def remove(self) -> None:
        """Leave nothing behind."""
        for name, space in SPACES.items():
            if space != name:
                self._cluster.kubectl("delete", "namespace", space, "--wait=false")
        self._cluster.kubectl("delete", "pod", self._names["dns"], "-nkube-system", "--wait=false")

    def _reached_from(self, source: str) -> list[tuple[str, int]]:
        others = {name: address for name, address in self._addresses.items() if name != source}
        hosts = others | ({source: self._twins[source]} if source in TWINS else {})
        where = f"-n{SPACES[PODS[source].namespace]}"
        command = (PYTHON, "-c", PROBE, json.dumps(hosts), json.dumps(PORTS))
        return [(name, port) for name, port in json.loads(self._exec(where, self._names[source], command))]

    def _exec(self, where: str, name: str, command: tuple[str, ...]) -> str:
        return self._cluster.kubectl("exec", where, name, "--", *command)

    def _address(self, peer: Peer, name: str) -> str:
        def address() -> Any:
            status = self._cluster.get("pod", name, SPACES[peer.namespace])["status"]
            running = [each for each in status.get("containerStatuses", ()) if "running" in each["state"]]
            return status.get("podIP") if running else None

        return str(wait_until(address, seconds=120, what=f"{name} runs"))


@pytest.fixture(scope="module")
def parties(installation: Installation) -> Iterator[Parties]:
    made = Parties(installation)
    yield made
    made.remove()


def expected() -> Flows:
    """The rows of the table between pods."""
    return {flow for flow in documented(OVERLAY) if flow[0] in PODS and flow[1] in PODS}


def everything(mine: list[str]) -> Flows:
    """Every port of every pair of which one is ours."""
    pairs = [(one, other) for one, other in product(PODS, PODS) if one in mine or other in mine]
    return {(one, other, port) for (one, other), port in product(pairs, PORTS) if one != other or one in TWINS}


@enforced
def test_exactly_the_documented_flows_are_let_through(parties: Parties) -> None:
    """The control comes first: without policies every way is open."""
    assert parties.flows() == everything(ours(OVERLAY))
    parties.enforce()
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: parties.flows() == expected(), seconds=15)  # until all is known to whoever enforces them
    assert parties.flows() == expected()
