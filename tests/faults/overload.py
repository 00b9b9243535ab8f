"""A kgents under three times the load that it can serve, by tenants who do not hold back, beside one who does."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from statistics import median

import orjson

from bench import machine
from bench.load import percentile
from kgents.config import Settings
from tests.faults.flood import Order, Outcome, flood
from tests.support.tenants import METERS, Tenant
from tests.support.up import Up
from tests.support.waiting import wait_until

TIMES = 3  # the capacity
GOODPUT = 0.9  # of the peak
SLOWER = 1.5  # times the usual p99 of a quiet tenant
GROWTH = 1.1  # of the memory, from the first third of the overload to its end
MEMORY = 256.0  # MiB of the API process
CHEAP = 0.25  # of the CPU time of a good answer, for a refusal
WITHIN = 10.0  # seconds after which it serves as before
QUIET = 20.0  # requests a second
CONNECTIONS = 32, 64
MANY = 1500  # connections of the flood: enough never to hold it back
LONGEST = 2 * Settings().max_wait  # seconds that an answer may take: the wait for a place, and as much for the rest
ROUND = 30.0  # seconds of overload at once


@dataclass(frozen=True, slots=True)
class Round:
    """A quiet tenant's usual time beside half of the peak, then three times the peak. The machine is not equally fast
    at all times, so what is compared was measured within a minute.
    """

    peak: float
    """Good answers a second at the most, just before and just after, on average."""
    before: Outcome
    quiet: Outcome
    noisy: Outcome
    refusal: float
    """The CPU time of a refusal as a share of that of a good answer."""
    healed: float
    """Seconds after the overload until it served as much as it did soon after."""

    @property
    def goodput(self) -> float:
        """Good answers under overload as a share of the peak."""
        return (self.noisy.rate + self.quiet.rate) / self.peak


@dataclass(slots=True)
class Overload:
    """What was measured, and what of it breaks a promise: `broken` is what a system must never do, `missed` the figures
    that it is to reach on a machine of its own.
    """

    rounds: list[Round] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    @property
    def goodput(self) -> float:
        """The median of the rounds'."""
        return median(each.goodput for each in self.rounds)

    @property
    def refusal(self) -> float:
        """The median of the rounds'."""
        return median(each.refusal for each in self.rounds)

    @property
    def healed(self) -> float:
        """The longest of the rounds'."""
        return max(each.healed for each in self.rounds)

    @property
    def usual(self) -> float:
        """The quiet tenant's p99 beside half of the peak, in milliseconds."""
        return _p99([each.before for each in self.rounds])

    @property
    def crowded(self) -> float:
        """Its p99 under overload."""
        return _p99([each.quiet for each in self.rounds])

    @property
    def slower(self) -> float:
        """The quiet tenant's p99 under overload, by its usual one."""
        return self.crowded / self.usual

    def figure(self) -> str:
        """As a line."""
        noisy = [each.noisy for each in self.rounds]
        answers = sum((outcome.answers for outcome in noisy), Counter[int]())
        peaks = [each.peak for each in self.rounds]
        goodputs = [each.goodput for each in self.rounds]
        refused = (
            f"{sum(outcome.refused for outcome in noisy):,} refused, each for {self.refusal:.0%} of a good answer's "
            "CPU time"
        )
        said = ", ".join(f"{status}: {count:,}" for status, count in sorted(answers.items()))
        quiet = f"p99 {self.crowded:.0f} ms, usually {self.usual:.0f} ms ({self.slower:.2f} times)"
        generators = median(each.noisy.cpu + each.quiet.cpu for each in self.rounds)
        return (
            f"{TIMES} times the peak of {min(peaks):.0f} to {max(peaks):.0f}/s, {len(self.rounds)} times: goodput "
            f"{self.goodput:.0%} of it ({min(goodputs):.0%} to {max(goodputs):.0%}); {refused} (answers by status: "
            f"{said}); memory at most {max(self.memory):.0f} MiB; quiet tenant: {quiet}, "
            f"{sum(each.quiet.refused for each in self.rounds)} refused; at {GOODPUT:.0%} of the peak again after "
            f"{self.healed:.0f} s; the generators took {generators:.2f} of a core"
        )


def _p99(outcomes: Sequence[Outcome]) -> float:
    return percentile(sorted(chain.from_iterable(outcome.latencies for outcome in outcomes)), 0.99)


def _serves(outcome: Outcome, enough: float) -> bool:
    return not outcome.refused and outcome.rate >= enough


class _Loads:
    """Applies loads to one system, and counts whose requests were answered well."""

    def __init__(self, up: Up, noisy: Sequence[Tenant], quiet: Tenant, seconds: float) -> None:
        self._up = up
        self._noisy = [tenant.key for tenant in noisy]
        self._quiet = [quiet.key]
        self._part = min(6.0, max(2.0, seconds / 20))
        self._pid = up.pid("api")
        self.good: Counter[str] = Counter()
        self._closed(2.0, CONNECTIONS[0])  # what is done once, such as loading what is used first
        rates = {connections: self._closed(self._part, connections).rate for connections in CONNECTIONS}
        self._best = max(rates, key=lambda connections: rates[connections])

    def peak(self) -> tuple[float, float]:
        """The most good answers a second, and the CPU time of each."""
        self._up.settled(60)
        used = machine.cpu(self._pid)
        closed = self._closed(self._part, self._best)
        return closed.rate, (machine.cpu(self._pid) - used) / closed.good

    def healing(self, enough: float) -> list[tuple[float, Outcome]]:
        """What it serves from now on, with the seconds since, until that is enough or it is too late."""
        began = time.monotonic()
        found: list[tuple[float, Outcome]] = []
        while not found or (not _serves(found[-1][1], enough) and time.monotonic() - began < WITHIN):
            again = self._closed(2.0, self._best)
            found.append((time.monotonic() - began, again))
        return found

    def both(self, seconds: float, rate: float) -> tuple[Outcome, Outcome, float]:
        """So many requests a second of the noisy tenants beside the quiet one's few; with the CPU time that it took."""
        used = machine.cpu(self._pid)
        noisy, quiet = self._apply(
            Order(self._up.url, self._noisy, seconds, MANY, rate),
            Order(self._up.url, self._quiet, seconds, 8, QUIET, keep=True),
        )
        return noisy, quiet, machine.cpu(self._pid) - used

    def _closed(self, seconds: float, connections: int) -> Outcome:
        return self._apply(Order(self._up.url, self._noisy, seconds, connections))[0]

    def _apply(self, *orders: Order) -> list[Outcome]:
        outcomes = flood(*orders)
        for order, outcome in zip(orders, outcomes, strict=True):
            self.good["quiet" if order.keys == self._quiet else "noisy"] += outcome.good
        return outcomes


def overload(up: Up, noisy: Sequence[Tenant], quiet: Tenant, *, seconds: float) -> Overload:
    """Three times the peak for so many seconds in all, in rounds."""
    found = Overload()
    loads = _Loads(up, noisy, quiet, seconds)
    rounds = max(1, round(seconds / ROUND))
    peak, cost = loads.peak()
    for _ in range(rounds):
        _, before, _ = loads.both(max(5.0, seconds / rounds / 3), peak / 2)
        with _watched(up, found):
            flooded, beside, used = loads.both(seconds / rounds, TIMES * peak)
        after = loads.healing(GOODPUT * peak)
        peak_after, cost_after = loads.peak()
        mean_peak, mean_cost = (peak + peak_after) / 2, (cost + cost_after) / 2
        refusals = used - (flooded.good + beside.good) * mean_cost
        healed = [moment for moment, again in after if _serves(again, GOODPUT * peak_after)]
        found.rounds.append(
            Round(
                peak=mean_peak,
                before=before,
                quiet=beside,
                noisy=flooded,
                refusal=refusals / max(1, flooded.refused) / mean_cost,
                healed=healed[0] if healed else float("inf"),
            )
        )
        if after[-1][1].refused:
            found.broken.append(f"{WITHIN:g} s after the overload {after[-1][1].refused} requests are refused")
        peak, cost = peak_after, cost_after
    _judge(found)
    _compare(found, up, noisy, quiet, loads.good, seconds)
    return found


@contextmanager
def _watched(up: Up, found: Overload) -> Iterator[None]:
    """Read the API's memory, and ask for its health, as long as the context lasts."""
    ended = threading.Event()
    pid = up.pid("api")

    def watch() -> None:
        while not ended.wait(0.5):
            found.memory.append(machine.rss(pid))
            began = time.monotonic()
            try:
                status = up.health()["status"]
            except Exception as error:
                found.broken.append(f"the health page does not answer: {error!r}")
                continue
            if status != "ok" or time.monotonic() - began > LONGEST:
                found.broken.append(f"the health page says {status} after {time.monotonic() - began:.1f} s")

    thread = threading.Thread(target=watch, name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(30)


def _judge(found: Overload) -> None:
    broken, missed = found.broken, found.missed
    for each in found.rounds:
        noisy, quiet = each.noisy, each.quiet
        if not noisy.refused:
            broken.append("nobody was refused: the load waits somewhere")
        for status, after, media, body, count in (*noisy.refusals, *quiet.refusals):
            if not refused_well(status, after, media, body):
                broken.append(f"{count} answers with {status}, Retry-After {after!r}, {media}: {body[:200]}")
        if noisy.unanswered or quiet.unanswered:
            broken.append(f"{noisy.unanswered} and {quiet.unanswered} requests were not answered")
        if noisy.p99 > LONGEST * 1000:
            broken.append(f"answers took up to {noisy.p99:.0f} ms")
        if quiet.refused or each.before.refused:
            broken.append(f"the quiet tenant was refused: {quiet.refusals}")
    early = max(found.memory[: max(1, len(found.memory) // 3)])
    if max(found.memory) > MEMORY or found.memory[-1] > GROWTH * early:
        broken.append(f"memory grew from {early:.0f} to {found.memory[-1]:.0f} MiB, at most {max(found.memory):.0f}")
    if found.refusal > CHEAP:
        broken.append(f"a refusal takes {found.refusal:.0%} of the CPU time of a good answer")
    if found.goodput < GOODPUT:
        missed.append(f"goodput of {found.goodput:.0%} of the peak")
    if found.slower > SLOWER:
        missed.append(f"the quiet tenant's p99 is {found.slower:.2f} times the usual")
    if found.healed > WITHIN:
        missed.append(f"not as before within {WITHIN:g} s")


def refused_well(status: int, after: str, media: str, body: str) -> bool:
    """Whether an answer is a refusal as the OpenAI-compatible routes document it."""
    if status not in (429, 503) or not after.isdigit() or int(after) < 1 or media != "application/json":
        return False
    error = orjson.loads(body)["error"]
    return set(error) == {"message", "type", "param", "code"} and bool(error["message"])


def _compare(
    found: Overload, up: Up, noisy: Sequence[Tenant], quiet: Tenant, good: Counter[str], seconds: float
) -> None:
    """Each good answer is a run in the ledger, no other answer is, and the meter has what the ledger has."""
    up.settled(60 + seconds)
    for group, tenants in (("noisy", noisy), ("quiet", [quiet])):
        ledgers = [tenant.balance() for tenant in tenants]
        if (runs := sum(ledger["runs"] for ledger in ledgers)) != good[group]:
            found.broken.append(f"{good[group]} good answers to {group} tenants, and {runs} runs")
        for tenant, ledger in zip(tenants, ledgers, strict=True):
            expected = {name: ledger[name] for name in METERS}
            try:
                wait_until(lambda: up.metered(tenant.id) == expected, seconds=30)  # noqa: B023 - called at once
            except TimeoutError:
                found.broken.append(f"the meter has {up.metered(tenant.id)}, the ledger {expected}")
            if any(tenant.balance("reserved").values()):
                found.broken.append(f"reserved for nothing: {tenant.balance('reserved')}")
