"""uvicorn's HTTP protocol, with one system call for an answer instead of two (its head, then its body), a gate before
the application, and bounds on connections: how long and how large a request may be before there is an application to
look at it, and how long an answer may lie unread.
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
from kgents.api.plain import filled, parts
from kgents.errors import InvalidRequest, KgentsError

IDLE = 75.0  # seconds that a connection stays open without a request
OTHER_FILES = 256  # that a process has open besides its clients' connections
SWEEP = 5.0  # seconds between two looks at the connections
HEAD_SECONDS = 10.0  # for a head to come, from its first byte
UNREAD_SECONDS = 60.0  # that an answer waits for a client that does not read
MAX_HEAD = 65_536  # bytes of a head, beyond the first piece of it that came
MAX_HEADERS = 100

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
        self._in_head = False
        self._began = 0.0  # when the first byte of the request came
        self._received = 0  # bytes of the request, after its first piece
        self._unread_since = 0.0
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

    def pause_writing(self) -> None:
        self._unread_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._unread_since = 0.0
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if not self._between and self._is_too_much(len(data)):
            return
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
        self._in_head = True
        self._began = self.loop.time()
        self._received = 0
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._between = True
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if len(self.headers) > MAX_HEADERS:
            self._end_with(_HEAD_TOO_LARGE)
        elif not ((self._gate.admission.crowded or self._surplus) and self._refused()):
            super().on_headers_complete()
        self.headers = _TRAILERS

    def on_response_complete(self) -> None:
        """As uvicorn's, without a timer for every answer: `close_idle` looks at all connections now and then."""
        self.server_state.total_requests += 1
        self._idle_since = self.loop.time()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)

    def close_if_idle(self, now: float) -> None:
        """Close it when no request has come in full for long, or it is one too many; and cut it when an answer has not
        been read for long: what is written last has to be sent before a connection can be closed.
        """
        idle = now - self._idle_since
        if self._unread_since and now - self._unread_since > UNREAD_SECONDS:
            self.transport.abort()
        elif self.transport.is_closing():
            if idle > IDLE + UNREAD_SECONDS:
                self.transport.abort()
        elif self._is_under_way():
            return
        elif idle > (SWEEP if self._surplus else IDLE):
            self.transport.close()
        elif self._in_head and now - self._began > HEAD_SECONDS:
            self._end_with(_HEAD_TOO_SLOW)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's
        """As uvicorn's, in the form of every other refusal."""
        self._end_with(_NOT_HTTP)

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade to what is not known here is no upgrade (RFC 9110, section 7.8), and nothing to tell of."""

    def _is_under_way(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _is_too_much(self, count: int) -> bool:
        """Whether the request is too large with so many bytes more; the connection then ends. A body has a limit of its
        own: this one is for the head, and for what stands around and after a body's chunks.
        """
        self._received += count
        if self._received <= (MAX_HEAD if self._in_head else MAX_HEAD + 2 * self._gate.most_body):
            return False
        self._end_with(_HEAD_TOO_LARGE)
        return True

    def _end_with(self, answer: tuple[bytes, bytes]) -> None:
        """Close the connection; with this answer, unless one to another request is under way."""
        if self.transport.is_closing():
            return
        cycle, under_way = self.cycle, self._is_under_way()
        if not under_way or (cycle.more_body and not cycle.response_started and not self.pipeline):
            if under_way:
                cycle.disconnected = True  # the application's own answer is not sent any more
                cycle.message_event.set()
            self.cycle = _REFUSED
            self.transport.write(filled(answer, None, close=True))
        self._idle_since = self.loop.time()
        self.transport.close()

    def _refused(self) -> bool:
        """Whether the gate has answered the request, of which so far there is only the head."""
        if self._is_under_way():
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


class _Trailers(list[tuple[bytes, bytes]]):
    """What takes the headers that come after a body, and keeps none: they are not the request's, whatever they say."""

    def append(self, header: tuple[bytes, bytes]) -> None:
        pass


_TRAILERS = _Trailers()


class _TooLargeHead(InvalidRequest):
    status = 431
    title = "The request's head is too large"
    code = "head-too-large"


class _TooSlow(InvalidRequest):
    status = 408
    title = "The request did not come in time"
    code = "head-timeout"


def _answer(error: KgentsError) -> tuple[bytes, bytes]:
    return parts(error, "/v1/")


_NOT_HTTP = _answer(InvalidRequest("This is not a valid HTTP/1.1 request. Send one.", code="not-http"))
_HEAD_TOO_LARGE = _answer(
    _TooLargeHead(f"A request may have {MAX_HEADERS} headers, of {MAX_HEAD} bytes in all. Send fewer, or shorter ones.")
)
_HEAD_TOO_SLOW = _answer(_TooSlow(f"The request's head did not arrive within {HEAD_SECONDS:.0f} s. Send it again."))


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
