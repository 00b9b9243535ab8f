"""What the figures were measured on, and what a process takes of it."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from kgents import __version__

ROOT = Path(__file__).parent.parent
_TICKS = os.sysconf("SC_CLK_TCK")


def facts() -> dict[str, str]:
    """The machine, the commit and the date."""
    changed = (
        "" if not _git("status", "--porcelain", "--untracked-files=no") else " with changes that are not committed"
    )
    return {
        "cores": str(os.cpu_count()),
        "CPU": _line("/proc/cpuinfo", "model name"),
        "memory": f"{int(_line('/proc/meminfo', 'MemTotal').split()[0]) / 1024**2:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "kgents": __version__,
        "commit": _git("rev-parse", "--short=12", "HEAD") + changed,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _line(file: str, name: str) -> str:
    for line in Path(file).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "0 unknown"


def rss(pid: int) -> float:
    """The resident memory of a process, in MiB, with what it shares with others."""
    return int(_line(f"/proc/{pid}/status", "VmRSS").split()[0]) / 1024


def pss(pid: int) -> float:
    """The memory of a process, in MiB, with its part of what it shares with others."""
    return int(_line(f"/proc/{pid}/smaps_rollup", "Pss").split()[0]) / 1024


def cpu(pid: int) -> float:
    """The CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def busy() -> float:
    """The CPU seconds that all programs of the machine have used since it started."""
    user, nice, system, _idle, _wait, irq, soft, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft + steal) / _TICKS


def own() -> float:
    """The CPU seconds that this process and its descendants have used; those of descendants that ended included, once
    their parents know of it.
    """
    used: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        pid = int(file.parent.name)
        used[pid] = sum(map(int, fields[11:15]))
        children.setdefault(int(fields[1]), []).append(pid)
    family, todo = 0, [os.getpid()]
    while todo:
        pid = todo.pop()
        family += used.get(pid, 0)
        todo += children.get(pid, [])
    return family / _TICKS
