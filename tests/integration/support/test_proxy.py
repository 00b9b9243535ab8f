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


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while data := self.request.recv(1024):
                self.request.sendall(data)


@pytest.fixture
def proxy() -> Iterator[FaultyProxy]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        between = FaultyProxy(server.server_address[1])
        yield between
        between.close()
        server.shutdown()


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
