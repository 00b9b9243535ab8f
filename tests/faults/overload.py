"""A kgents under three times the load that it can serve, by tenants who do not hold back, beside one who does."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

import orjson

from bench import machine
from kgents.config import Settings
from tests.faults.checker import metered
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


@dataclass(slots=True)
class Overload:
    """What was measured, and what of it breaks a promise: `broken` is what a system must never do, `missed` the figures
    that it is to reach on a machine of its own.
    """

    peak: float = 0.0
    before: Outcome | None = None
    quiet: Outcome | None = None
    noisy: Outcome | None = None
    memory: list[float] = field(default_factory=list)
    refusal: float = 0.0
    """The CPU time of a refusal as a share of that of a good answer."""
    healed: float = float("inf")
    broken: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    @property
    def goodput(self) -> float:
        """Good answers under overload as a share of the peak."""
        assert self.noisy
        assert self.quiet
        return (self.noisy.rate + self.quiet.rate) / self.peak

    @property
    def slower(self) -> float:
        """The quiet tenant's p99 under overload, by its usual one."""
        assert self.quiet
        assert self.before
        return self.quiet.p99 / self.before.p99

    def figure(self) -> str:
        """As a line."""
        assert self.noisy
        assert self.quiet
        assert self.before
        asked = self.noisy.answers.total() + self.noisy.unanswered
        refused = f"{self.noisy.refused} refused, each for {self.refusal:.0%} of a good answer's CPU time"
        latency = f"p99 {self.quiet.p99:.0f} ms, usually {self.before.p99:.0f} ms ({self.slower:.2f} times)"
        return (
            f"{TIMES} times the peak of {self.peak:.0f}/s ({asked} requests): goodput {self.goodput:.0%} of it; "
            f"{refused} (answers by status: {dict(self.noisy.answers)}); memory at most {max(self.memory):.0f} MiB; "
            f"quiet tenant: {latency}, {self.quiet.refused} refused; at {GOODPUT:.0%} of the peak again after "
            f"{self.healed:.0f} s; the generators took {self.noisy.cpu + self.quiet.cpu:.2f} of a core"
        )


def overload(up: Up, noisy: Sequence[Tenant], quiet: Tenant, *, seconds: float) -> Overload:
    """Measure the peak, the quiet tenant's usual latency beside half of the peak, then three times the peak."""
    found = Overload()
    good: Counter[str] = Counter()
    pid = up.pid("api")

    def apply(*orders: Order) -> list[Outcome]:
        outcomes = flood(*orders)
        for order, outcome in zip(orders, outcomes, strict=True):
            good["noisy" if len(order.keys) > 1 else "quiet"] += outcome.good
        return outcomes

    theirs = [tenant.key for tenant in noisy]
    peaks, costs = [], []
    part = max(2.0, seconds / 20)
    apply(Order(up.url, theirs, 2.0, CONNECTIONS[0]))
    for connections in CONNECTIONS * (2 if seconds > 60 else 1):
        used = machine.cpu(pid)
        [closed] = apply(Order(up.url, theirs, part, connections))
        peaks.append(closed.rate)
        costs.append((machine.cpu(pid) - used) / closed.good)
    found.peak, cost = max(peaks), median(costs)
    up.settled(60)
    usual = max(5.0, seconds / 3)
    _, found.before = apply(
        Order(up.url, theirs, usual, MANY, found.peak / 2), Order(up.url, [quiet.key], usual, 8, QUIET)
    )
    used = machine.cpu(pid)
    with _watched(up, found):
        found.noisy, found.quiet = apply(
            Order(up.url, theirs, seconds, MANY, TIMES * found.peak), Order(up.url, [quiet.key], seconds, 8, QUIET)
        )
    used = machine.cpu(pid) - used
    answered = found.noisy.good + found.quiet.good
    found.refusal = (used - answered * cost) / max(1, found.noisy.refused) / cost
    ended = time.monotonic()
    while time.monotonic() - ended < WITHIN:
        [again] = apply(Order(up.url, theirs, 2.0, CONNECTIONS[0]))
        if not again.refused and again.rate >= GOODPUT * found.peak:
            found.healed = time.monotonic() - ended
            break
    _judge(found, again)
    _compare(found, up, noisy, quiet, good, seconds)
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


def _judge(found: Overload, again: Outcome) -> None:
    assert found.noisy
    assert found.quiet
    assert found.before
    noisy, quiet, broken, missed = found.noisy, found.quiet, found.broken, found.missed
    if not noisy.refused:
        broken.append("nobody was refused: the load waits somewhere")
    for status, after, media, body, count in (*noisy.refusals, *quiet.refusals):
        if not refused_well(status, after, media, body):
            broken.append(f"{count} answers with {status}, Retry-After {after!r}, {media}: {body[:200]}")
    if noisy.unanswered or quiet.unanswered:
        broken.append(f"{noisy.unanswered} and {quiet.unanswered} requests were not answered")
    if noisy.p99 > LONGEST * 1000:
        broken.append(f"answers took up to {noisy.p99:.0f} ms")
    if quiet.refused or found.before.refused:
        broken.append(f"the quiet tenant was refused: {quiet.refusals}")
    early = max(found.memory[: max(1, len(found.memory) // 3)])
    if max(found.memory) > MEMORY or found.memory[-1] > GROWTH * early:
        broken.append(f"memory grew from {early:.0f} to {found.memory[-1]:.0f} MiB, at most {max(found.memory):.0f}")
    if again.refused:
        broken.append(f"{WITHIN:g} s after the overload {again.refused} requests are refused")
    if found.refusal > CHEAP:
        broken.append(f"a refusal takes {found.refusal:.0%} of the CPU time of a good answer")
    if found.goodput < GOODPUT:
        missed.append(f"goodput of {found.goodput:.0%} of the peak")
    if found.slower > SLOWER:
        missed.append(f"the quiet tenant's p99 is {found.slower:.2f} times the usual")
    if found.healed > WITHIN:
        missed.append(f"not as before within {WITHIN:g} s: {again.rate:.0f}/s, the peak was {found.peak:.0f}/s")


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
                wait_until(lambda: metered(up, tenant.id) == expected, seconds=30)  # noqa: B023 - called at once
            except TimeoutError:
                found.broken.append(f"the meter has {metered(up, tenant.id)}, the ledger {expected}")
            if any(tenant.balance("reserved").values()):
                found.broken.append(f"reserved for nothing: {tenant.balance('reserved')}")
