"""How long a connection may do what."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from kgents.api.admission import Admission
from kgents.api.gate import Gate
from kgents.api.transport import HEAD_SECONDS, IDLE, SWEEP, UNREAD_SECONDS, Protocol
from kgents.config import Settings
from kgents.telemetry.metrics import Metrics

HEAD = b"GET /health HTTP/1.1\r\nHost: x\r\n"


class Wire(asyncio.Transport):
    """A transport that keeps what is written, and says how it was ended."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.ended = ""

    def write(self, data: Any) -> None:
        self.sent += data

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = "cut"

    def is_closing(self) -> bool:
        return bool(self.ended)

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


@pytest.fixture
async def connection() -> tuple[Protocol, Wire]:
    """A connection to an application that never answers."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    gate = Gate(Admission(Settings(), Metrics("api")), SimpleNamespace(), 100, 1000)  # type: ignore[arg-type]
    config = uvicorn.Config(app, http="httptools", ws="none", lifespan="off", log_config=None)
    protocol, wire = Protocol(gate, config, ServerState(), {}), Wire()
    protocol.connection_made(wire)
    return protocol, wire


def later(protocol: Protocol, seconds: float) -> None:
    """Have the protocol looked at as if so many seconds had passed."""
    protocol.close_if_idle(protocol.loop.time() + seconds)


async def test_a_connection_that_asks_nothing_is_closed_without_a_word(connection: tuple[Protocol, Wire]) -> None:
    protocol, wire = connection
    later(protocol, IDLE - 1)
    assert not wire.ended
    later(protocol, IDLE + 1)
    assert (wire.ended, wire.sent) == ("closed", b"")


async def test_a_head_that_drips_is_refused_however_steadily(connection: tuple[Protocol, Wire]) -> None:
    protocol, wire = connection
    for byte in HEAD:
        protocol.data_received(bytes([byte]))
    later(protocol, HEAD_SECONDS - 1)
    assert not wire.ended
    later(protocol, HEAD_SECONDS + 1)
    assert wire.ended == "closed"
    assert wire.sent.startswith(b"HTTP/1.1 408 ")


async def test_a_request_that_is_worked_on_is_let_be(connection: tuple[Protocol, Wire]) -> None:
    protocol, wire = connection
    protocol.data_received(HEAD + b"\r\n")
    later(protocol, 10 * IDLE)
    assert not wire.ended
    protocol.connection_lost(None)
    for task in list(protocol.tasks):
        task.cancel()


async def test_an_answer_that_nobody_reads_is_cut(connection: tuple[Protocol, Wire]) -> None:
    protocol, wire = connection
    protocol.pause_writing()
    later(protocol, UNREAD_SECONDS - 1)
    assert not wire.ended
    later(protocol, UNREAD_SECONDS + 1)
    assert wire.ended == "cut"


async def test_a_slow_reader_who_reads_is_let_be(connection: tuple[Protocol, Wire]) -> None:
    protocol, wire = connection
    protocol.pause_writing()
    protocol.resume_writing()
    later(protocol, UNREAD_SECONDS + 1)
    assert not wire.ended


async def test_a_connection_that_can_not_be_closed_for_an_unread_rest_is_cut(
    connection: tuple[Protocol, Wire],
) -> None:
    protocol, wire = connection
    later(protocol, IDLE + 1)
    later(protocol, IDLE + SWEEP)
    assert wire.ended == "closed"
    later(protocol, IDLE + UNREAD_SECONDS + 1)
    assert wire.ended == "cut"


async def test_a_head_without_end_is_refused(connection: tuple[Protocol, Wire]) -> None:
    protocol, wire = connection
    protocol.data_received(HEAD + b"X: ")
    for _ in range(100):
        if not wire.ended:
            protocol.data_received(b"a" * 1024)
    assert wire.sent.startswith(b"HTTP/1.1 431 ")


async def test_what_comes_after_a_body_is_no_header_of_the_request(connection: tuple[Protocol, Wire]) -> None:
    protocol, wire = connection
    head = b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    protocol.data_received(head + b"0\r\nAuthorization: Bearer x\r\n\r\n")
    assert [name for name, _ in protocol.scope["headers"]] == [b"host", b"transfer-encoding"]
    assert not wire.ended
    for task in list(protocol.tasks):
        task.cancel()
