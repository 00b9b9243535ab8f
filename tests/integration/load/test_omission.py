"""A target that stands still is charged for every request that it kept waiting, which a closed loop would hide."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kgents.errors import Unprocessable
from kgents.load import driver
from kgents.load.measured import Counts, Samples
from kgents.load.traffic import STREAM, Request
from kgents.load.vegeta import made

STALL = 0.5  # seconds
RATE, SECONDS = 100, 1
SLOW = 0.1  # seconds
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
EVENTS = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n'
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
STREAMED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n%s" % (len(EVENTS), EVENTS)
ASKED = Request("chat", "POST", "/v1/chat/completions", "key", b"{}")


@asynccontextmanager
async def stalling(answer: bytes) -> AsyncIterator[str]:
    """A server that answers at once, but for one pause of all requests, 0.2 s after the first."""
    first: list[float] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
                first.append(time.monotonic())
                since = time.monotonic() - first[0]
                if 0.2 <= since < 0.2 + STALL:
                    await asyncio.sleep(0.2 + STALL - since)
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def slow(samples: Samples, of: str = "latency") -> int:
    return sum(getattr(sample, of) > SLOW for sample in samples)


async def test_vegeta_charges_a_pause_to_each_request_that_was_meant_to_start_in_it(vegeta: Path) -> None:
    async with stalling(ANSWER) as url, made(vegeta, url, [ASKED]) as program:
        samples = await program.at_rate(RATE, SECONDS, Counts())

    assert len(samples) == RATE * SECONDS
    assert {sample.status for sample in samples} == {200}
    assert slow(samples) >= RATE * (STALL - SLOW) * 0.9


async def test_a_closed_loop_hides_it(vegeta: Path) -> None:
    async with stalling(ANSWER) as url, made(vegeta, url, [ASKED]) as program:
        samples = await program.closed(1, SECONDS, Counts())

    assert len(samples) > RATE * SECONDS
    assert 1 <= slow(samples) <= 3


async def test_so_do_users_that_wait(vegeta: Path) -> None:
    async with stalling(ANSWER) as url:
        samples = await driver.users(url, [ASKED] * 5, users=5, wait=0.05, seconds=SECONDS, counts=Counts())

    assert 1 <= slow(samples) <= 10


async def test_the_driver_of_streams_charges_it_to_each_first_token() -> None:
    asked = Request(STREAM, "POST", "/v1/chat/completions", "key", b'{"stream": true}')
    async with stalling(STREAMED) as url:
        samples = await driver.streams(url, [asked], RATE, SECONDS, Counts())

    assert len(samples) == RATE * SECONDS
    assert slow(samples, "first") >= RATE * (STALL - SLOW) * 0.9


async def test_the_first_token_is_the_first_text_and_not_the_chunk_that_begins_the_stream() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + ROLE)
        await writer.drain()
        await asyncio.sleep(STALL)
        writer.write(EVENTS)
        writer.close()

    asked = Request(STREAM, "POST", "/v1/chat/completions", "key", b'{"stream": true}')
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        samples = await driver.streams(url, [asked], 10, 0.2, Counts())

    assert {sample.status for sample in samples} == {200}
    assert min(sample.first for sample in samples) >= STALL


async def test_a_stream_without_a_token_is_an_error() -> None:
    silent = ROLE + b"data: [DONE]\n\n"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(silent)
    asked = Request(STREAM, "POST", "/v1/chat/completions", "key", b"{}")
    async with stalling(head + silent) as url:
        samples = await driver.streams(url, [asked], 20, 0.2, Counts())

    assert {sample.status for sample in samples} == {0}


async def test_a_stream_that_is_cut_off_is_an_error() -> None:
    cut = STREAMED.replace(b"data: [DONE]", b"data: [CUT!]")
    asked = Request(STREAM, "POST", "/v1/chat/completions", "key", b"{}")
    async with stalling(cut) as url:
        samples = await driver.streams(url, [asked], 20, 0.2, Counts())

    assert {sample.status for sample in samples} == {0}


async def test_a_program_that_fails_says_why(vegeta: Path) -> None:
    async with made(vegeta, "http://127.0.0.1:9", []) as program:
        with pytest.raises(Unprocessable, match=r"vegeta failed: .*no targets"):
            await program.at_rate(10, 0.2, Counts())
