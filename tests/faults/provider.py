"""A model provider on loopback that speaks OpenAI's chat completions and breaks streams off at bytes that a seed says.

It notes what it sent and what it reported, which is what a tenant has to pay for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from tests.support.proxy import reset

PREFIX = "stream"
TURN = 0.001  # seconds between two pieces of a stream


class Sent(NamedTuple):
    """What kgents can have received of an answer when its connection ended: the text, and the input and output tokens
    where the chunk that reports them was among it.
    """

    text: str = ""
    reported: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class _Piece:
    data: bytes
    text: str = ""
    reported: tuple[int, int] | None = None


class Provider:
    """The running server. `sent` has, for each stream by its number, what can have been received: one thing where the
    connection ended in order, as much or less where it was reset.
    """

    def __init__(self, seed: int, *, cutting: bool) -> None:
        self.url = ""
        self.sent: dict[int, list[Sent]] = {}
        self.asked_twice: list[int] = []
        self._seed = seed
        self._cutting = cutting
        self._serving: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Serve for as long as the context lasts."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield
        finally:
            server.close()
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
                if not await self._answer(writer, json.loads(await reader.readexactly(length))):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # kgents is done with this connection
        finally:
            self._serving.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, writer: asyncio.StreamWriter, body: dict[str, Any]) -> bool:
        """Send the stream that is asked for; answers whether the connection can be used again."""
        number = number_in(body)
        random = Random(f"{self._seed}/{number}")
        chunked = random.random() < 0.7  # without a length the end of the connection looks like the end of the answer
        pieces = list(_pieces(number, random, usage=bool(body.get("stream_options", {}).get("include_usage"))))
        framed = [b"%x\r\n%s\r\n" % (len(piece.data), piece.data) if chunked else piece.data for piece in pieces]
        framing = b"transfer-encoding: chunked" if chunked else b"connection: close"
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n" + framing + b"\r\n\r\n"
        total = len(head) + sum(map(len, framed))
        room = _cut(random, head, framed) if self._cutting else total
        if number in self.sent:
            self.asked_twice.append(number)
        by_reset = self._cutting and random.random() < 0.5
        least, states = _received(pieces, framed, room - len(head), chunked=chunked)
        self.sent[number] = states if by_reset else states[least:]
        for part in (head, *framed, b"0\r\n\r\n" if chunked else b""):
            writer.write(part[:room] if self._cutting else part)
            room -= len(part)
            if self._cutting and room <= 0:
                break
            await writer.drain()
            await asyncio.sleep(TURN)
        await writer.drain()
        if by_reset:
            reset(writer)
        return chunked and not self._cutting


def number_in(body: dict[str, Any]) -> int:
    """The number of the stream that a request asks for."""
    content = body["messages"][-1]["content"]
    text = content if isinstance(content, str) else content[-1]["text"]
    return int(text.removeprefix(f"{PREFIX} "))


def _pieces(number: int, random: Random, *, usage: bool) -> Iterator[_Piece]:
    """The events of an answer: words of one token each, the reason of the end, the usage, the end."""
    yield _event({"role": "assistant", "content": ""})
    for word in (f"s{number}", *(" ab" for _ in range(random.randrange(20, 50)))):
        yield _event({"content": word}, text=word)
    yield _event({}, finish="stop")
    if usage:
        # Of a tokenizer of its own: fewer or more tokens than kgents would count.
        told = (random.randrange(1, 200), random.randrange(1, 200))
        yield _event(None, reported=told)
    yield _Piece(b"data: [DONE]\n\n")


def _event(
    delta: dict[str, str] | None, *, text: str = "", finish: str | None = None, reported: tuple[int, int] | None = None
) -> _Piece:
    chunk: dict[str, Any] = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []}
    if delta is not None:
        chunk["choices"] = [{"index": 0, "delta": delta, "finish_reason": finish}]
    if reported:
        chunk["usage"] = {
            "prompt_tokens": reported[0],
            "completion_tokens": reported[1],
            "total_tokens": sum(reported),
        }
    return _Piece(f"data: {json.dumps(chunk)}\n\n".encode(), text, reported)


def _received(pieces: list[_Piece], framed: list[bytes], room: int, *, chunked: bool) -> tuple[int, list[Sent]]:
    """What a reader has after each of the pieces that fit into the first `room` bytes of the body, and which of these
    is the least that it has in the end: what lacks but the end of its chunk, or of its event, it may take or leave.
    """
    states = [Sent()]
    least = 0
    for piece, frame in zip(pieces, framed, strict=True):
        room -= len(frame)
        if room < (-2 if chunked else -1):
            break
        states.append(Sent(states[-1].text + piece.text, piece.reported or states[-1].reported))
        least += room >= 0
    return least, states


def _cut(random: Random, head: bytes, framed: list[bytes]) -> int:
    """After how many bytes a stream is cut: anywhere, or, as often, in what follows its text, which tells the usage."""
    total = len(head) + sum(map(len, framed))
    least = total - sum(map(len, framed[-3:])) if random.random() < 0.5 else 0
    return random.randrange(least, total)


@contextmanager
def a_provider(seed: int, *, cutting: bool) -> Iterator[Provider]:
    """A provider in a thread of its own. Where it is `cutting`, each stream ends after some of its bytes."""
    provider = Provider(seed, cutting=cutting)
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with provider.serve():
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="provider", daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield provider
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
