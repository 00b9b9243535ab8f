"""What the machine's disk takes to keep something: below that no durable commit is."""

from __future__ import annotations

import os
import tempfile
import time
from itertools import pairwise

from bench.report import Scale, Section, Table
from kgents.load.measured import percentile

RATE = 200  # flushes a second: about what kgents does at half of its saturation
SIZE = 64 * 1024
FILE = 8 * 1024 * 1024


def run(_database: str, scale: Scale) -> Section:
    """Flushes at a constant rate, one at a time, and nothing else."""
    took = _flushes(scale.seconds(30))
    pairs = [one + other for one, other in pairwise(took)]
    return Section(
        title="The disk alone",
        how=(
            f"{SIZE // 1024} KiB written in place into a file and flushed with fdatasync, {RATE} times a second, while "
            "nothing else runs. A chat completion waits for two such flushes, one after the other: its admission's and "
            "its result's. The pairs say what of its latency is the disk's."
        ),
        tables=[Table(["flushes", "p50", "p95", "p99", "most"], [_row("one", took), _row("two in a row", pairs)])],
        raw={"seconds": took},
    )


def _row(name: str, values: list[float]) -> list[str]:
    ordered = sorted(values)
    shown = [percentile(ordered, share) for share in (0.5, 0.95, 0.99, 1.0)]
    return [name, *(f"{seconds * 1000:.1f} ms" for seconds in shown)]


def _flushes(seconds: float) -> list[float]:
    took: list[float] = []
    piece = os.urandom(SIZE)
    with tempfile.TemporaryFile(prefix="kgents-bench-") as file:
        descriptor = file.fileno()
        os.posix_fallocate(descriptor, 0, FILE)
        for place in range(0, FILE, SIZE):
            os.pwrite(descriptor, piece, place)
        os.fsync(descriptor)
        began = time.perf_counter()
        while (due := len(took) / RATE) < seconds:
            time.sleep(max(0.0, began + due - time.perf_counter()))  # the rate is constant: nothing is awaited here
            start = time.perf_counter()
            os.pwrite(descriptor, piece, len(took) * SIZE % FILE)
            os.fdatasync(descriptor)
            took.append(time.perf_counter() - start)
    return took
