"""The first process of the cluster's namespaces. It reaps what is left to it, until it is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

OWN = ("/run", "/var/lib/cni", "/var/lib/kubelet")
"""Where runtimes leave things in fixed places: the cluster has them of its own."""


def main() -> None:
    """Make mounts shared inside (kubelet's reach the containers), say so, and reap."""
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    for folder in OWN:
        Path(folder).mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    sys.stdout.write("ready\n")
    sys.stdout.close()
    while True:
        signal.sigwait({signal.SIGCHLD})
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


if __name__ == "__main__":
    main()
