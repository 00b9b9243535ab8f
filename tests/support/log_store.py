"""A server that takes what Loki's OTLP endpoint takes, and remembers it. It says what was sent, not what Loki would do.

https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs-using-otlp
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

PATH = "/otlp/v1/logs"


class Line(NamedTuple):
    """A line as it was sent: `labels` are the attributes of its resource, `metadata` its own. `time` is in ns."""

    text: str
    labels: dict[str, str]
    metadata: dict[str, str]
    time: int


class Refused(ValueError):
    """A request that Loki would not take."""


def decoded(path: str, headers: Any, body: bytes) -> bytes:
    """The message of a request. Raises Refused."""
    if path != PATH:
        raise Refused(f"{path} is not {PATH}")
    if headers["Content-Type"] != "application/x-protobuf":
        raise Refused(f"it is {headers['Content-Type']}")
    if headers["Content-Encoding"] != "gzip":
        raise Refused(f"it is encoded as {headers['Content-Encoding']}")
    return gzip.decompress(body)


def lines_of(message: bytes) -> Iterator[Line]:
    """The lines of a message. Raises Refused."""
    try:
        request = ExportLogsServiceRequest.FromString(message)
    except DecodeError as error:
        raise Refused(str(error)) from None
    if len(UnknownFieldSet(request)):
        raise Refused("it has fields that OTLP does not have")
    for resource in request.resource_logs:
        labels = _texts(resource.resource.attributes)
        for scope in resource.scope_logs:
            for record in scope.log_records:
                yield Line(record.body.string_value, labels, _texts(record.attributes), record.time_unix_nano)


def _texts(attributes: Any) -> dict[str, str]:
    found = {}
    for attribute in attributes:
        if attribute.value.WhichOneof("value") != "string_value":
            raise Refused(f"{attribute.key} is no text")
        found[attribute.key] = attribute.value.string_value
    return found


class LogStore:
    """It listens on a port of loopback. `seconds` is how long it takes for each request."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.lines: list[Line] = []
        self.messages: list[bytes] = []
        self.refused: list[str] = []
        self._pause = threading.Event()
        self._seconds = seconds
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def texts(self) -> list[str]:
        return [line.text for line in self.lines]

    def start(self) -> None:
        """Be there, at the same port as before."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler())
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Be away: connections are refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def take(self, path: str, headers: Any, body: bytes) -> int:
        """Take a request; answers the status."""
        self._pause.wait(self._seconds)
        try:
            message = decoded(path, headers, body)
            self.lines += list(lines_of(message))
        except (Refused, OSError) as error:
            self.refused.append(str(error))
            return 400
        self.messages.append(message)
        return 204

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        store = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                return

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(store.take(self.path, self.headers, body))
                self.end_headers()

        return Handler
