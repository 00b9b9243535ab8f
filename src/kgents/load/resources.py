"""What the target's processes take of the machine, and which processes they are."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import httpx2

from kgents.errors import KgentsError
from kgents.tls import trusted

_TICKS = os.sysconf("SC_CLK_TCK")
POINTS = 300  # of a course, at most


class Use(NamedTuple):
    """What a process is (`identity` changes when it is started again), and has used: CPU seconds, and MiB it holds."""

    identity: str
    cpu: float
    memory: float


class Source(Protocol):
    """Something that can be asked for the processes, `every` so many seconds."""

    @property
    def every(self) -> float: ...

    def look(self) -> Mapping[str, Use]:
        """Each process by its name. One that is not there is left out."""
        ...


@dataclass(frozen=True, slots=True)
class Local:
    """Processes of this machine, from /proc (Linux)."""

    pids: Mapping[str, int]
    every: float = 1.0

    def look(self) -> dict[str, Use]:
        found = {}
        for name, pid in self.pids.items():
            with contextlib.suppress(OSError, ValueError, StopIteration):
                found[name] = _local(pid)
        return found


def _local(pid: int) -> Use:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    rss = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return Use(f"pid {pid}, started at tick {fields[19]}", (int(fields[11]) + int(fields[12])) / _TICKS, rss / 1024)


@dataclass(frozen=True, slots=True)
class Pages:
    """Processes anywhere, from their pages of metrics in Prometheus' text format. Each is named by its kind, such as
    `api`; where several pages are of a kind, as pods of one are: `kgents-api-1`, in the order of the pages.
    """

    urls: Sequence[str]
    every: float = 1.0
    _trusted: ssl.SSLContext = field(default_factory=trusted, init=False, repr=False)  # read once: it takes long
    _kinds: dict[str, str] = field(default_factory=dict, init=False)
    """What each page was last, so that a name stays also while a page does not answer."""

    def look(self) -> dict[str, Use]:
        found = {}
        for url in self.urls:
            with contextlib.suppress(httpx2.HTTPError, KeyError, ValueError):
                self._kinds[url], found[url] = _page(
                    httpx2.get(url, timeout=5, trust_env=False, verify=self._trusted).raise_for_status().text
                )
        return {self._name(url): use for url, use in found.items()}

    def _name(self, url: str) -> str:
        kind = self._kinds[url]
        same = [each for each in dict.fromkeys(self.urls) if self._kinds.get(each) == kind]
        return kind if len(same) == 1 else f"kgents-{kind}-{same.index(url) + 1}"


def _page(text: str) -> tuple[str, Use]:
    values: dict[str, float] = {}
    build: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        series, _, labels = name.partition("{")
        if series.startswith("process_"):
            values[series] = float(value)
        elif series == "kgents_build_info":
            pairs = (pair.partition("=") for pair in labels.rstrip("}").split(","))
            build = {key: text.strip('"') for key, _, text in pairs}
    identity = f"{build['process']} {build['version']}, started at {values['process_start_time_seconds']:.2f}"
    memory = values["process_resident_memory_bytes"] / 1024**2
    return build["process"], Use(identity, values["process_cpu_seconds_total"], memory)


@dataclass(slots=True)
class Course:
    """What was seen of the processes over time."""

    seconds: list[float] = field(default_factory=list)
    uses: list[Mapping[str, Use]] = field(default_factory=list)

    def add(self, second: float, use: Mapping[str, Use]) -> None:
        """One more look; every second one is forgotten when there are too many."""
        self.seconds.append(second)
        self.uses.append(use)
        if len(self.seconds) > 2 * POINTS:
            del self.seconds[1:-1:2], self.uses[1:-1:2]

    def figures(self) -> dict[str, dict[str, Any]]:
        """For each process: cores used on average and at most, and the most memory (MiB)."""
        found = {}
        for name in sorted({name for use in self.uses for name in use}):
            seen = [(second, use[name]) for second, use in zip(self.seconds, self.uses, strict=True) if name in use]
            cores = [
                round(max(0.0, after.cpu - before.cpu) / (later - earlier), 3)
                for (earlier, before), (later, after) in itertools.pairwise(seen)
                if later > earlier
            ]
            (began, first), (ended, last) = seen[0], seen[-1]
            found[name] = {
                "cpu_seconds": round(last.cpu - first.cpu, 3),
                "cores": round((last.cpu - first.cpu) / (ended - began), 3) if ended > began else 0.0,
                "most_cores": max(cores, default=0.0),
                "most_memory_mib": round(max(use.memory for _, use in seen), 1),
                "memory_growth_mib": round(last.memory - first.memory, 1),
            }
        return found


@contextlib.asynccontextmanager
async def watched(source: Source) -> AsyncIterator[Course]:
    """The course of the processes while the context lasts."""
    course, began = Course(), time.monotonic()

    async def look() -> None:
        course.add(time.monotonic() - began, await asyncio.to_thread(source.look))

    async def keep_looking() -> None:
        while True:
            await asyncio.sleep(source.every)
            with contextlib.suppress(KgentsError):  # a look that fails is one point less of the course
                await look()

    await look()
    watching = asyncio.create_task(keep_looking())
    try:
        yield course
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        await look()
