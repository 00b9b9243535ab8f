"""Tests reach this machine, and the cluster that they start on it, only: a connection to anywhere else is a mistake in
the code or in the test.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from cluster.layout import NETWORKS


class LeftTheMachineError(Exception):
    """A test tried to connect to another machine."""


def allow_only() -> None:
    """From now on, connecting to an address that is not on loopback or in the cluster raises LeftTheMachineError."""
    for name in ("connect", "connect_ex"):
        setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))


def _guarded(connect: Any) -> Any:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(address[0]):
            raise LeftTheMachineError(f"a test tried to connect to {address[0]}:{address[1]}")
        return connect(self, address)

    return guarded


def _is_here(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    found = mapped or address
    return found.is_loopback or any(found in network for network in NETWORKS)
