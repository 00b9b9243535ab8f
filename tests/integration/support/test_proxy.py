"""The faulty proxy does what its faults are called."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.proxy import FaultyProxy
from tests.support.waiting import wait_until


class Echo(socketserver.ThreadingTCPServer):
    """Sends back what it receives, and remembers it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), EchoHandler)
        self.received = b""
        self.ended = threading.Event()


class EchoHandler(socketserver.BaseRequestHandler):
    server: Echo

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while data := self.request.recv(1024):
                self.server.received += data
                self.request.sendall(data)
        self.server.ended.set()


@pytest.fixture
def behind() -> Iterator[Echo]:
    with Echo() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def proxy(behind: Echo) -> Iterator[FaultyProxy]:
    between = FaultyProxy(behind.server_address[1])
    yield between
    between.close()


def connect(proxy: FaultyProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def echo(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    return connection.recv(1024)


def test_forwards_both_ways(proxy: FaultyProxy) -> None:
    with connect(proxy) as connection:
        assert echo(connection, b"hello") == b"hello"


def test_slow_holds_data_back_each_way(proxy: FaultyProxy) -> None:
    proxy.slow(0.2)
    with connect(proxy) as connection:
        started = time.monotonic()
        assert echo(connection, b"hello") == b"hello"
        assert time.monotonic() - started >= 0.4


def test_hang_answers_only_after_healing(proxy: FaultyProxy) -> None:
    with connect(proxy) as connection:
        proxy.hang()
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            echo(connection, b"hello")
        proxy.heal()
        connection.settimeout(5)
        assert connection.recv(1024) == b"hello"


def test_silence_carries_what_is_sent_and_no_answer(proxy: FaultyProxy, behind: Echo) -> None:
    with connect(proxy) as connection:
        proxy.silence()
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            echo(connection, b"hello")
        assert behind.received == b"hello"
        proxy.heal()
        connection.settimeout(5)
        assert connection.recv(1024) == b"hello"


def test_a_hanging_link_does_not_tell_that_an_end_has_left(proxy: FaultyProxy, behind: Echo) -> None:
    with connect(proxy) as connection:
        assert echo(connection, b"hello") == b"hello"
        proxy.hang()
    with pytest.raises(TimeoutError):
        wait_until(behind.ended.is_set, seconds=0.3)
    proxy.heal()
    wait_until(behind.ended.is_set)


def test_refuse_cuts_and_lets_nobody_in_until_healed(proxy: FaultyProxy) -> None:
    with connect(proxy) as connection:
        assert echo(connection, b"hello") == b"hello"
        proxy.refuse()
        with pytest.raises(ConnectionError):
            connect(proxy)
        proxy.heal()
        with connect(proxy) as again:
            assert echo(again, b"hello") == b"hello"


def test_cut_ends_what_is_open(proxy: FaultyProxy) -> None:
    with connect(proxy) as connection:
        assert echo(connection, b"hello") == b"hello"
        proxy.cut()
        with pytest.raises(ConnectionError):
            connection.recv(1024)
