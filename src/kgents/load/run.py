"""A load test from its preparation to its report."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from kgents.errors import Unprocessable
from kgents.load import driver, machine, target, traffic, verdict
from kgents.load.measured import Counts, Samples, figures
from kgents.load.profiles import Profile, Step, meets, next_rate
from kgents.load.resources import watched
from kgents.load.target import Target
from kgents.load.vegeta import Vegeta, made

LOOK = 2.0  # seconds between two looks at the health page
SETTLE = 30.0  # seconds in which the usage has to reach the meter after a run
KEPT_UP = 5.0  # seconds in which it has to after a step of a search: otherwise the workers fell behind its rate
WARM = 2.0  # seconds of load, at most, that come first and do not count


class Watcher(Protocol):
    """Someone who watches the run. It is told often."""

    def begin(self, step: Step) -> None:
        """A step begins."""
        ...

    def tell(self, second: float, counts: Counts) -> None:
        """So far in the step."""
        ...

    def end(self, found: Mapping[str, Any]) -> None:
        """The step's figures."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `target_ms` is the 99th percentile that is to be met; `command` is what the user typed."""

    profile: Profile
    target_ms: float
    tenants: int
    command: str
    expected: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The programs that make the load, with what they ask."""

    url: str
    vegeta: Vegeta
    streams: Sequence[traffic.Request]
    chats: Sequence[traffic.Request]

    async def apply(self, step: Step, profile: Profile, counts: Counts) -> Samples:
        """A step's load, in full."""
        if profile.users:
            return await driver.users(
                *(self.url, self.chats), users=profile.users, wait=profile.wait, seconds=step.seconds, counts=counts
            )
        parts = []
        async with asyncio.TaskGroup() as tasks:
            if profile.streams < 1:
                whole = step.rate * (1 - profile.streams)
                parts.append(tasks.create_task(self.vegeta.at_rate(whole, step.seconds, counts)))
            if profile.streams > 0:
                rate = step.rate * profile.streams
                parts.append(tasks.create_task(driver.streams(self.url, self.streams, rate, step.seconds, counts)))
        return Samples.merged([part.result() for part in parts])


@contextlib.asynccontextmanager
async def loaded(program: Path, at: Target, tenants: int) -> AsyncIterator[Loaded]:
    """Tenants in the target for as long as the context lasts, and the programs that ask in their names."""
    async with target.tenants(at, tenants) as guests, made(program, at.url, traffic.mixed(guests)) as vegeta:
        yield Loaded(at.url, vegeta, traffic.chats(guests, stream=True), traffic.chats(guests))


async def run(plan: Plan, at: Target, program: Path, watcher: Watcher) -> dict[str, Any]:
    """Run it; the report as JSON, with its verdict. Raises KgentsError when it could not be run."""
    began = datetime.now(UTC)
    before = await target.look(at)
    if before.health["status"] == "unreachable":
        raise Unprocessable(
            f"{at.url} has no health page of a kgents. Is it up? Try: kgents health --url {at.url}", code="load-target"
        )
    async with loaded(program, at, plan.tenants) as load:
        first = plan.profile.steps[0]
        warm = Step("warm-up", max(1.0, first.rate), min(WARM, first.seconds))
        await load.apply(warm, plan.profile, Counts())
        steps = [found async for found in _steps(plan, at, load, watcher)]
        left = await settled(at)
        after = await target.look(at)
    document: dict[str, Any] = {
        "schema": 1,
        "command": plan.command,
        "began": began.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine.facts(),
        "profile": asdict(plan.profile),
        "target": {
            "url": at.url,
            "version": before.version,
            "commit": commit_of(at),
            "is_own": at.is_own,
            "modes": before.modes(),
            "tenants": plan.tenants,
            "p99_ms": plan.target_ms,
        },
        "before": before.document(),
        "after": after.document(),
        "backlog": left,
        "steps": steps,
    }
    if plan.profile.searches:
        document["knee"] = max((step["offered"] for step in steps if step["met"]), default=None)
    found = verdict.reasons(document, plan.expected)
    document["valid"] = not found
    document["reasons"] = [reason._asdict() for reason in found]
    return {**document, **_short(document)}


def _short(document: Mapping[str, Any]) -> dict[str, Any]:
    """What `kgents ready` reads of a report: the whole run in a few figures."""
    steps: Sequence[Mapping[str, Any]] = document["steps"]
    highest = max(steps, key=lambda step: float(step["offered"]))
    return {
        "started": document["began"],
        "commit": document["target"]["commit"],
        "why": "; ".join(reason["text"] for reason in document["reasons"]),
        "offered": highest["offered"],
        "achieved": highest["achieved"],
        "errors": sum(step["errors"] for step in steps),
        "p95_ms": highest["latency_ms"].get("p95", highest["first_token_ms"].get("p95")),
    }


def commit_of(at: Target) -> str:
    """The commit that it runs from; `unknown` unless it runs from these sources: a kgents does not tell its own."""
    return machine.commit(target.sources()) if at.is_own else "unknown"


async def _steps(plan: Plan, at: Target, load: Loaded, watcher: Watcher) -> AsyncIterator[dict[str, Any]]:
    steps, found = list(plan.profile.steps), []
    while steps:
        step = steps.pop(0)
        watcher.begin(step)
        one = await _step(step, plan, at, load, watcher)
        if plan.profile.searches:
            one["backlog"] = await settled(at, KEPT_UP)
            one["met"] = one["met"] and one["backlog"] == 0
        watcher.end(one)
        found.append(one)
        yield one
        if plan.profile.searches:
            await settled(at)  # the next step begins with none of it
            rate = next_rate(found)
            steps += [] if rate is None else [Step(step.name, rate, step.seconds)]


async def _step(step: Step, plan: Plan, at: Target, load: Loaded, watcher: Watcher) -> dict[str, Any]:
    counts = Counts()
    samples, seen = await observed(load.apply(step, plan.profile, counts), at, watcher, counts)
    found = figures(samples, rate=step.rate, seconds=step.seconds)
    return {"name": step.name, **found, "met": meets(found, plan.target_ms), **seen}


async def observed(
    load: Awaitable[Samples], at: Target, watcher: Watcher, counts: Counts
) -> tuple[Samples, dict[str, Any]]:
    """The samples of a load, and what was seen while it lasted: the generator's cores, what the target's processes
    took, and which integrations were unwell.
    """
    unwell, clocks = set[tuple[str, str]](), Clocks()
    async with watched(at.source) as course:
        watching = [asyncio.create_task(_tell(watcher, counts)), asyncio.create_task(_health(at, unwell))]
        try:
            samples = await load
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
    processes = course.figures()
    return samples, {"generator": clocks.since(processes), "processes": processes, "unwell": sorted(unwell)}


@dataclass(slots=True)
class Clocks:
    """The CPU time of the generator (this process, and the programs that it started and that have ended) and of all
    programs of the machine.
    """

    began: float = field(default_factory=time.monotonic)
    own: float = field(default_factory=time.process_time)
    children: float = field(default_factory=lambda: children())
    machine: float = field(default_factory=machine.busy)

    def since(self, processes: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
        """The cores that the generator used since then, and those that neither it nor the target's processes did."""
        took = time.monotonic() - self.began
        driver, vegeta = time.process_time() - self.own, children() - self.children
        others = (
            machine.busy() - self.machine - driver - vegeta - took * sum(use["cores"] for use in processes.values())
        )
        return {
            "driver_cores": round(driver / took, 3),
            "vegeta_cores": round(vegeta / took, 3),
            "other_programs_cores": round(max(0.0, others / took), 3),
        }


def children() -> float:
    """The CPU seconds of the programs that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def _tell(watcher: Watcher, counts: Counts) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(0.5)
        watcher.tell(time.monotonic() - began, counts)


async def _health(at: Target, unwell: set[tuple[str, str]]) -> None:
    while True:
        health = await target.look_at_health(at.url)
        if health["status"] == "unreachable":
            unwell.add(("the health page", "unreachable"))
        else:
            looks = {name: health["components"].get(name, {}).get("status", "unknown") for name in verdict.INTEGRATIONS}
            unwell.update((name, status) for name, status in looks.items() if status != "connected")
        await asyncio.sleep(LOOK)


async def settled(at: Target, within: float = SETTLE) -> int | None:
    """Wait until all usage has reached the meter, for so many seconds; how many events had not then, and None where the
    health page does not tell.
    """
    deadline = time.monotonic() + within
    while True:
        components = (await target.look_at_health(at.url))["components"]
        told = [components.get(name, {}).get("backlog") for name in ("sql", "nats")]
        left = None if None in told else sum(told)
        if left == 0 or time.monotonic() > deadline:
            return left
        await asyncio.sleep(0.5)
