"""A capacity: throughput at several sizes, the law that fits it, and what follows for a deployment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kgents.errors import Unprocessable
from kgents.load import machine, run, sizing, target, usl, verdict
from kgents.load.measured import Counts, figures
from kgents.load.profiles import Step
from kgents.load.sizing import Demand, Proposal
from kgents.load.target import Target

SIZES = (1, 2, 4, 8, 16, 32, 64)  # requests at once
SIMULATED_START = 5.0  # seconds from a pod's creation to its readiness, as docs/saas/autoscaling.md has it


async def measure(
    at: Target,
    program: Path,
    watcher: run.Watcher,
    stress: Mapping[str, Any],
    *,
    tenants: int,
    seconds: float,
    command: str,
) -> dict[str, Any]:
    """Throughput with so many requests at once, for each size twice: upwards, then downwards, so that a drift does not
    look like scaling. Raises Unprocessable when it can't be believed, or is of something else than the stress run.
    """
    began = datetime.now(UTC)
    before = await target.look(at)
    of = {"version": before.version, "commit": run.commit_of(at), "modes": before.modes()}
    compare({"machine": machine.facts(), "target": of}, stress)  # before minutes go by
    points: list[dict[str, Any]] = []
    async with run.loaded(program, at, tenants) as load:
        await load.vegeta.closed(SIZES[-1], run.WARM, Counts())
        for size in (*SIZES, *reversed(SIZES)):
            step, counts = Step(f"{size} at once", 0, seconds), Counts()
            watcher.begin(step)
            samples, seen = await run.observed(load.vegeta.closed(size, seconds, counts), at, watcher, counts)
            found = figures(samples, rate=0, seconds=seconds)
            watcher.end({"name": step.name, **found})
            points.append(
                {
                    "size": size,
                    "rate": found["achieved"],
                    "errors": found["errors"],
                    "latency_ms": found["latency_ms"],
                    "cores": {name: use["cores"] for name, use in seen["processes"].items()},
                    "generator": seen["generator"],
                    "unwell": seen["unwell"],
                    "backlog": await run.settled(at),
                }
            )
        after = await target.look(at)
    document: dict[str, Any] = {
        "schema": 1,
        "command": command,
        "began": began.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine.facts(),
        "target": {"url": at.url, "tenants": tenants, **of},
        "before": before.document(),
        "after": after.document(),
        "backlog": points[-1]["backlog"],
        "points": points,
    }
    steps: dict[str, Any] = {"profile": {"searches": False}, "steps": []}
    wrong = [reason.text for reason in verdict.target(document, {})]
    wrong += [reason.text for reason in verdict.integrations({**document, **steps}, {})]
    wrong += [reason.text for reason in verdict.points(document)]
    others = sum(point["generator"]["other_programs_cores"] for point in points) / len(points)
    if at.is_own and (noisy := verdict.noise(others, int(document["machine"]["cores"]))):
        wrong.append(noisy.text)
    if wrong:
        raise Unprocessable(f"The measurement is not valid: {'; '.join(wrong)}. Run it again.", code="not-valid")
    return {name: value for name, value in document.items() if name not in ("before", "after")}


def conclude(measured: Mapping[str, Any], stress: Mapping[str, Any], demand: Demand) -> dict[str, Any]:
    """What is measured, with the law, the proposal and its reasons: what evidence/capacity.json holds. The same answer
    for the same input, so that a test can tell whether somebody changed the numbers by hand.
    """
    proposal, basis = sizing.propose(stress, demand)
    compare(measured, stress)
    points = [usl.Point(point["size"], point["rate"]) for point in measured["points"]]
    fit = usl.fit(points)
    return {
        **measured,
        "usl": fit.document(),
        "stress": _part(stress),
        "demand": asdict(demand),
        "basis": basis,
        "proposal": asdict(proposal),
        "reasoning": [
            _law(fit, points, float(stress["knee"])),
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


def compare(measured: Mapping[str, Any], stress: Mapping[str, Any]) -> None:
    """Raises Unprocessable where a stress run and a measurement are not of the same kgents on the same machine."""
    one, other = (
        {"machine": each.get("machine"), **{name: each["target"].get(name) for name in ("version", "commit", "modes")}}
        for each in (measured, stress)
    )
    if differ := [name for name in one if one[name] != other[name]]:
        raise Unprocessable(
            f"The stress run and the measurement differ in: {', '.join(differ)}. Run both again, one after the other.",
            code="capacity",
        )


def _law(fit: usl.Fit, points: Sequence[usl.Point], knee: float) -> str:
    best, law = max(points, key=lambda point: point.rate), fit.law
    seen = f"The most that was measured is {best.rate:.0f} requests/s, with {best.size} at once; the knee, {knee:g}"
    seen += f" requests/s, is {knee / best.rate:.0%} of it."
    if doubts := fit.doubts(points):
        return f"{seen} No limit follows from the law that fits best: {doubts}."
    return (
        f"{seen} By the law that fits best, one request at a time takes {1000 / law.rate:.1f} ms, and there are "
        f"{law.most:.0f} requests/s at most, {law.best}: a fit, not a bound."
    )


def _part(stress: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("offered", "achieved", "met", "latency_ms", "first_token_ms", "processes")
    steps: Sequence[Mapping[str, Any]] = stress["steps"]
    return {
        **{name: stress[name] for name in ("command", "began", "valid", "knee")},
        "machine": stress["machine"],
        "target": {name: stress["target"][name] for name in ("p99_ms", "commit", "version", "modes")},
        "steps": [{name: step[name] for name in kept} for step in steps],
    }


def proposal(document: Mapping[str, Any]) -> Proposal:
    """The proposal that a capacity.json holds, worked out again from its measurements."""
    return sizing.propose(document["stress"], Demand(**document["demand"]))[0]
