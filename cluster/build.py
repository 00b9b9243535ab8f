"""The cluster's programs: built from Go modules once, and kept by what they were built from."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.layout import CACHE, HERE

KUBERNETES = "v1.34.4"
_VERSION = "k8s.io/component-base/version"
_VERSIONED = re.compile(r"/v\d+$")
_LINK = " ".join(
    ["-s", "-w"]
    + [
        f"-X {_VERSION}.{name}={value}"
        for name, value in {
            "gitVersion": KUBERNETES,
            "gitMajor": "1",
            "gitMinor": "34",
            "gitTreeState": "clean",
        }.items()
    ]
)


@dataclass(frozen=True, slots=True)
class Program:
    """A package of one of the modules in tools/."""

    module: str
    package: str

    @property
    def name(self) -> str:
        """The last part of its package's path that is no version."""
        return _VERSIONED.sub("", self.package).rpartition("/")[2]


PROGRAMS = [
    *(
        Program("kubernetes", f"k8s.io/kubernetes/cmd/{name}")
        for name in (
            "kubelet",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kube-proxy",
            "kubectl",
        )
    ),
    *(
        Program("kubernetes", f"kgents/cluster/tools/kubernetes/{name}")
        for name in ("oracle", "coredns", "cert-manager", "network-policies")
    ),
    Program("kubernetes", "sigs.k8s.io/metrics-server/cmd/metrics-server"),
    Program("kubernetes", "k8s.io/kube-state-metrics/v2"),
    Program("collector", "kgents/cluster/tools/collector"),
    Program("pause", "kgents/cluster/tools/pause"),
]


def build(*names: str) -> Path:
    """Build what is not there yet, or of that what is named; answers the folder with the programs."""
    keys = {module: _key(module) for module in {program.module for program in PROGRAMS}}
    folder = CACHE / "bin" / hashlib.sha256("".join(sorted(keys.values())).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for program in PROGRAMS:
        if (not names or program.name in names) and not (folder / program.name).exists():
            kept = CACHE / "bin" / f"{program.module}-{keys[program.module]}" / program.name
            with one_at_a_time(kept):
                if not kept.exists():
                    _build(program, kept)
            with contextlib.suppress(FileExistsError):  # another process was quicker
                (folder / program.name).symlink_to(kept)
    return folder


@contextlib.contextmanager
def one_at_a_time(target: Path) -> Iterator[None]:
    """Whoever else makes the same file or folder waits here until it is made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_name(f".{target.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(program: Program, target: Path) -> None:
    sys.stderr.write(f"building {program.name}\n")
    unfinished = target.with_name(f".{program.name}.{os.getpid()}")
    # Nobody debugs it, and the compiler may take memory instead of time: a fifth less of its CPU time.
    command = ["go", "build", "-trimpath", "-gcflags=all=-dwarf=false", f"-ldflags={_LINK}", "-o", str(unfinished)]
    command.append(program.package)
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=readonly", "GOGC": "400"}
    subprocess.run(command, cwd=HERE / "tools" / program.module, env=environment, check=True, timeout=1800)
    unfinished.rename(target)


def _key(module: str) -> str:
    """What a module's programs are made of."""
    digest = hashlib.sha256(_LINK.encode())
    digest.update(subprocess.run(["go", "env", "GOVERSION"], capture_output=True, check=True).stdout)
    folder = HERE / "tools" / module
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
