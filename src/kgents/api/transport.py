"""uvicorn's HTTP protocol, with one system call for an answer instead of two (its head, then its body), a gate before
the application, and bounds on connections.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kgents.api.edge import GONE
from kgents.api.gate import Gate, Refusal

IDLE = 75.0  # seconds that a connection stays open without a request
OTHER_FILES = 256  # that a process has open besides its clients' connections
SWEEP = 5.0  # seconds between two looks at the connections

_REFUSED: Any = SimpleNamespace(response_complete=True, message_event=asyncio.Event())
"""What stands for the exchange of a request that the gate has answered: it is over."""


def allow_connections(count: int) -> int:
    """Let this process have so many connections open, as far as the system does; answers how many it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(1, min(count, soft - OTHER_FILES))
    return count


class Protocol(HttpToolsProtocol):
    """Sends together what is written in one turn of the event loop, and asks the gate about every head."""

    def __init__(self, gate: Gate, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._gate = gate
        self._surplus = False
        self._idle_since = 0.0
        self._between = True  # requests: nothing of the next one has come
        self._refusal: Refusal | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._gathering = _Gathering(transport, self.loop)
        super().connection_made(self._gathering)  # type: ignore[arg-type]
        self._idle_since = self.loop.time()
        self._surplus = len(self.connections) > self._gate.most_connections

    def connection_lost(self, exc: Exception | None) -> None:
        if self.scope is not None:
            self.scope[GONE] = True  # type: ignore[literal-required]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._gate.admission.crowded:
            super().data_received(data)
            return
        if self._between and (self.cycle is None or self.cycle.response_complete):
            answer = self._gate.refuse_again(data)
            if answer is not None:
                self._idle_since = self.loop.time()
                self._gathering.write(answer)
                return
        self._refusal = None
        super().data_received(data)
        if self._between and self._refusal is not None and self._refusal.head is not None:
            self._gate.remember(data, self._refusal.head)

    def on_message_begin(self) -> None:
        self._between = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._between = True
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        if (self._gate.admission.crowded or self._surplus) and self._refused():
            return
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """As uvicorn's, without a timer for every answer: `close_idle` looks at all connections now and then."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._idle_since = self.loop.time()
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)

    def close_if_idle(self, now: float) -> None:
        """Close it when no request has come in full for long, or it is one too many."""
        under_way = self.cycle is not None and not self.cycle.response_complete
        if not under_way and now - self._idle_since > (SWEEP if self._surplus else IDLE):
            self.transport.close()

    def _refused(self) -> bool:
        """Whether the gate has answered the request, of which so far there is only the head."""
        if self.cycle is not None and not self.cycle.response_complete:
            return False  # it is pipelined, and its answer has to wait for another's
        method = self.parser.get_method()
        if method == b"HEAD":
            return False
        ends = self._surplus or self.expect_100_continue or not self.parser.should_keep_alive()
        refusal = self._refusal = self._gate.refusal(self.url, self.headers, surplus=self._surplus, close=ends)
        if refusal is None:
            return False
        self.cycle = _REFUSED
        self.transport.write(refusal.answer)
        if refusal.close:
            self.transport.close()
        self.on_response_complete()
        return True


async def close_idle(connections: Iterable[Any]) -> None:
    """Close connections that nobody uses, for as long as the process lives."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(SWEEP)
        now = loop.time()
        for connection in list(connections):
            connection.close_if_idle(now)


class _Gathering:
    """A transport that keeps what is written until the event loop's next turn, or until it is closed."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
