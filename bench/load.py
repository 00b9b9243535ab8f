"""Load from this process: closed loop, to find what a server can do, and open loop, to see how it answers at a rate.

In an open loop requests start at a constant rate, whether or not earlier ones were answered, and latency counts from
the moment a request was meant to start: a server that stands still is charged for every request that it kept waiting
(there is no coordinated omission). Connections are bounded; a request that finds none free waits, and its wait counts.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from random import Random
from time import perf_counter, process_time
from typing import Any

import uvloop

from bench.client import CUT, Connection, connect
from kgents.load.measured import percentile

DRAIN = 30.0  # seconds that the last requests of an open loop may take
REST = 5.0  # seconds that the last requests of a closed loop may take
_START = Random(4)
CONNECTION = Connection
"""The class of the connections; one that looks closer may take its place."""
TICK = 0.001  # seconds between two looks at the clock in an open loop


@dataclass(slots=True)
class Load:
    """What came of it. Latencies are in seconds, in ascending order, of the answers with status 200 only."""

    seconds: float
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    unanswered: int = 0
    generator: float = 0.0
    """The CPU seconds that the generator itself took."""

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.statuses[200] / self.seconds

    @property
    def errors(self) -> int:
        """Requests without a good answer."""
        return sum(self.statuses.values()) - self.statuses[200] + self.unanswered

    def percentile(self, share: float) -> float:
        """The latency within which `share` of the good answers came, in seconds; NaN without any."""
        return percentile(self.latencies, share)

    def facts(self) -> dict[str, object]:
        """As JSON."""
        names = {"p50_ms": 0.5, "p99_ms": 0.99, "p99_9_ms": 0.999, "max_ms": 1.0}
        return {
            "requests": sum(self.statuses.values()) + self.unanswered,
            "seconds": round(self.seconds, 3),
            "rate": round(self.rate, 1),
            **{name: round(self.percentile(share) * 1000, 2) for name, share in names.items() if self.latencies},
            "errors": self.errors,
            "statuses": {("cut" if code == CUT else str(code)): count for code, count in sorted(self.statuses.items())},
            "unanswered": self.unanswered,
            "generator_cpu_share": round(self.generator / self.seconds, 3),
        }


class _Generator:
    """Connections, the requests that are sent over them in turn, and what came back."""

    def __init__(self, url: str, requests: Sequence[bytes]) -> None:
        self._url = url
        self._requests = requests
        self._next = _START.randrange(len(requests))  # so that many requests all have their turn
        self._connections: list[Connection] = []
        self._opening: set[asyncio.Task[None]] = set()
        self.result = Load(0.0)
        self.measuring = False

    async def open(self, count: int) -> list[Connection]:
        """Open the connections."""
        self._connections = [await connect(self._url, self._answered, CONNECTION) for _ in range(count)]
        return self._connections

    def close(self) -> None:
        for task in self._opening:
            task.cancel()
        for connection in self._connections:
            connection.close()

    def send(self, connection: Connection, started: float) -> None:
        request = self._requests[self._next]
        self._next = (self._next + 1) % len(self._requests)
        connection.send(request, started)

    def _answered(self, connection: Connection, status: int) -> None:
        if self.measuring:
            self.result.statuses[status] += 1
            if status == 200:
                self.result.latencies.append(perf_counter() - connection.started)
        if connection.open:
            self.free(connection)
            return
        self._connections.remove(connection)
        task = asyncio.create_task(self._reopen())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _reopen(self) -> None:
        await asyncio.sleep(0.01)
        try:
            connection = await connect(self._url, self._answered, CONNECTION)
        except OSError:
            self.result.statuses[CUT] += 1
            await self._reopen()
            return
        self._connections.append(connection)
        self.free(connection)

    def free(self, connection: Connection) -> None:
        """What to do with a connection that has nothing to do."""
        raise NotImplementedError

    def finished(self) -> Load:
        self.result.latencies.sort()
        return self.result


class _Closed(_Generator):
    sending = True
    resting = 0

    def free(self, connection: Connection) -> None:
        if self.sending:
            self.send(connection, perf_counter())
        else:
            self.resting += 1

    async def rest(self) -> None:
        """Send nothing more, and wait for what is under way, but not for long."""
        self.measuring = self.sending = False
        deadline = perf_counter() + REST
        while self.resting < len(self._connections) and perf_counter() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(TICK)


async def closed(url: str, requests: Sequence[bytes], *, connections: int, seconds: float, warm: float = 1.0) -> Load:
    """Each connection sends its next request once it has the answer to the last one. `warm` seconds come first and do
    not count.
    """
    generator = _Closed(url, requests)
    try:
        for connection in await generator.open(connections):
            generator.free(connection)
        await asyncio.sleep(warm)
        generator.measuring = True
        began, used = perf_counter(), process_time()
        await asyncio.sleep(seconds)
        generator.result.seconds = perf_counter() - began
        generator.result.generator = process_time() - used
        await generator.rest()
    finally:
        generator.close()
    return generator.finished()


class _Once(_Generator):
    def __init__(self, url: str, requests: Sequence[bytes]) -> None:
        super().__init__(url, requests)
        self._left = len(requests)
        self.done = asyncio.Event()

    def free(self, connection: Connection) -> None:
        if self._left:
            self._left -= 1
            self.send(connection, perf_counter())
        elif sum(self.result.statuses.values()) == len(self._requests):
            self.done.set()


async def once(url: str, requests: Sequence[bytes], *, connections: int) -> Load:
    """Each request once, over so many connections that each send the next one once they have their answer."""
    generator = _Once(url, requests)
    try:
        opened = await generator.open(connections)
        generator.measuring = True
        began, used = perf_counter(), process_time()
        for connection in opened:
            generator.free(connection)
        async with asyncio.timeout(60 + len(requests) / 50):
            await generator.done.wait()
        generator.result.seconds = perf_counter() - began
        generator.result.generator = process_time() - used
    finally:
        generator.close()
    return generator.finished()


class _Open(_Generator):
    def __init__(self, url: str, requests: Sequence[bytes]) -> None:
        super().__init__(url, requests)
        self._idle: deque[Connection] = deque()
        self.waiting: deque[float] = deque()
        self.measuring = True

    def free(self, connection: Connection) -> None:
        if self.waiting:
            self.send(connection, self.waiting.popleft())
        else:
            self._idle.append(connection)

    def arrive(self, moment: float) -> None:
        """A request is meant to start at `moment`."""
        while self._idle:
            connection = self._idle.popleft()  # in turn, so that none is idle until the server closes it
            if connection.open:
                self.send(connection, moment)
                return
        self.waiting.append(moment)


async def at_rate(
    url: str, requests: Sequence[bytes], *, rate: float, seconds: float, connections: int = 128, warm: float = 1.0
) -> Load:
    """`rate` requests a second for `seconds`, after `warm` seconds of the same that do not count."""
    if warm:
        await at_rate(url, requests, rate=rate, seconds=warm, connections=connections, warm=0)
    generator = _Open(url, requests)
    try:
        for connection in await generator.open(connections):
            generator.free(connection)
        total = round(rate * seconds)
        began, used = perf_counter() + TICK, process_time()
        sent = 0
        while sent < total:
            due = min(total, int((perf_counter() - began) * rate) + 1)
            for number in range(sent, due):
                generator.arrive(began + number / rate)
            sent = max(sent, due)
            await asyncio.sleep(TICK)
        await _drained(generator, total, began + seconds + DRAIN)
        generator.measuring = False
        generator.result.seconds = max(seconds, perf_counter() - began)
        generator.result.generator = process_time() - used
        generator.result.unanswered = max(0, total - sum(generator.result.statuses.values()))
    finally:
        generator.close()
    return generator.finished()


async def _drained(generator: _Open, total: int, deadline: float) -> None:
    while sum(generator.result.statuses.values()) < total and perf_counter() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(TICK)


def run(load: Coroutine[Any, Any, Load]) -> Load:
    """Apply a load from here, on a loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(load)
