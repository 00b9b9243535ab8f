"""The control plane: etcd, the API server, the controllers, the scheduler, and the proxy that all nodes share."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cluster import pki, processes
from cluster.layout import (
    API,
    API_SERVICE,
    DOMAIN,
    KUBECONFIG,
    NODES,
    POD_NETWORK,
    RUN,
    SERVICE_NETWORK,
)

ETCD = "http://127.0.0.1:2379"
HPA_PERIOD = 5  # seconds between two looks of the autoscaler, instead of 15, so that tests take less long


def start(programs: Path) -> None:
    """Start all of it; returns once the API server is ready."""
    processes.start(
        "etcd",
        [
            "etcd",
            f"--data-dir={RUN / 'etcd'}",
            f"--listen-client-urls={ETCD}",
            f"--advertise-client-urls={ETCD}",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--logger=zap",
            "--unsafe-no-fsync",  # it is for tests, and gone when it stops
        ],
    )
    processes.start("kube-apiserver", [programs / "kube-apiserver", *_api_server()])
    processes.until(
        lambda: answers(programs, "/readyz"), "the API server is ready", seconds=90, process="kube-apiserver"
    )
    processes.start("kube-controller-manager", [programs / "kube-controller-manager", *_controllers()])
    processes.start("kube-scheduler", [programs / "kube-scheduler", *_own("scheduler"), "--leader-elect=false"])
    processes.start(
        "kube-proxy",
        [
            programs / "kube-proxy",
            f"--kubeconfig={pki.FOLDER / 'proxy.kubeconfig'}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={POD_NETWORK}",
            f"--hostname-override={NODES[0].name}",
            "--conntrack-max-per-core=0",
        ],
    )


def answers(programs: Path, path: str) -> bool:
    """Whether the API server answers this path with 200."""
    command: list[str | Path] = [
        programs / "kubectl",
        f"--kubeconfig={KUBECONFIG}",
        "get",
        f"--raw={path}",
        "--request-timeout=2s",
    ]
    return subprocess.run(command, capture_output=True).returncode == 0


def _api_server() -> list[str]:
    folder = pki.FOLDER
    return [
        f"--etcd-servers={ETCD}",
        f"--advertise-address={NODES[0].address}",
        "--secure-port=6443",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        f"--tls-cert-file={folder / 'api.crt'}",
        f"--tls-private-key-file={folder / 'api.key'}",
        f"--client-ca-file={pki.CA}",
        f"--kubelet-client-certificate={folder / 'api-kubelet.crt'}",
        f"--kubelet-client-key={folder / 'api-kubelet.key'}",
        f"--kubelet-certificate-authority={pki.CA}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
        f"--service-account-signing-key-file={pki.SERVICE_ACCOUNTS}",
        f"--service-account-key-file={pki.SERVICE_ACCOUNTS.with_suffix('.pub')}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--requestheader-client-ca-file={pki.FRONT_CA}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={folder / 'front.crt'}",
        f"--proxy-client-key-file={folder / 'front.key'}",
        "--enable-aggregator-routing=true",
        "--allow-privileged=true",
        "--profiling=false",
    ]


def _controllers() -> list[str]:
    return [
        *_own("controller-manager"),
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--root-ca-file={pki.CA}",
        f"--service-account-private-key-file={pki.SERVICE_ACCOUNTS}",
        f"--cluster-cidr={POD_NETWORK}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        f"--horizontal-pod-autoscaler-sync-period={HPA_PERIOD}s",
    ]


def _own(name: str) -> list[str]:
    path = pki.FOLDER / f"{name}.kubeconfig"
    return [f"--kubeconfig={path}", f"--authentication-kubeconfig={path}", f"--authorization-kubeconfig={path}"]


__all__ = ["API", "API_SERVICE", "HPA_PERIOD", "answers", "start"]
