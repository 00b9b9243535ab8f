"""Servers that an attacker runs, or would like to reach."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    """A running server that answers everything with `text`; `heads` are the requests' lines and headers."""

    url: str
    text: str
    heads: list[str] = field(default_factory=list)


@contextmanager
def page(host: str, text: str) -> Iterator[Page]:
    """Serve `text`, which may be changed while it is served."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.heads.append(f"{self.requestline}\n{self.headers}")
            body = served.text.encode()
            self.send_response(200)
            self.send_header("content-type", "text/plain")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer((host, 0), Handler)
    served = Page(f"http://{host}:{server.server_address[1]}", text)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
