"""Traces: W3C trace context always; spans by OpenTelemetry only where an OTLP endpoint is set.

Without an endpoint the SDK is not even imported: a request's trace id is kept, logged and passed on, nothing more.
GenAI attributes follow OpenTelemetry's semantic conventions, which are still in development; they are named only here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from kgents.telemetry import logs

_PARENT = re.compile(r"^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$")
_current: ContextVar[str | None] = ContextVar("traceparent", default=None)


class Call(Protocol):
    """A model call that is being traced."""

    def used(self, input_tokens: int, output_tokens: int) -> None:
        """Say what the call used."""
        ...


class _Untraced:
    """Stands for every span while tracing is off."""

    def __enter__(self) -> _Untraced:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def used(self, input_tokens: int, output_tokens: int) -> None:
        """Nothing to say."""


_UNTRACED = _Untraced()


class _Tracing:
    """The SDK, set up."""

    def __init__(self, service: str) -> None:
        from opentelemetry import propagate, trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self.provider = TracerProvider(resource=Resource.create({"service.name": service}))
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer = self.provider.get_tracer("kgents")
        self.trace = trace
        self.propagate = propagate


_tracing: _Tracing | None = None


def configure(service: str) -> None:
    """Trace this process when OTEL_EXPORTER_OTLP_ENDPOINT (or its _TRACES_ form) is set."""
    global _tracing
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        _tracing = _Tracing(os.environ.get("OTEL_SERVICE_NAME", service))


def shutdown() -> None:
    """Send what is left."""
    if _tracing:
        _tracing.provider.force_flush(3000)
        _tracing.provider.shutdown()


def parse(traceparent: str | None) -> tuple[str, str] | None:
    """Trace id and span id of a W3C `traceparent`, or None for one that is not valid."""
    match = _PARENT.match(traceparent or "")
    if match is None or match[1] == "0" * 32 or match[2] == "0" * 16:
        return None
    return match[1], match[2]


def current_traceparent() -> str | None:
    """The `traceparent` to pass on."""
    if _tracing:
        carrier: dict[str, str] = {}
        _tracing.propagate.inject(carrier)
        return carrier.get("traceparent")
    return _current.get()


@contextmanager
def server_span(method: str, traceparent: str | None) -> Iterator[None]:
    """An HTTP request, in the trace that its client began."""
    parsed = parse(traceparent)
    if _tracing is None:
        if parsed is None:
            yield
            return
        token = _current.set(traceparent)
        try:
            with logs.bound(trace_id=parsed[0]):
                yield
        finally:
            _current.reset(token)
        return
    kind = _tracing.trace.SpanKind.SERVER
    with _span(f"HTTP {method}", kind, traceparent if parsed else None, {"http.request.method": method}):
        yield


@contextmanager
def _span(name: str, kind: Any, traceparent: str | None, attributes: dict[str, Any]) -> Iterator[Any]:
    assert _tracing is not None
    parent = _tracing.propagate.extract({"traceparent": traceparent}) if traceparent else None
    with _tracing.tracer.start_as_current_span(
        name, context=parent, kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        context = span.get_span_context()
        with logs.bound(trace_id=f"{context.trace_id:032x}", span_id=f"{context.span_id:016x}"):
            yield span


def run_span(run_id: str, agent_id: str, traceparent: str | None) -> Any:
    """A run being carried out, in the trace of the request that asked for it."""
    if _tracing is None:
        return _UNTRACED
    attributes = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.id": agent_id, "kgents.run.id": run_id}
    parent = None if _tracing.trace.get_current_span().get_span_context().is_valid else traceparent
    return _span("invoke_agent", _tracing.trace.SpanKind.INTERNAL, parent, attributes)


def model_call(model: str) -> Any:
    """A call of a model; tell it what was used."""
    if _tracing is None:
        return _UNTRACED
    return _model_call(model)


@contextmanager
def _model_call(model: str) -> Iterator[Call]:
    assert _tracing is not None
    provider, _, name = model.partition(":")
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": provider, "gen_ai.request.model": name}
    with _span(f"chat {name}", _tracing.trace.SpanKind.CLIENT, None, attributes) as span:
        yield _TracedCall(span)


class _TracedCall:
    def __init__(self, span: Any) -> None:
        self._span = span

    def used(self, input_tokens: int, output_tokens: int) -> None:
        self._span.set_attribute("gen_ai.usage.input_tokens", input_tokens)
        self._span.set_attribute("gen_ai.usage.output_tokens", output_tokens)


def tool_call(name: str) -> Any:
    """A call of a tool."""
    if _tracing is None:
        return _UNTRACED
    attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name}
    return _span(f"execute_tool {name}", _tracing.trace.SpanKind.INTERNAL, None, attributes)
