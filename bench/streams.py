"""A thousand streams at once in one API process, and its memory over a hundred thousand requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import orjson
import uvloop

from bench import load, machine
from bench.chat import contender
from bench.client import Connection, connect, post
from bench.report import Figure, Scale, Section, Table
from bench.systems import kgents, tenants

STREAMS = 1000
SECONDS = 40  # that each stream lasts, at a word a second
RAMP = 5.0  # seconds in which they are opened
MEMORY = 512.0  # MiB
GROWTH = 0.05
FIRST, LAST = 10_000, 100_000


def run(_database: str, scale: Scale) -> Section:
    """Memory under streams, then over requests."""
    section = Section(
        title="Memory under 1,000 streams, and over 100,000 requests",
        how=(
            f"One API process on SQLite. First {STREAMS:,} chat completions are streamed at once (server-sent events, "
            f"each with a word a second for {SECONDS} s), and the process's resident memory is read four times a "
            f"second. Then {LAST:,} chat completions over 32 connections; memory after the first {FIRST:,} and after "
            "all, and between."
        ),
    )
    streams = scale.count(STREAMS)
    with kgents() as up, tenants(up, 10) as owners:
        pid = up.pid("api")
        idle = machine.rss(pid)
        body = {
            "model": "echo",
            "stream": True,
            "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": f"/sleep 1 /words {round(scale.seconds(SECONDS))}"}],
        }
        requests = [
            post(f"{up.url}/v1/chat/completions", orjson.dumps(body), {"authorization": f"Bearer {owner.key}"})
            for owner in owners
        ]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            watched = runner.run(_stream(up.url, requests, streams, lambda: machine.rss(pid)))
        up.settled(180)
        after = machine.rss(pid)
        requests_made, points = 0, [["0", f"{after:.0f}"]]
        memory: dict[int, float] = {}
        pair = contender(up, [owner.key for owner in owners])
        for target in range(scale.count(FIRST), scale.count(LAST) + 1, scale.count(FIRST)):
            while requests_made < target:
                done = load.run(load.closed(up.url, pair.requests, connections=32, seconds=2, warm=0))
                requests_made += done.statuses[200]
            up.settled(180)
            memory[target] = machine.rss(pid)
            points.append([f"{requests_made:,}", f"{memory[target]:.0f}"])
    first, *_, last = memory.values()
    growth = last / first - 1
    peak = max(watched.rss)
    section.figures = [
        Figure(
            f"most memory with {watched.most_open:,} streams at once",
            f"under {MEMORY:.0f} MiB",
            f"{peak:.0f} MiB",
            peak < MEMORY and watched.most_open == streams,
        ),
        Figure(
            "streams that ended whole, with their usage", f"{streams:,}", f"{watched.whole:,}", watched.whole == streams
        ),
        Figure(
            f"memory after {LAST:,} requests, against that after {FIRST:,}",
            f"flat: within {GROWTH:.0%}",
            f"{growth:+.1%} ({first:.0f} to {last:.0f} MiB)",
            growth < GROWTH,
        ),
    ]
    section.tables = [
        Table(["API process", "resident MiB"], [["before", f"{idle:.0f}"], ["after the streams", f"{after:.0f}"]]),
        Table(["requests", "resident MiB"], points),
    ]
    section.raw = {"rss_under_streams": watched.rss, "rss_over_requests": memory, "words": watched.words}
    return section


class _Watched:
    def __init__(self) -> None:
        self.open = self.most_open = self.whole = self.words = 0
        self.rss: list[float] = []


class _Stream(Connection):
    """A stream that is read as it comes; what is kept of it is its end."""

    def __init__(self, done: Callable[[Connection, int], None], watched: _Watched) -> None:
        super().__init__(done)
        self._watched = watched
        self._end = b""

    def on_body(self, body: bytes) -> None:
        self._watched.words += body.count(b'"delta"')
        self._end = (self._end + body)[-2000:]

    @property
    def whole(self) -> bool:
        """Whether it told its usage and that it is done."""
        return self._end.endswith(b"data: [DONE]\n\n") and b'"total_tokens"' in self._end


async def _stream(url: str, requests: list[bytes], count: int, rss: Callable[[], float]) -> _Watched:
    watched = _Watched()
    ended = asyncio.Event()
    left = count

    def done(connection: Connection, status: int) -> None:
        nonlocal left
        assert isinstance(connection, _Stream)
        watched.open -= 1
        watched.whole += status == 200 and connection.whole
        left -= 1
        if not left:
            ended.set()

    async def watch() -> None:
        while True:
            watched.rss.append(rss())
            await asyncio.sleep(0.25)

    watching = asyncio.create_task(watch())
    connections = []
    for number in range(count):
        connection = await connect(url, done, lambda done: _Stream(done, watched))
        connection.send(requests[number % len(requests)], time.perf_counter())
        watched.open += 1
        watched.most_open = max(watched.most_open, watched.open)
        connections.append(connection)
        await asyncio.sleep(RAMP / count)
    try:
        async with asyncio.timeout(SECONDS * 3):
            await ended.wait()
    except TimeoutError:
        pass  # the figures show how many ended
    watching.cancel()
    for connection in connections:
        connection.close()
    return watched
