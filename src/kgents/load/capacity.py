"""A capacity: throughput at several sizes, the law that fits it, and what follows for a deployment."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kgents.errors import Unprocessable
from kgents.load import machine, run, sizing, target, usl, verdict
from kgents.load.measured import Counts, figures
from kgents.load.profiles import Step
from kgents.load.resources import watched
from kgents.load.sizing import Demand, Proposal
from kgents.load.target import Target

SIZES = (1, 2, 4, 8, 16, 32, 64)  # requests at once
SIMULATED_START = 5.0  # seconds from a pod's creation to its readiness, as docs/saas/autoscaling.md has it


async def measure(
    at: Target, program: Path, watcher: run.Watcher, *, tenants: int, seconds: float, command: str
) -> dict[str, Any]:
    """Throughput with so many requests at once, for each size twice: upwards, then downwards, so that a drift does not
    look like scaling. Raises Unprocessable when the target changed or an integration was off.
    """
    began = datetime.now(UTC)
    before = await target.look(at)
    points: list[dict[str, Any]] = []
    async with run.loaded(program, at, tenants) as load:
        await load.vegeta.closed(SIZES[-1], run.WARM, Counts())
        for size in (*SIZES, *reversed(SIZES)):
            step, counts = Step(f"{size} at once", 0, seconds), Counts()
            watcher.begin(step)
            since, clocks = time.monotonic(), run.Clocks()
            async with watched(at.source) as course:
                samples = await load.vegeta.closed(size, seconds, counts)
            others = clocks.since(course.figures())["other_programs_cores"]
            watcher.tell(time.monotonic() - since, counts)
            found = figures(samples, rate=0, seconds=seconds)
            watcher.end({"name": step.name, **found})
            processes = course.figures()
            points.append(
                {
                    "size": size,
                    "rate": found["achieved"],
                    "errors": found["errors"],
                    "latency_ms": found["latency_ms"],
                    "cores": {name: use["cores"] for name, use in processes.items()},
                    "other_programs_cores": others,
                }
            )
            await run.settled(at)
        left = await run.settled(at)
        after = await target.look(at)
    document: dict[str, Any] = {
        "schema": 1,
        "command": command,
        "began": began.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine.facts(),
        "target": {"url": at.url, "version": before.version, "tenants": tenants, "commit": run.commit_of(at)},
        "before": before.document(),
        "after": after.document(),
        "backlog": left,
        "points": points,
    }
    steps: dict[str, Any] = {"profile": {"searches": False}, "steps": []}
    wrong = [reason.text for reason in verdict.target(document, {})]
    wrong += [reason.text for reason in verdict.integrations({**document, **steps}, {})]
    others = sum(point["other_programs_cores"] for point in points) / len(points)
    if at.is_own and (noisy := verdict.noise(others, int(document["machine"]["cores"]))):
        wrong.append(noisy.text)
    wrong += [f"{point['errors']} errors with {point['size']} at once" for point in points if point["errors"]]
    if wrong:
        raise Unprocessable(f"The measurement is not valid: {'; '.join(wrong)}. Run it again.", code="not-valid")
    return {name: value for name, value in document.items() if name not in ("before", "after")}


def conclude(measured: Mapping[str, Any], stress: Mapping[str, Any], demand: Demand) -> dict[str, Any]:
    """What is measured, with the law, the proposal and its reasons: what evidence/capacity.json holds. The same answer
    for the same input, so that a test can tell whether somebody changed the numbers by hand.
    """
    fit = usl.fit([usl.Point(point["size"], point["rate"]) for point in measured["points"]])
    proposal, basis = sizing.propose(stress, demand)
    return {
        **measured,
        "usl": fit.document(),
        "stress": _part(stress),
        "demand": asdict(demand),
        "basis": basis,
        "proposal": asdict(proposal),
        "reasoning": [
            _law(fit.law, float(stress["knee"])),
            *sizing.reasoning(proposal, basis, demand, stress["target"]["p99_ms"]),
        ],
        "simulation": {
            "cpu_per_request": basis["api"]["cpu_per_request"],
            "request": proposal.api_cpu,
            "limit": 1000,  # one process, which Python keeps to about a core
            "idle": max(1, round(1000 * basis["api"]["idle"])),
            "start": SIMULATED_START,
        },
    }


def _law(law: usl.Law, knee: float) -> str:
    return (
        f"What was measured serves one request at a time in {1000 / law.rate:.1f} ms, and {law.most:.0f} requests/s at "
        f"most, {law.best}: beyond that requests only wait longer, so that more load needs more pods. The knee, "
        f"{knee:g} requests/s, is {knee / law.most:.0%} of it."
    )


def _part(stress: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("offered", "achieved", "met", "latency_ms", "first_token_ms", "processes")
    steps: Sequence[Mapping[str, Any]] = stress["steps"]
    return {
        **{name: stress[name] for name in ("command", "began", "valid", "knee")},
        "target": {name: stress["target"][name] for name in ("p99_ms", "commit", "version")},
        "steps": [{name: step[name] for name in kept} for step in steps],
    }


def proposal(document: Mapping[str, Any]) -> Proposal:
    """The proposal that a capacity.json holds, worked out again from its measurements."""
    return sizing.propose(document["stress"], Demand(**document["demand"]))[0]
