"""One HTTP/1.1 keep-alive connection that costs the generator little: bytes out, a status and a time back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import cast
from urllib.parse import urlsplit

import httptools

CUT = 0
"""The status of a request whose connection ended before its answer did."""


def post(url: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """The bytes of a POST of JSON."""
    parts = urlsplit(url)
    lines = [f"POST {parts.path} HTTP/1.1", f"host: {parts.netloc}", "accept: */*", "content-type: application/json"]
    lines += [f"content-length: {len(body)}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Connection(asyncio.Protocol):
    """Sends one request at a time; `done` is told the connection and the status when it was answered in full."""

    def __init__(self, done: Callable[[Connection, int], None]) -> None:
        self._done = done
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._busy = False
        self.started = 0.0
        """When the request that is under way was meant to start: the generator's own note."""

    @property
    def open(self) -> bool:
        """Whether it can send."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: bytes, started: float) -> None:
        """Send a request, which was meant to start at `started`."""
        assert self._transport is not None
        self._busy, self.started = True, started
        self._transport.write(request)

    def close(self) -> None:
        """End it, whatever is under way."""
        self._busy = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not inherit from it

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail()

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        keep = self._parser.should_keep_alive()
        self._parser = httptools.HttpResponseParser(self)
        if not keep and self._transport is not None:
            self._transport.close()
        self._busy = False
        self._done(self, status)

    def _fail(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        if self._busy:
            self._busy = False
            self._done(self, CUT)


Done = Callable[[Connection, int], None]


async def connect(url: str, done: Done, kind: Callable[[Done], Connection] = Connection) -> Connection:
    """An open connection to the host of `url`."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    _, made = await asyncio.get_running_loop().create_connection(lambda: kind(done), host, port)
    return made
