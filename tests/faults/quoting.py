"""Servers on loopback that say back whatever they were sent, keys and all, as some providers and tools do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

HANG = 5.0  # seconds: longer than the timeout of an agent that asks
USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        return

    def do_GET(self) -> None:
        self._say(500 if "fail" in self.path else 200, self._quote().encode(), "text/plain")

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("content-length", 0)))
        scene = unquote(self.path).partition(":")[0].rpartition("/")[2]
        if self.path.startswith("/v1/chat/completions"):
            scene = str(json.loads(self.body)["model"])
        try:
            _SCENES.get(scene, _Handler._fail)(self)
        except OSError:
            self.close_connection = True  # the client has gone

    def _quote(self) -> str:
        heads = [f"{name}: {value}" for name, value in self.headers.items()]
        return f"what you sent: {self.path} {heads} {getattr(self, 'body', b'').decode()}"

    def _say(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-request-id", self.headers.get("authorization", ""))
        self.end_headers()
        self.wfile.write(body)

    def _fail(self, status: int = 500) -> None:
        self._say(
            status, json.dumps({"error": {"message": self._quote(), "type": self._quote(), "code": "x"}}).encode()
        )

    def _answer(self) -> None:
        said = json.loads(self.body)
        text = str(said["messages"][-1]["content"])
        if not said.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            self._say(200, _chunk("chat.completion", [choice], usage=USAGE))
            return
        self._stream([_delta(text), _delta("", "stop")])

    def _error_midway(self) -> None:
        error = json.dumps({"error": {"message": self._quote(), "type": "server_error", "code": None}}).encode()
        self._stream([_delta("Hello "), error])

    def _stream(self, chunks: list[bytes]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(b"data: " + chunk + b"\n\n")
        self.close_connection = True

    def _garbage(self) -> None:
        self._say(200, self._quote().encode())

    def _hang(self) -> None:
        time.sleep(HANG)

    def _cut(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + self._quote().encode()[:1000])
        self.close_connection = True


_SCENES: dict[str, Callable[[_Handler], None]] = {
    "answer": _Handler._answer,
    "error-midway": _Handler._error_midway,
    "garbage": _Handler._garbage,
    "hang": _Handler._hang,
    "cut": _Handler._cut,
    **{str(status): lambda self, status=status: self._fail(status) for status in (400, 401, 403, 404, 429, 503)},
}
PROVIDER_FAILURES = [scene for scene in _SCENES if scene != "answer"] + ["500"]


def _chunk(kind: str, choices: list[Any], **more: Any) -> bytes:
    return json.dumps({"id": "c", "object": kind, "created": 1, "model": "m", "choices": choices, **more}).encode()


def _delta(text: str, finish: str | None = None) -> bytes:
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]
    return _chunk("chat.completion.chunk", choices, **({"usage": USAGE} if finish else {}))


@contextmanager
def quoting_server() -> Iterator[str]:
    """The server's URL: a provider of any kind under /v1, an MCP server that fails under /mcp, pages elsewhere."""
    with _served(_Handler) as (_, url):
        yield url


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """The URL of an OTLP/HTTP receiver, and what it is sent."""
    received: list[bytes] = []

    class Handler(_Handler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["content-length"])))
            self._say(200, b"", "application/x-protobuf")

    with _served(Handler) as (_, url):
        yield url, received


@contextmanager
def _served(handler: type[BaseHTTPRequestHandler]) -> Iterator[tuple[ThreadingHTTPServer, str]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
