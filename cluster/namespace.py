"""The namespaces that the cluster lives in: its own processes, mounts and network.

Their first process is the cluster's: when it ends the kernel ends all the others, with their mounts, devices and packet
filter rules. So nothing is left behind, whatever state the cluster was in.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cluster.layout import HOST, LINK, NODE_NETWORK, NODES, POD_NETWORK, RUN, SERVICE_NETWORK

_PIDS = RUN / "init.pid"
_INSIDE = f"{LINK}-in"
BRIDGE = "nodes"


def start() -> None:
    """Make the namespaces, and the network between this machine and the nodes."""
    RUN.mkdir(parents=True)
    log = (RUN / "init.log").open("wb")
    holder = subprocess.Popen(
        [
            *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("--propagation", "private", sys.executable, "-m", "cluster.init"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
    )
    assert holder.stdout
    if holder.stdout.readline() != b"ready\n":
        raise SystemExit(f"Can't make namespaces: {(RUN / 'init.log').read_text()}")
    pid = _child_of(holder.pid)
    _PIDS.write_text(f"{pid} {start_of(pid)}\n")
    _network(pid)


def pid() -> int | None:
    """The first process of the running cluster, if there is one."""
    try:
        known, started = _PIDS.read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(known) if start_of(int(known)) == started else None


def inside(command: Sequence[str | Path]) -> list[str]:
    """The command, as run in the cluster's namespaces."""
    first = pid()
    if first is None:
        raise SystemExit("The test cluster does not run. Start it with `make cluster-up`.")
    return ["nsenter", f"--target={first}", "--mount", "--net", "--pid", "--", *map(str, command)]


def stop() -> None:
    """End the namespaces with everything in them."""
    first = pid()
    if first is None:
        return
    os.kill(first, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while pid() is not None:
        if time.monotonic() > deadline:
            raise SystemExit(f"Process {first} of the test cluster does not end.")
        time.sleep(0.05)
    with contextlib.suppress(subprocess.CalledProcessError):  # it goes with its other end, a moment later
        subprocess.run(["ip", "link", "delete", LINK], check=True, capture_output=True)


def _child_of(parent: int) -> int:
    return int(Path(f"/proc/{parent}/task/{parent}/children").read_text().split()[0])


def start_of(process: int) -> str | None:
    """When a process was started, or None for one that is over; its number alone may be another's by now."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def _network(first: int) -> None:
    _run("ip", "link", "add", LINK, "type", "veth", "peer", "name", _INSIDE, "netns", str(first))
    _run("ip", "address", "add", f"{HOST}/{NODE_NETWORK.prefixlen}", "dev", LINK)
    _run("ip", "link", "set", LINK, "up")
    for network in (POD_NETWORK, SERVICE_NETWORK):
        _run("ip", "route", "add", str(network), "via", str(NODES[0].address))
    _run(*inside(["ip", "link", "set", "lo", "up"]))
    _run(*inside(["ip", "link", "add", "name", BRIDGE, "type", "bridge"]))
    for node in NODES:
        _run(*inside(["ip", "address", "add", f"{node.address}/{NODE_NETWORK.prefixlen}", "dev", BRIDGE]))
    _run(*inside(["ip", "link", "set", "dev", _INSIDE, "master", BRIDGE]))
    _run(*inside(["ip", "link", "set", "dev", _INSIDE, "up"]))
    _run(*inside(["ip", "link", "set", "dev", BRIDGE, "up"]))
    _run(*inside(["ip", "route", "add", "default", "via", str(HOST)]))
    _run(*inside(["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"]))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
