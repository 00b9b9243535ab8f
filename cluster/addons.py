"""What a cluster has beside its control plane: names, the metrics of pods, network policies, and volumes."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from cluster import pki, processes
from cluster.layout import DNS_SERVICE, DOMAIN, KUBECONFIG, NODES, POD_NETWORK, RUN

VOLUMES = 32
_FIRST = NODES[0].address
_METRICS_PORT = 4443
_QUEUE = "100"  # of the kernel, for packets; its number is the one that the controller of network policies takes


def start(programs: Path) -> None:
    """Start CoreDNS, metrics-server and the controller of network policies beside the cluster, on its first node, and
    tell it of them.
    """
    (RUN / "Corefile").write_text(_corefile())
    processes.start("coredns", [programs / "coredns", f"-conf={RUN / 'Corefile'}"])
    server = pki.FOLDER / "metrics-server"
    metrics = pki.FOLDER / "metrics.kubeconfig"
    processes.start(
        "metrics-server",
        [
            programs / "metrics-server",
            f"--kubeconfig={metrics}",
            f"--authentication-kubeconfig={metrics}",
            f"--authorization-kubeconfig={metrics}",
            f"--tls-cert-file={server}.crt",
            f"--tls-private-key-file={server}.key",
            f"--kubelet-certificate-authority={pki.CA}",
            "--kubelet-preferred-address-types=InternalIP",
            "--metric-resolution=15s",
            f"--bind-address={_FIRST}",
            f"--secure-port={_METRICS_PORT}",
        ],
    )
    _enforce_policies(programs)
    apply(programs, [*_service("kube-dns", str(DNS_SERVICE), [("dns", "UDP", 53), ("dns-tcp", "TCP", 53)])])
    apply(programs, [*_service("metrics-server", None, [("https", "TCP", _METRICS_PORT)]), _api_service()])
    apply(programs, [_storage_class(), *map(_volume, range(VOLUMES))])


def _enforce_policies(programs: Path) -> None:
    """Have each new connection between pods asked for. Those with a node itself are free, as the tests' own are."""
    processes.start("network-policies", [programs / "network-policies", KUBECONFIG, NODES[0].name])
    between = ("--source", str(POD_NETWORK), "--destination", str(POD_NETWORK), "--match", "conntrack")
    ask = ("--ctstate", "NEW", "--jump", "NFQUEUE", "--queue-num", _QUEUE)
    processes.run(["iptables", "--table", "mangle", "--append", "FORWARD", *between, *ask])


def apply(programs: Path, objects: Sequence[dict[str, Any]]) -> None:
    """Apply objects to the cluster."""
    text = yaml.safe_dump_all(objects).encode()
    processes.run([programs / "kubectl", f"--kubeconfig={KUBECONFIG}", "apply", "--filename=-"], given=text)


def _corefile() -> str:
    return f""".:53 {{
    bind {_FIRST}
    errors
    ready {_FIRST}:8181
    kubernetes {DOMAIN} in-addr.arpa {{
        kubeconfig {pki.FOLDER / "dns.kubeconfig"}
        ttl 5
    }}
    cache 5
}}
"""


def _service(name: str, address: str | None, ports: Sequence[tuple[str, str, int]]) -> list[dict[str, Any]]:
    """A Service without pods, and the process outside that it leads to."""
    where = {"name": name, "namespace": "kube-system"}
    numbers = [{"name": port, "protocol": protocol, "port": number} for port, protocol, number in ports]
    targets = [{**each, "targetPort": each["port"]} for each in numbers]
    if name == "metrics-server":
        targets = [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": _METRICS_PORT}]
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": where,
            "spec": {"ports": targets} | ({"clusterIP": address} if address else {}),
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**where, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [str(_FIRST)], "conditions": {"ready": True}}],
            "ports": numbers,
        },
    ]


def _api_service() -> dict[str, Any]:
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {
            "group": "metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "service": {"name": "metrics-server", "namespace": "kube-system"},
            "caBundle": base64.b64encode(pki.CA.read_bytes()).decode(),
        },
    }


def _storage_class() -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "standard",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
    }


def _volume(number: int) -> dict[str, Any]:
    folder = RUN / "volumes" / str(number)
    folder.mkdir(parents=True)
    folder.chmod(0o777)  # a hostPath's owner is nobody's but the host's
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"volume-{number}"},
        "spec": {
            "capacity": {"storage": "20Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "standard",
            "hostPath": {"path": str(folder)},
        },
    }
