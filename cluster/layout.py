"""Where the test cluster's files are, and its addresses. Nothing of it lies outside of these."""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("KGENTS_CACHE") or Path.home() / ".cache" / "kgents") / "cluster"
"""What is built once and kept: programs and images, by what they were built from."""

RUN = Path(os.environ.get("KGENTS_CLUSTER_RUN", "/var/lib/kgents-cluster"))
"""What the running cluster writes; gone when it stops. Short, since it holds sockets."""

KUBECONFIG = RUN / "kubeconfig"

HOST = IPv4Address("10.213.0.1")
"""This machine, as the cluster sees it."""
NODE_NETWORK = IPv4Network("10.213.0.0/24")
POD_NETWORK = IPv4Network("10.213.16.0/20")
SERVICE_NETWORK = IPv4Network("10.213.32.0/20")
NETWORKS = (NODE_NETWORK, POD_NETWORK, SERVICE_NETWORK)
API_SERVICE = SERVICE_NETWORK[1]
DNS_SERVICE = SERVICE_NETWORK[10]
DOMAIN = "cluster.local"
LINK = "kgents-k8s"
"""The one network device that is seen on this machine; the others are in the cluster's own namespace."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster: a containerd and a kubelet with an address, and pods of a range of their own."""

    number: int

    @property
    def name(self) -> str:
        return f"node-{self.number}"

    @property
    def zone(self) -> str:
        return f"zone-{self.number}"

    @property
    def address(self) -> IPv4Address:
        return NODE_NETWORK[10 + self.number]

    @property
    def pods(self) -> IPv4Network:
        return list(POD_NETWORK.subnets(new_prefix=24))[self.number]

    @property
    def folder(self) -> Path:
        return RUN / self.name

    @property
    def socket(self) -> Path:
        return self.folder / "containerd.sock"


NODES = [Node(1), Node(2), Node(3)]
API = f"https://{NODES[0].address}:6443"
