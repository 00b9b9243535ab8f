"""The nodes: for each a containerd, a kubelet, a network for its pods and a part of the control groups."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import yaml

from cluster import namespace, pki, processes
from cluster.layout import DNS_SERVICE, DOMAIN, NODES, Node

PAUSE = "kgents.test/pause:1"
CNI_PROGRAMS = Path("/usr/lib/cni")
_GROUPS = Path("/sys/fs/cgroup")
_PLUGINS = "/var/lib/kubelet/device-plugins/kubelet.sock"
_MEMORY = 16 * 1024 * 1024  # KiB that are to be free, so that the images of all nodes (5 GiB) can be kept in memory


def start_runtime(node: Node) -> None:
    """Start the node's containerd."""
    for name in ("cni", "containerd", "ipam", "logs", "plugins"):
        (node.folder / name).mkdir(parents=True)
    if _available() >= _MEMORY:  # else the disk is busy for minutes, and every fsync waits
        processes.run(["mount", "-t", "tmpfs", "tmpfs", node.folder / "containerd"])
    (node.folder / "containerd.toml").write_text(_containerd(node))
    (node.folder / "cni" / "10-bridge.conflist").write_text(json.dumps(_network(node)))
    processes.start(f"{node.name}-containerd", ["containerd", "--config", node.folder / "containerd.toml"])
    processes.until(node.socket.exists, f"containerd of {node.name} answers", process=f"{node.name}-containerd")


def start_kubelet(node: Node, programs: Path) -> None:
    """Start the node's kubelet, which registers the node; returns once the next one may be started.

    Each kubelet removes one and the same socket and then listens there, whatever its own folder is. Of two that do so
    at a time one ends.
    """
    _make_groups(node)
    processes.run(["rm", "--force", _PLUGINS])
    (node.folder / "resolv.conf").write_text("")
    (node.folder / "kubelet.yaml").write_text(yaml.safe_dump(_kubelet(node)))
    processes.start(
        f"{node.name}-kubelet",
        [
            programs / "kubelet",
            f"--config={node.folder / 'kubelet.yaml'}",
            f"--kubeconfig={pki.FOLDER / f'{node.name}.kubeconfig'}",
            f"--root-dir={node.folder / 'kubelet'}",
            f"--hostname-override={node.name}",
            f"--node-ip={node.address}",
            f"--node-labels=topology.kubernetes.io/zone={node.zone}",
            f"--containerd={node.socket}",  # where its metrics learn which container a control group is
        ],
    )
    seen = Path(f"/proc/{namespace.pid()}/root{_PLUGINS}")
    processes.until(seen.is_socket, f"the kubelet of {node.name} listens", process=f"{node.name}-kubelet")


def _available() -> int:
    """The memory that programs can have, in KiB."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


def remove_groups() -> None:
    """Remove the nodes' control groups, which no process is in any more."""
    for node in NODES:
        for controller in _controllers():
            top = controller / _group(node)
            for path in sorted(top.rglob("*/"), reverse=True) if top.exists() else ():
                with contextlib.suppress(FileNotFoundError):
                    path.rmdir()
            with contextlib.suppress(FileNotFoundError):
                top.rmdir()


def _group(node: Node) -> str:
    return f"kgents-{node.name}"


def _controllers() -> list[Path]:
    """The controllers' hierarchies (control groups of version 1)."""
    return [path for path in _GROUPS.iterdir() if path.is_dir() and not path.is_symlink()]


def _make_groups(node: Node) -> None:
    for controller in _controllers():
        group = controller / _group(node)
        group.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (controller / name).exists():
                (group / name).write_text((controller / name).read_text())


def _containerd(node: Node) -> str:
    folder = node.folder
    return f"""version = 2
root = "{folder}/containerd"
state = "{folder}/state"

[grpc]
address = "{node.socket}"

[ttrpc]
address = "{node.socket}.ttrpc"

[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
disable_apparmor = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PROGRAMS}"
conf_dir = "{folder}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def _network(node: Node) -> dict[str, object]:
    return {
        "cniVersion": "0.4.0",
        "name": f"pods-{node.name}",
        "plugins": [
            {
                "type": "bridge",
                "bridge": f"pods-{node.number}",
                "isGateway": True,
                "ipMasq": False,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(node.folder / "ipam"),
                    "ranges": [[{"subnet": str(node.pods)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _kubelet(node: Node) -> dict[str, object]:
    certificate = pki.FOLDER / f"{node.name}-server"
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": str(node.address),
        "healthzBindAddress": str(node.address),
        "readOnlyPort": 0,
        "tlsCertFile": f"{certificate}.crt",
        "tlsPrivateKeyFile": f"{certificate}.key",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki.CA)},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDNS": [str(DNS_SERVICE)],
        "clusterDomain": DOMAIN,
        "resolvConf": str(node.folder / "resolv.conf"),
        "containerRuntimeEndpoint": f"unix://{node.socket}",
        "podLogsDir": str(node.folder / "logs"),
        "volumePluginDir": str(node.folder / "plugins"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{_group(node)}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "featureGates": {"KubeletInUserNamespace": True},  # the machine may lack CAP_SYS_RESOURCE
        "localStorageCapacityIsolation": False,
        "enforceNodeAllocatable": [],
        "evictionHard": {"memory.available": "1Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }
