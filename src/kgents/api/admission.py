"""Admission control: how many requests are worked on at once, who is next, and who is told to come back.

A request holds a place while this process works on it: from when it is complete until its run is recorded as started,
or its answer begins. Waiting for a model, and a stream, hold none, so that requests which only wait never count as
load. Within a limit everybody gets a place at once. Beyond it requests wait, in a queue for each tenant, which take
turns; a tenant who has nothing under way does not wait for those who have (the sparse flows of fq_codel, RFC 8290,
section 3.3). So a flood waits for itself.

The limit follows the delay that the event loop adds to everything: it goes down by a part while that is over its target
and up by one while it is under it (AIMD, as in Netflix' concurrency-limits). More places than the loop can serve make
nobody faster; too few starve the grouped commit. The queue is bounded by time, as CoDel does it (RFC 8289): as many may
wait as are served within the longest wait, and who waited for longer than that is refused. How many are served is the
most of the windows within that time, as BBR takes its bandwidth (draft-cardwell-iccrg-bbr-congestion-control): where
nothing is served for a moment, the disk is at a stand, and a queue that is cut then is refused for no lack of capacity.
A refusal costs a few per cent of a request (gate.py), which is what keeps the goodput up.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextvars import Context
from math import ceil
from time import perf_counter

import structlog

from kgents.config import Settings
from kgents.errors import RateLimited, Unavailable
from kgents.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

FEWEST = 16  # places that are never taken away
FIRST = 24  # places at the start
TARGET = 0.004  # seconds that the event loop may add, on average
LESS = 0.9
TICK = 0.02  # seconds between two looks, while somebody waits
STEP = 5  # looks between two changes of the limit
WINDOW = 25  # looks over which it is measured how many are served
FEW = 64  # that may wait however slow everything is
TOLD_EVERY = 250  # looks between two lines in the log


class Place:
    """A request's place, to be left once; leaving it again changes nothing."""

    __slots__ = ("_admission", "_flow")

    def __init__(self, admission: Admission, flow: _Flow) -> None:
        self._admission: Admission | None = admission
        self._flow = flow

    def leave(self) -> None:
        """The process no longer works on the request: it waits, is answered, or has failed."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission._left(self._flow)


class _Flow:
    """A tenant's requests that hold a place, and those that wait for one."""

    __slots__ = ("at_work", "name", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.at_work = 0
        self.waiting: deque[tuple[asyncio.Future[Place], float]] = deque()


class Admission:
    """The places of one API process. To be used on its event loop's thread."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._most = settings.max_at_work
        self._most_waiting = settings.max_waiting
        self._longest = settings.max_wait
        self._metrics = metrics
        self._most_of_one = settings.max_tenant_requests
        self._under_way: Counter[str] = Counter()
        self._flows: dict[str, _Flow] = {}
        self._turns: deque[_Flow] = deque()  # those with requests that wait
        self._ticking = False
        self._context = Context()  # not that of a request
        self._due = 0.0
        self._looks = 0
        self._lag = 0.0
        self._served = 0
        windows = max(1, ceil(self._longest / (WINDOW * TICK)))
        self._fair = deque([self._most_waiting] * windows, maxlen=windows)  # that might wait, by each of them
        self._refused = 0
        self.limit = float(min(FIRST, self._most))
        self.at_work = 0
        self.waiting = 0
        self.allowed = self._most_waiting
        """How many may wait now."""
        metrics.watch_admission(lambda: self.at_work, lambda: self.waiting, lambda: self.limit)

    @property
    def crowded(self) -> bool:
        """Whether as many wait as may; only then anybody is refused."""
        return self.waiting >= self.allowed

    def full(self, name: str) -> bool:
        """Whether the next request of this tenant is to be refused: the queue is full, and so is the tenant's share."""
        if self.waiting < self.allowed:
            return False
        flow = self._flows.get(name)
        mine = len(flow.waiting) if flow else 0
        return mine >= max(1, self.allowed // (len(self._turns) + (not mine))) or self.overfull

    @property
    def overfull(self) -> bool:
        """Whether nobody at all may join the queue."""
        return self.waiting >= 2 * self._most_waiting

    def begin(self, name: str) -> None:
        """Count a request of this tenant until its `end`, whether it holds a place or only waits: a connection and some
        memory are its own. Raises RateLimited (`too-many-requests-under-way`).
        """
        if self._under_way[name] >= self._most_of_one:
            raise RateLimited(
                f"The tenant has {self._most_of_one} requests and streams under way in this process, and may have no "
                "more. Try again when some of them have ended, or leave long runs to the workers (mode `background`).",
                code="too-many-requests-under-way",
                headers={"Retry-After": "1"},
                limit=self._most_of_one,
                kind="under_way",
            )
        self._under_way[name] += 1

    def end(self, name: str) -> None:
        """The request is answered, in full or as far as its client heard it."""
        self._under_way[name] -= 1
        if not self._under_way[name]:
            del self._under_way[name]

    def enter(self, name: str) -> Place | None:
        """A place for a request of this tenant, if there is one now; None says: `wait`."""
        flow = self._flows.get(name)
        if not ((self.at_work < self.limit and not self.waiting) or (flow is None and self.at_work < 2 * self.limit)):
            return None
        if flow is None:
            flow = self._flows[name] = _Flow(name)
        return self._seat(flow)

    async def wait(self, name: str) -> Place:
        """A place, as soon as it is the request's turn. Raises Unavailable (`overloaded`)."""
        if self.overfull:
            raise self.refused("queue")
        flow = self._flows.get(name)
        if flow is None:
            flow = self._flows[name] = _Flow(name)
        turn: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        if not flow.waiting:
            self._turns.append(flow)
        flow.waiting.append((turn, perf_counter()))
        self.waiting += 1
        if not self._ticking:
            self._start()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                turn.result().leave()
            raise

    def refused(self, reason: str) -> Unavailable:
        """The refusal, counted: `queue` (it is full) or `wait` (it took too long)."""
        self.count(reason)
        return overloaded()

    def count(self, reason: str) -> None:
        """Count a refusal."""
        self._refused += 1
        self._metrics.request_refused(reason)

    def _seat(self, flow: _Flow) -> Place:
        flow.at_work += 1
        self.at_work += 1
        return Place(self, flow)

    def _left(self, flow: _Flow) -> None:
        flow.at_work -= 1
        self.at_work -= 1
        if self.waiting:
            self._next()
        self._drop_if_done(flow)

    def _drop_if_done(self, flow: _Flow) -> None:
        if not flow.at_work and not flow.waiting:
            self._flows.pop(flow.name, None)

    def _next(self) -> None:
        """Give the places that are free to those whose turn it is."""
        while self._turns and self.at_work < self.limit:
            flow = self._turns.popleft()
            turn, _ = flow.waiting.popleft()
            self.waiting -= 1
            if flow.waiting:
                self._turns.append(flow)
            if not turn.done():
                self._served += 1
                turn.set_result(self._seat(flow))
            else:
                self._drop_if_done(flow)

    def _start(self) -> None:
        self._ticking = True
        self._looks = self._served = 0
        self._lag = 0.0
        self._due = perf_counter() + TICK
        asyncio.get_running_loop().call_later(TICK, self._look, context=self._context)

    def _look(self) -> None:
        now = perf_counter()
        self._looks += 1
        self._lag += max(0.0, now - self._due)
        if self._looks % STEP == 0:
            self._adapt(self._lag / STEP)
            self._lag = 0.0
        if self._looks % WINDOW == 0:
            self._fair.append(round(self._served / (WINDOW * TICK) * self._longest / 4))
            self.allowed = min(self._most_waiting, max(FEW, *self._fair))
            self._served = 0
        self._expire(now - self._longest)
        self._next()
        if self._refused and self._looks % TOLD_EVERY == 0:
            self._tell()
        if self.waiting:
            self._due = now + TICK
            asyncio.get_running_loop().call_later(TICK, self._look, context=self._context)
        else:
            self._ticking = False
            self._tell()

    def _adapt(self, lag: float) -> None:
        if lag > TARGET:
            self.limit = max(float(min(FEWEST, self._most)), self.limit * LESS)
        else:
            self.limit = min(float(self._most), self.limit + 1)

    def _expire(self, since: float) -> None:
        for flow in list(self._turns):
            while flow.waiting and flow.waiting[0][1] < since:
                turn, _ = flow.waiting.popleft()
                self.waiting -= 1
                if not turn.done():
                    turn.set_exception(self.refused("wait"))
            if not flow.waiting:
                self._turns.remove(flow)
                self._drop_if_done(flow)

    def _tell(self) -> None:
        if self._refused:
            log.warning("more requests than this process can serve", refused=self._refused, waiting=self.waiting)
            self._refused = 0


def overloaded() -> Unavailable:
    """The refusal of a request that there is no room for."""
    return Unavailable(
        "More requests come than this process can serve, and yours was not begun. Try again after the seconds in "
        "Retry-After, and then after twice as long each time.",
        code="overloaded",
        headers={"Retry-After": "1"},
    )
