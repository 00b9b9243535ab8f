"""The cluster's own processes: each started in its namespaces, with a log of its own, and awaited."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster import namespace
from cluster.layout import RUN

LOGS = RUN / "logs"


def start(name: str, command: Sequence[str | Path]) -> subprocess.Popen[bytes]:
    """Start a process that runs until the namespaces end."""
    LOGS.mkdir(exist_ok=True)
    with (LOGS / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            namespace.inside(command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=RUN,
        )


def run(command: Sequence[str | Path], *, seconds: float = 120, given: bytes | None = None) -> str:
    """Run a command in the namespaces to its end; answers what it prints. Raises SystemExit when it fails."""
    done = subprocess.run(namespace.inside(command), input=given, capture_output=True, timeout=seconds)
    if done.returncode:
        text = done.stderr.decode(errors="replace").strip() or done.stdout.decode(errors="replace").strip()
        raise SystemExit(f"`{' '.join(map(str, command))}` failed:\n{text}")
    return done.stdout.decode(errors="replace")


def until(ready: Callable[[], bool], what: str, *, seconds: float = 60, process: str = "") -> None:
    """Wait until it is so. Raises SystemExit with the end of the process's log."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            said = tail(process) if process else ""
            raise SystemExit(f"Waited {seconds:.0f} s in vain until {what}.\n{said}")
        time.sleep(0.1)


def tail(name: str, lines: int = 20) -> str:
    """The end of a process's log."""
    path = LOGS / f"{name}.log"
    if not path.exists():
        return ""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
