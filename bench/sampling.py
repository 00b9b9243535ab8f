"""What a process spends its time on, by py-spy: the functions by their own time."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bench.report import Profile

_PLACE = re.compile(r"(?:.*/)?(?:site-packages|src|python3\.\d+)/(.*)")
TOP = 15


def _program() -> str | None:
    beside = Path(sys.executable).parent / "py-spy"
    return str(beside) if beside.exists() else shutil.which("py-spy")


@contextlib.contextmanager
def sample(pid: int, process: str, seconds: float, into: list[Profile]) -> Iterator[None]:
    """Sample a process while the context lasts, for `seconds` of it; without py-spy, nothing is added to `into`."""
    program = _program()
    if program is None:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "samples"
        command = [program, "record", "--pid", str(pid), "--duration", str(max(1, round(seconds))), "--rate", "200"]
        command += ["--format", "raw", "--output", str(output), "--nonblocking"]
        sampler = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                sampler.wait(seconds + 30)
            sampler.kill()
            sampler.wait()
        if output.exists():
            into.append(Profile(process, _top(output.read_text())))


def _top(raw: str) -> list[tuple[float, str]]:
    own: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        own[_short(stack.rpartition(";")[2])] += int(count)
    total = own.total() or 1
    return [(round(100 * count / total, 1), where) for where, count in own.most_common(TOP)]


def _short(frame: str) -> str:
    name, _, place = frame.partition(" (")
    place = place.rstrip(")").rpartition(":")[0]
    found = _PLACE.fullmatch(place)
    return f"{name} ({found[1] if found else Path(place).name})"
