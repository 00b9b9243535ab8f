"""An HTTP server on loopback that answers as a test says, for what can't be had here, or must answer wrongly."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """A request: its path has the query."""

    method: str
    path: str
    headers: dict[str, str]
    body: str


class Reply(NamedTuple):
    """An answer; what is no text is sent as JSON."""

    status: int
    body: Any
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed


@contextmanager
def replying(reply: Callable[[Asked], Reply], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The address of a server that answers each request with what `reply` says."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            found = reply(Asked(self.command, self.path, headers, body))
            content = found.body if isinstance(found.body, str) else json.dumps(found.body)
            self.send_response(found.status)
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content.encode())))
            self.end_headers()
            self.wfile.write(content.encode())

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = answer  # noqa: N815 - so the library calls them

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
