"""Small HTTP servers on loopback for the tests of what tools may reach."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Answer = Callable[[str], bytes]


def plain(body: bytes = b"canary", *, status: str = "200 OK", headers: str = "content-type: text/plain") -> bytes:
    """A whole HTTP answer that closes its connection."""
    lines = f"HTTP/1.1 {status}\r\n{headers}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return lines.encode() + body


def redirect(location: str, status: str = "302 Found") -> bytes:
    """A redirect to `location`."""
    return plain(b"", status=status, headers=f"location: {location}")


@dataclass
class Canary:
    """A running server, which counts each connection made to it and keeps the heads of the requests."""

    host: str
    port: int
    connections: int = 0
    heads: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the server is."""
        return f"http://{self.host}:{self.port}/"


@asynccontextmanager
async def serve(answer: Answer = lambda head: plain(), host: str = "127.0.0.1") -> AsyncIterator[Canary]:
    """Serve what `answer` gives for the head of each request."""
    canary = Canary(host, 0)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        canary.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            canary.heads.append(head)
            writer.write(answer(head))
            await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, host, 0)
    canary.port = server.sockets[0].getsockname()[1]
    try:
        yield canary
    finally:
        server.close()
