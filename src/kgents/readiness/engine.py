"""Checks criteria: side by side, each once those that it needs have been checked."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

from kgents.clock import SECOND, Clock
from kgents.errors import KgentsError
from kgents.readiness.ledger import Ledger
from kgents.readiness.model import HOUR, Broken, Criterion, Found, Graph, Result, Verdict
from kgents.readiness.target import NOTHING, Target
from kgents.readiness.waivers import Waiver

SIDE_BY_SIDE = 6
LEAD = 60 * SECOND  # by how much another machine's clock may be ahead
Tell = Callable[[Criterion, Result | None], None]
"""Is told of a criterion when its check begins (None), and what it came to."""


class Engine:
    """One run over a graph at a target. What it finds goes into the ledger as it is found."""

    def __init__(
        self, graph: Graph, target: Target, ledger: Ledger, waivers: Mapping[str, Waiver], clock: Clock, tell: Tell
    ) -> None:
        self._graph = graph
        self._target = target
        self._ledger = ledger
        self._waivers = waivers
        self._clock = clock
        self._tell = tell

    def run(self, only: Collection[str] = ()) -> dict[str, Result]:
        """Check the criteria (of `only`, or all) and what they need; answers the results of all that was checked.

        Those that disrupt run by themselves, one after another, when everything else has been checked.
        """
        wanted = self._wanted(only)
        # What could not be looked at meanwhile takes nothing away from what was seen before.
        known = self._ledger.latest(self._target.name, but=[Verdict.UNKNOWN]) if self._target.name != NOTHING else {}
        results: dict[str, Result] = {}
        pending: dict[Future[Result], Criterion] = {}
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            left = [each for each in self._graph.order() if each.id in wanted]
            while left or pending:
                for each in [each for each in left if all(need in results for need in self._graph.needs(each))]:
                    if each.disrupts and (pending or any(not other.disrupts for other in left)):
                        continue
                    left.remove(each)
                    self._tell(each, None)
                    pending[pool.submit(self._check, each, results, known.get(each.id))] = each
                    if each.disrupts:
                        break
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    criterion = pending.pop(future)
                    result = future.result()
                    if not result.earlier:
                        self._ledger.result(result, self._clock.now(), self._target.name, self._target.run)
                    results[criterion.id] = waived(result, self._waivers, self._clock.now())
                    self._tell(criterion, results[criterion.id])
        return results

    def _wanted(self, only: Collection[str]) -> set[str]:
        wanted: set[str] = set()
        waiting = [each for each in self._graph.criteria if not only or each.id in only or each.track in only]
        while waiting:
            each = waiting.pop()
            if each.id not in wanted:
                wanted.add(each.id)
                waiting += [self._graph.get(need) for need in self._graph.needs(each)]
        return wanted

    def _check(self, criterion: Criterion, results: Mapping[str, Result], last: Result | None) -> Result:
        open_ = [need for need in self._graph.needs(criterion) if results[need].verdict.stops]
        if open_:
            return self._result(criterion, Verdict.UNKNOWN, f"It needs {', '.join(open_)}, which has to hold first.")
        if criterion.disrupts and not self._target.disrupt:
            return self._recalled(criterion, last)
        started = time.monotonic()
        try:
            found = criterion.check(self._target)
        except Broken as error:
            evidence, lost = self._kept(error.seen)
            result = self._result(criterion, Verdict.FAIL, f"{error.detail}{lost}", evidence)
        except KgentsError as error:
            result = self._result(criterion, Verdict.UNKNOWN, error.detail)
        except Exception as error:  # a check that breaks has shown nothing
            result = self._result(
                criterion, Verdict.UNKNOWN, f"The check itself failed: {type(error).__name__}: {error}."
            )
        else:
            result = self._judged(criterion, found)
        detail = result.detail.encode(errors="backslashreplace").decode()  # it may repeat what a server answered
        return replace(result, detail=detail, seconds=time.monotonic() - started)

    def _kept(self, seen: Mapping[str, Any]) -> tuple[str, str]:
        """The hash of what was seen; or nothing, and why it could not be kept. That ends no run."""
        try:
            return self._ledger.keep(seen), ""
        except (OSError, TypeError, ValueError) as error:
            return "", f" What was seen could not be kept: {error}."

    def _judged(self, criterion: Criterion, found: Found) -> Result:
        evidence, lost = self._kept(found.seen)
        if lost:
            return self._result(criterion, Verdict.UNKNOWN, f"{found.detail}{lost}")
        time_ = found.time if found.time is not None else self._clock.now()
        commit = found.commit or self._target.commit
        result = Result(criterion.id, Verdict.PASS, found.detail, time_, commit, evidence)
        return aged(criterion, result, self._clock.now())

    def _recalled(self, criterion: Criterion, last: Result | None) -> Result:
        if last is None:
            return self._result(
                criterion,
                Verdict.UNKNOWN,
                "It was never shown here; its check breaks something: kgents ready --disrupt",
            )
        if last.verdict is Verdict.PASS and not self._is_of_what_runs(last):
            return self._result(
                criterion, Verdict.UNKNOWN, "It was shown of other images than run now: kgents ready --disrupt"
            )
        return aged(criterion, last, self._clock.now())

    def _is_of_what_runs(self, last: Result) -> bool:
        try:
            return bool(self._ledger.seen(last.evidence).get("images") == self._target.images)
        except KgentsError:
            return False

    def _result(self, criterion: Criterion, verdict: Verdict, detail: str, evidence: str = "") -> Result:
        return Result(criterion.id, verdict, detail, self._clock.now(), self._target.commit, evidence)


def aged(criterion: Criterion, result: Result, now: int) -> Result:
    """The result, or unknown where what it stands on is older than it may be, or from the future."""
    age = now - result.time
    if result.verdict is not Verdict.PASS or -LEAD <= age <= criterion.max_age:
        return result
    why = f"Its evidence is {age / HOUR:.0f} hours old" if age > 0 else "Its evidence is from the future"
    detail = f"{why}, and may be {criterion.max_age // HOUR} at most."
    return replace(result, verdict=Verdict.UNKNOWN, detail=detail)


def waived(result: Result, waivers: Mapping[str, Waiver], now: int) -> Result:
    """The result, or `waived` where it stands in the way and someone answers for that."""
    waiver = waivers.get(result.criterion)
    if waiver is None or not result.verdict.stops:
        return result
    if not waiver.holds(now):
        return replace(result, detail=f"{result.detail} Its waiver ended on {waiver.until}.")
    detail = f"{waiver.reason} ({waiver.owner}, until {waiver.until}). Found: {result.verdict}: {result.detail}"
    return replace(result, verdict=Verdict.WAIVED, detail=detail)
