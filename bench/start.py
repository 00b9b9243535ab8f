"""How soon kgents serves, how soon its command line helps, and what the API takes at rest."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import machine
from bench.report import Figure, Scale, Section, Table, median, spread
from tests.support.up import Up

REST = 5.0  # seconds before the memory is read


def run(_database: str, scale: Scale) -> Section:
    """Starts on new and on known data folders, the help page, and memory."""
    first: list[float] = []
    again: list[float] = []
    idle: list[float] = []
    part: list[float] = []
    for _ in range(scale.count(5)):
        with tempfile.TemporaryDirectory(prefix="kgents-bench-") as folder:
            for seconds in (first, again):
                up = Up(Path(folder) / "data")
                seconds.append(_answered(up))
                if seconds is again:
                    time.sleep(REST)
                    idle.append(machine.rss(up.pid("api")))
                    part.append(machine.pss(up.pid("api")))
                up.stop()
    helped = [_help() for _ in range(scale.count(20))]
    return Section(
        title="Starting, and memory at rest",
        how=(
            "`kgents up` on SQLite, from the start of the process to the end of the first chat completion, on a new "
            f"data folder and on the same one again; the API process {REST:.0f} s after that; and `kgents --help` as a "
            "process. Files are in the page cache."
        ),
        figures=[
            Figure(
                "`kgents up` to the first answer, new data folder", "under 3 s", spread(first, 2, " s"), _ok(first, 3)
            ),
            Figure("`kgents up` to the first answer, known folder", "under 3 s", spread(again, 2, " s"), _ok(again, 3)),
            Figure("`kgents --help`", "under 0.25 s", spread(helped, 3, " s"), _ok(helped, 0.25)),
            Figure("API process at rest, resident", "under 150 MiB", spread(idle, 0, " MiB"), _ok(idle, 150)),
        ],
        tables=[Table(["API process at rest", "MiB"], [["with its part of what processes share", spread(part)]])],
        raw={"first": first, "again": again, "help": helped, "rss": idle, "pss": part},
    )


def _ok(values: list[float], bound: float) -> bool:
    return median(values) < bound


def _answered(up: Up) -> float:
    began = time.perf_counter()
    up.start()
    with up.client() as client:
        body = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}
        client.post("/v1/chat/completions", json=body).raise_for_status()
    return time.perf_counter() - began


def _help() -> float:
    began = time.perf_counter()
    program = Path(sys.executable).parent / "kgents"
    subprocess.run([program, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began
