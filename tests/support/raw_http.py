"""HTTP requests that no client library would send."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import httpx2


def exchange(url: str, request: bytes, *, patience: float = 10.0) -> httpx2.Response:
    """Send `request` as it is on a connection of its own; the first response to it. Raises TimeoutError."""
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    received = b""
    with socket.create_connection((address.hostname, address.port), timeout=patience) as connection:
        connection.sendall(request)
        while b"\r\n\r\n" not in received:
            received += _more(connection)
        head, _, body = received.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += _more(connection)
    path = request.split(b" ", 2)[1].decode("latin-1")
    sent = httpx2.Request("GET", f"http://{address.netloc}/{path.lstrip('/')}")
    return httpx2.Response(int(status.split(" ")[1]), headers=headers, content=body, request=sent)


def _more(connection: socket.socket) -> bytes:
    part = connection.recv(65536)
    if not part:
        raise EOFError("the connection was closed before the response was whole")
    return part
