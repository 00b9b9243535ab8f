"""The machine that a load comes from, and the commit of sources."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path


def facts() -> dict[str, str]:
    """The machine that this runs on."""
    return {
        "CPU": _line("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": _memory(),
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
    }


def commit(sources: Path | None) -> str:
    """The commit of a checkout, with a `+` where tracked files were changed since; `unknown` without one."""
    head = _git(sources, "rev-parse", "--short=12", "HEAD") if sources else ""
    return head + ("+" if head and _git(sources, "status", "--porcelain", "--untracked-files=no") else "") or "unknown"


def busy() -> float:
    """The CPU seconds that all programs of the machine have used since it started; 0 where that is not told."""
    try:
        user, nice, system, _idle, _wait, irq, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    except OSError:
        return 0.0
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def _git(folder: Path | None, *arguments: str) -> str:
    hidden: Mapping[str, str] = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", *arguments]
    try:
        done = subprocess.run(  # noqa: S603 - no shell; the arguments are ours
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=30, env=hidden
        )
    except OSError:
        return ""
    return done.stdout.strip()


def _memory() -> str:
    kibibytes = _line("/proc/meminfo", "MemTotal").split()
    return f"{int(kibibytes[0]) / 1024**2:.0f} GiB" if kibibytes else "unknown"


def _line(file: str, name: str) -> str:
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")
