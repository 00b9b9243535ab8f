"""Ports on loopback for the servers that tests start."""

from __future__ import annotations

import random
import socket

# Below the range from which systems take the ports of outgoing connections, so that none can take it first.
_PORTS = range(20_000, 30_000)
_given: set[int] = set()


def free_port() -> int:
    """A TCP port on 127.0.0.1 that is free now and that this process has not been given before."""
    for _ in range(1000):
        port = random.choice(_PORTS)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise RuntimeError("found no free port on 127.0.0.1 between 20000 and 29999")
