"""Clients that go on through every fault, as good clients do: they retry what was cut or refused, with the same key."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import orjson

from tests.faults.history import Call, History

PATIENCE = 5.0  # seconds for an answer, after which it is unknown
PAUSE = 0.05  # seconds before a retry
PACE = (
    0.04  # seconds from one request of a client to its next: eight clients ask for about half of what a laptop can do
)
REFUSALS = (409, 429, 503)  # answers that ask for another try
OPEN = (b"run-continues", b"run_continues", b"outcome-unknown", b"outcome_unknown")  # 503s that don't refuse


class Cut(Exception):
    """The connection ended, or nothing came, before the answer was whole."""


class Connection:
    """One HTTP/1.1 connection, opened when it is needed."""

    def __init__(self, url: str, key: str, *, patience: float = PATIENCE) -> None:
        self._patience = patience
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._head = f"Host: {parts.netloc}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: object, idempotency_key: str = "") -> tuple[int, bytes]:
        """Status and body of the answer. Raises Cut."""
        content = orjson.dumps(body)
        head = f"POST {path} HTTP/1.1\r\n{self._head}Content-Length: {len(content)}\r\n"
        if idempotency_key:
            head += f"Idempotency-Key: {idempotency_key}\r\n"
        try:
            async with asyncio.timeout(self._patience):
                return await self._exchange(head.encode() + b"\r\n" + content)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self.close()
            raise Cut(repr(error)) from error

    def close(self) -> None:
        """End it; the next request opens another."""
        if self._streams:
            self._streams[1].transport.abort()
            self._streams = None

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        if self._streams and self._streams[0].at_eof():
            self.close()  # the server has ended it while it was idle, as servers may
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        status = int(head[9:12])
        if b"\r\ntransfer-encoding: chunked" in head:
            body = await _chunks(reader)
        else:
            body = await reader.readexactly(int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]))
        if b"\r\nconnection: close" in head:
            self.close()
        return status, body


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readexactly(2)
    return b"".join(parts)


@dataclass(slots=True)
class _Client:
    """One client: it asks, waits for the answer, and asks again."""

    load: Load
    connection: Connection
    random: Random
    name: str
    count: int = 0

    async def work(self) -> None:
        while not self.load.ending:
            self.count += 1
            following = time.monotonic() + PACE
            await self._ask(f"{self.name}-{self.count}")
            await asyncio.sleep(following - time.monotonic())
        self.connection.close()

    async def _ask(self, name: str) -> None:
        kind = self.random.random()
        sent, tries, status, undone = time.monotonic(), 0, 0, False
        retried = kind >= 0.1  # the others never try again: what came of a cut one stays unknown to them
        while True:
            tries += 1
            try:
                status, body = await self._try(kind, name, name if retried else "")
            except Cut:
                status = 0
            else:
                undone = not any(code in body for code in OPEN)
                if status in (200, 202):
                    self._note(name, sent, tries, status, body)
                    return
            again = retried and (status == 0 or status in REFUSALS)
            if not again or self.load.gave_up:
                break
            await asyncio.sleep(PAUSE)
        # A refusal after a cut try says nothing of what became of that.
        refused = status and undone and (not retried or tries == 1)
        self.load.history.add(Call(name, "refused" if refused else "unknown", status, sent, time.monotonic(), tries))

    async def _try(self, kind: float, name: str, key: str) -> tuple[int, bytes]:
        text = f"{name} " + "word " * self.random.randrange(12)
        if key:
            text = f"{name} of a client that tries again"  # the same each time
        if kind > 0.9:
            return await self._background(text, key)
        body: dict[str, object] = {"model": "echo", "messages": [{"role": "user", "content": text}]}
        if kind < 0.05:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return await self.connection.post("/v1/chat/completions", body, key)

    async def _background(self, text: str, key: str) -> tuple[int, bytes]:
        status, body = await self.connection.post("/v1/sessions", {"agent": "echo"}, f"{key}-session")
        if status != 201:
            return status, body
        session = orjson.loads(body)["id"]
        return await self.connection.post(f"/v1/sessions/{session}/runs", {"input": text, "mode": "background"}, key)

    def _note(self, name: str, sent: float, tries: int, status: int, body: bytes) -> None:
        now = time.monotonic()
        if body.startswith(b"data:"):
            *_, last, done = (b"", b"", *body.removesuffix(b"\n\n").split(b"\n\n"))
            if done != b"data: [DONE]" or b'"usage":{' not in last:  # it ended with an error instead
                self.load.history.add(Call(name, "unknown", status, sent, now, tries))
                return
            body = last.removeprefix(b"data: ")
        answer: dict[str, Any] = orjson.loads(body)
        used = answer.get("usage") or {}
        run = str(answer["id"]).removeprefix("chatcmpl-")
        if status == 202:
            call = Call(name, "ok", status, sent, now, tries, run)
        else:
            call = Call(name, "ok", status, sent, now, tries, run, used["prompt_tokens"], used["completion_tokens"])
        self.load.history.add(call)


class Load:
    """Clients in a thread of their own, from `with` to its end; then what is under way is brought to its end."""

    def __init__(self, url: str, key: str, history: Path, *, clients: int, seed: int) -> None:
        self.history = History(history)
        self.ending = False
        self.gave_up = False
        self._clients = [
            _Client(self, Connection(url, key), Random(f"{seed}/{number}"), f"c{number}") for number in range(clients)
        ]
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),), name="load", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ending = True
        self._thread.join(30)
        self.gave_up = True
        self._thread.join(30)
        self.history.close()
        if self._thread.is_alive() and error is None:
            raise TimeoutError("the clients do not end")

    def rate(self, seconds: float = 1.0) -> float:
        """Good answers a second in the last so many seconds. Raises RuntimeError where the clients have died."""
        if not self._thread.is_alive():
            raise RuntimeError("the clients have died; the error is above")
        since = time.monotonic() - seconds
        good = self.history.good
        recent = 0
        for moment in reversed(good):
            if moment < since:
                break
            recent += 1
        return recent / seconds

    async def _run(self) -> None:
        clients: list[Coroutine[Any, Any, None]] = [client.work() for client in self._clients]
        await asyncio.gather(*clients)
