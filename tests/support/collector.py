"""An OTLP/HTTP receiver on loopback that keeps the spans that it is told of."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True, slots=True)
class Told:
    """A span, and the process that it is of."""

    service: str
    span: Any

    @property
    def name(self) -> str:
        return str(self.span.name)

    @property
    def id(self) -> str:
        return str(self.span.span_id.hex())

    @property
    def parent(self) -> str:
        return str(self.span.parent_span_id.hex())

    @property
    def attributes(self) -> dict[str, Any]:
        return {attribute.key: _value(attribute.value) for attribute in self.span.attributes}


class Collector:
    """The receiver; `requests` are all that came."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[ExportTraceServiceRequest] = []

    def spans(self, trace_id: str = "") -> list[Told]:
        """The spans of a trace, or of all."""
        return [
            Told(_value_of(resource.resource.attributes, "service.name"), span)
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
            if trace_id in ("", span.trace_id.hex())
        ]


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a receiver for as long as the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.requests.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def _value_of(attributes: Any, key: str) -> str:
    return next(str(each.value.string_value) for each in attributes if each.key == key)


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    found = getattr(value, kind)
    return [_value(each) for each in found.values] if kind == "array_value" else found
