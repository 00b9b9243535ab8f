"""`python -m cluster prepare|up|load ARCHIVE|status|down`: a real Kubernetes of three nodes on this machine, for tests.

It is in namespaces of its own, so it meets no other cluster and leaves nothing behind; it needs root, Linux, Go, and
the Debian packages that scripts/test-packages names.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from cluster import addons, build, control, images, namespace, nodes, pki, processes
from cluster.layout import KUBECONFIG, NODES, RUN

NEEDED = (
    "go",
    "etcd",
    "containerd",
    "runc",
    "iptables",
    "conntrack",
    "ip",
    "unshare",
    "nsenter",
    "buildah",
    "debootstrap",
)


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m cluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("prepare", help="build the programs, and the images that tests deploy")
    commands.add_parser("up", help="start the cluster")
    load = commands.add_parser("load", help="bring an image's archive to all nodes")
    load.add_argument("archive", type=Path)
    commands.add_parser("status", help="what the nodes say")
    commands.add_parser("down", help="stop the cluster, and leave nothing behind")
    options = parser.parse_args()
    if options.command == "prepare":
        if missing := lacking():
            raise SystemExit(missing)
        build.build()
        images.build()
    elif options.command == "up":
        up()
    elif options.command == "load":
        images.load(options.archive)
    elif options.command == "status":
        if namespace.pid() is None:
            raise SystemExit("No test cluster runs. Start one with `make cluster-up`.")
        sys.stdout.write(kubectl("get", "nodes,pods", "--all-namespaces", "--output=wide"))
    else:
        down()


def up() -> None:
    """Start the cluster, and return once its nodes are ready. Raises SystemExit where it can't."""
    if missing := lacking():
        raise SystemExit(missing)
    if namespace.pid() is not None:
        raise SystemExit("The test cluster runs already. Stop it with `make cluster-down`.")
    programs = build.build()
    down()
    began = time.monotonic()
    try:
        namespace.start()
        pki.make()
        control.start(programs)
        for node in NODES:
            nodes.start_runtime(node)
        images.load_pause(programs)
        for node in NODES:
            nodes.start_kubelet(node, programs)
        addons.start(programs)
        processes.until(lambda: ready() == len(NODES), "all nodes are ready", seconds=90, process="node-1-kubelet")
        processes.until(
            lambda: control.answers(programs, "/apis/metrics.k8s.io/v1beta1/nodes"),
            "the metrics of the nodes are there",
            seconds=90,
            process="metrics-server",
        )
    except BaseException:
        namespace.stop()  # what it wrote stays, to be looked at; the next start removes it
        raise
    sys.stderr.write(f"The cluster is ready after {time.monotonic() - began:.0f} s. export KUBECONFIG={KUBECONFIG}\n")


def lacking() -> str:
    """Why no cluster can be started here; empty where one can."""
    if os.geteuid() != 0:
        return "The test cluster needs root: it makes namespaces and control groups."
    if absent := [name for name in NEEDED if shutil.which(name) is None]:
        return f"The test cluster needs {', '.join(absent)}: see scripts/test-packages, and https://go.dev/dl/ for Go."
    return ""


def down() -> None:
    """Stop the cluster if it runs, and remove all that it wrote."""
    namespace.stop()
    nodes.remove_groups()
    shutil.rmtree(RUN, ignore_errors=True)


def ready() -> int:
    """How many nodes are ready."""
    path = '{range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}'
    return kubectl("get", "nodes", f"--output=jsonpath={path}").split().count("True")


def kubectl(*arguments: str) -> str:
    """What kubectl says of the cluster."""
    command: list[str | Path] = [build.build() / "kubectl", f"--kubeconfig={KUBECONFIG}", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


if __name__ == "__main__":
    main()
