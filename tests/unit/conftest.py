"""Unit tests do no I/O: a socket that they connect or bind is a mistake in the test's tier."""

from __future__ import annotations

import socket
from typing import Any, NoReturn

import pytest


@pytest.fixture(autouse=True)
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection and every port."""

    def refuse(*args: Any) -> NoReturn:
        raise AssertionError("a unit test does no I/O; tests with sockets belong in tests/integration")

    for name in ("connect", "connect_ex", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
