"""One trace from the HTTP request through the run, SQL and the bus, across processes, told by OTLP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.integration.system.test_durability import await_status, background, hello
from tests.support.up import Up

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


class Collector:
    """An OTLP/HTTP receiver that keeps what it is told."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    def spans(self) -> list[tuple[str, Any]]:
        """(service name, span) of the trace."""
        return [
            (service_of(resource), span)
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
            if span.trace_id.hex() == TRACE
        ]


def service_of(resource: Any) -> str:
    attributes = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
    return attributes["service.name"]


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.close()


def traced(tmp_path: Path, collector: Collector, text: str) -> list[tuple[str, Any]]:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    up = Up(tmp_path / "data", environment=environment).start()
    try:
        with up.client() as client:
            client.headers.update(HEADERS)
            client.post("/v1/chat/completions", json=hello() | {"messages": [{"role": "user", "content": text}]})
            await_status(client, background(client, text), "completed")
    finally:
        up.stop()
    return collector.spans()


def test_a_trace_joins_http_run_model_sql_and_bus_across_processes(tmp_path: Path, collector: Collector) -> None:
    spans = traced(tmp_path, collector, "canary-text")
    names = {(service, span.name) for service, span in spans}
    assert ("kgents-api", "POST /v1/chat/completions") in names
    assert ("kgents-api", "invoke_agent") in names
    assert ("kgents-api", "chat echo") in names
    assert ("kgents-api", "admit run") in names
    assert ("kgents-api", "record step") in names
    assert ("kgents-worker", "invoke_agent") in names
    assert ("kgents-worker", "publish kgents.events") in names


def test_a_model_call_has_genai_attributes_and_no_text(tmp_path: Path, collector: Collector) -> None:
    spans = traced(tmp_path, collector, "canary-text")
    call = next(span for _, span in spans if span.name == "chat echo")
    attributes = {attribute.key: attribute.value for attribute in call.attributes}
    assert attributes["gen_ai.request.model"].string_value == "echo"
    assert attributes["gen_ai.usage.output_tokens"].int_value > 0
    assert not any("canary-text" in str(span) for _, span in spans)
