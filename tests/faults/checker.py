"""The checker: reads a history and what kgents has to say about it, and names everything that does not agree."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from tests.faults.history import Call, read
from tests.support.reached import METERS, Reached
from tests.support.waiting import wait_until

EXPECTED = (0, 200, 202, 409, 429, 503)
"""The statuses of answers that a fault may cause; 0 stands for none."""


@dataclass(slots=True)
class Verdict:
    """What the check came to. Without `violations` nothing is lost or wrong; `late` is each time that it took too long
    to work as before.
    """

    calls: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    violations: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)

    @property
    def broken(self) -> list[str]:
        """Every promise that was not kept."""
        return self.violations + self.late

    def __str__(self) -> str:
        told = "\n".join(self.broken[:20])
        return f"{dict(self.calls)}, {self.runs} runs, {len(self.violations)} violations, {len(self.late)} late\n{told}"


def check(
    up: Reached, client: httpx2.Client, history: Path, *, seconds: float = 120.0, late: Sequence[str] = ()
) -> Verdict:
    """Wait until all work has ended and all usage is delivered, then compare.

    What was answered is there, once, as it was answered; what was refused is not; what is unknown is there at most
    once. The ledger is the sum of the runs, the meter is the ledger, and nothing stays reserved.
    """
    verdict = Verdict(late=list(late))
    try:
        wait_until(lambda: all_ended(client), seconds=seconds, what="all runs have ended")
        up.settled(seconds)
    except TimeoutError as error:
        verdict.violations.append(str(error))
    runs = list(_listed(client, "/v1/runs"))
    verdict.runs = len(runs)
    _check_calls(verdict, list(read(history)), runs)
    _check_sums(verdict, up, client, runs, seconds)
    return verdict


def _check_calls(verdict: Verdict, calls: list[Call], runs: list[dict[str, Any]]) -> None:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        text = str((run["output"] or {}).get("text", ""))
        if run["status"] != "completed" or not text:
            verdict.violations.append(f"run {run['id']} is {run['status']}: {run['error']}")
            continue
        found[text.split()[0]].append(run)
    for call in calls:
        verdict.calls[call.outcome] += 1
        theirs = found.pop(call.name, [])
        if len(theirs) > 1:
            verdict.violations.append(f"{call}: {len(theirs)} runs")
        if call.status not in EXPECTED:
            verdict.violations.append(f"{call}: answered with {call.status}")
        if call.outcome == "refused" and theirs:
            verdict.violations.append(f"{call}: refused, yet carried out")
        if call.outcome != "ok":
            continue
        if [run["id"] for run in theirs] != [call.run]:
            verdict.violations.append(f"{call}: answered, but the runs are {[run['id'] for run in theirs]}")
        elif call.input_tokens is not None:
            used = theirs[0]["usage"]
            if (used["input_tokens"], used["output_tokens"]) != (call.input_tokens, call.output_tokens):
                verdict.violations.append(f"{call}: the run says {used}")
    verdict.violations += [f"runs that nobody asked for: {name}" for name in found]


def _check_sums(
    verdict: Verdict, up: Reached, client: httpx2.Client, runs: list[dict[str, Any]], seconds: float
) -> None:
    expected = {meter: sum(run["usage"][meter] for run in runs) for meter in METERS[1:]} | {"runs": len(runs)}
    ledger = dict.fromkeys(METERS, 0)
    for row in client.get("/v1/usage", params={"window": "month"}).raise_for_status().json()["data"]:
        ledger[row["meter"]] += row["quantity"]
    if ledger != expected:
        verdict.violations.append(f"the ledger has {ledger}, the runs {expected}")
    events = dict.fromkeys(METERS, 0)
    of_runs: Counter[tuple[str, str]] = Counter()
    for event in _listed(client, "/v1/usage/events"):
        events[event["meter"]] += event["quantity"]
        of_runs[event["run_id"], event["meter"]] += event["quantity"]
    for run in runs:
        told = {meter: of_runs[run["id"], meter] for meter in METERS}
        if told != {"runs": 1} | {meter: run["usage"][meter] for meter in METERS[1:]}:
            verdict.violations.append(f"the events of {run['id']} are {told}, the run says {run['usage']}")
    if events != ledger:
        verdict.violations.append(f"the events are {events}, what is kept of them {ledger}")
    balance = client.get("/v1/usage/balance").raise_for_status().json()["meters"]
    if any(row["reserved"] for row in balance):
        verdict.violations.append(f"reserved for nothing: {balance}")
    tenant = client.get("/v1/tenant").raise_for_status().json()["id"]
    with contextlib.suppress(TimeoutError):  # then it is told what there is
        wait_until(lambda: _at_least(up.metered(tenant), ledger), seconds=min(seconds, 30))
    if (meter := up.metered(tenant)) != ledger:
        verdict.violations.append(f"the meter has {meter}, the ledger {ledger}")


def _at_least(meter: dict[str, int], ledger: dict[str, int]) -> bool:
    return all(meter[name] >= ledger[name] for name in METERS)


def all_ended(client: httpx2.Client) -> bool:
    """Whether no run of the client's tenant is waiting or under way; not while nobody answers."""
    try:
        waiting = [
            client.get("/v1/runs", params={"status": status, "limit": 1}).raise_for_status().json()["data"]
            for status in ("queued", "running")
        ]
    except httpx2.HTTPError:
        return False
    return not any(waiting)


def _listed(client: httpx2.Client, path: str) -> Iterator[dict[str, Any]]:
    after = ""
    while True:
        parameters = {"limit": "100"} | ({"after": after} if after else {})
        page = client.get(path, params=parameters).raise_for_status().json()
        yield from page["data"]
        if not page["has_more"]:
            return
        after = page["data"][-1]["id"]
