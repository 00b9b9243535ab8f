"""The load generator of the benchmarks charges a server for every request that it kept waiting."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from bench.client import CUT, post
from bench.load import at_rate, closed, once

STALL = 0.5  # seconds
ANSWER = b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\n{}"


@asynccontextmanager
async def serving(answer):
    """A server that writes what `answer` says to each request, where it says anything, or hangs up."""

    async def serve(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
                if (said := await answer()) is None:
                    break
                writer.write(said)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield url, [post(f"{url}/", b"{}", {})]


def stalls_once():
    """Answers at once, but for one pause of all requests 0.2 s after the first."""
    began = time.monotonic()

    async def answer():
        since = time.monotonic() - began
        if 0.2 <= since < 0.2 + STALL:
            await asyncio.sleep(0.2 + STALL - since)
        return ANSWER % 200

    return answer


async def test_an_open_loop_charges_a_pause_to_each_request_that_was_meant_to_start_in_it():
    async with serving(stalls_once()) as (url, requests):
        load = await at_rate(url, requests, rate=200, seconds=1, connections=2, warm=0)
    assert load.errors == 0
    assert len(load.latencies) == 200
    slow = [latency for latency in load.latencies if latency > 0.05]
    assert len(slow) >= 80  # of the hundred that were meant to start in half a second
    assert load.percentile(0.6) > 0.05


async def test_a_closed_loop_does_not_see_the_same_pause():
    async with serving(stalls_once()) as (url, requests):
        load = await closed(url, requests, connections=2, seconds=1, warm=0)
    assert len([latency for latency in load.latencies if latency > 0.05]) <= 2
    assert load.percentile(0.6) < 0.05


async def test_refusals_are_errors_by_status():
    async def refuse():
        return ANSWER % 503

    async with serving(refuse) as (url, requests):
        load = await at_rate(url, requests, rate=50, seconds=0.2, connections=2, warm=0)
    assert load.statuses == {503: 10}
    assert load.errors == 10
    assert load.rate == 0


async def test_answers_that_never_come_whole_are_errors():
    async def hang_up():
        return None

    async with serving(hang_up) as (url, requests):
        load = await at_rate(url, requests, rate=50, seconds=0.2, connections=2, warm=0)
    assert load.statuses == {CUT: 10}
    assert load.errors == 10


@pytest.mark.parametrize("connections", [1, 7])
async def test_once_sends_each_request_once(connections):
    async def answer():
        return ANSWER % 200

    async with serving(answer) as (url, requests):
        load = await once(url, requests * 50, connections=connections)
    assert load.statuses == {200: 50}
