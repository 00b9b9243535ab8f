"""Traces: W3C trace context always; spans by OpenTelemetry only where an OTLP endpoint is set.

Without an endpoint the SDK is not even imported: a request's trace id is kept, logged and passed on, nothing more.
GenAI attributes follow OpenTelemetry's semantic conventions, which are still in development; they are named only here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from kgents.ids import random_bytes
from kgents.telemetry import logs

_PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
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
    match = _PARENT.fullmatch(traceparent or "")
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


class Exchange:
    """An HTTP request."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def answered(self, method: str, route: str, status: int) -> None:
        """Say which route answered, and how."""
        if self._span is not None:
            self._span.update_name(f"{method} {route}")
            self._span.set_attribute("http.route", route)
            self._span.set_attribute("http.response.status_code", status)


class _UntracedExchange(Exchange):
    """A request while tracing is off: its trace's id is kept all the same, for the logs and to pass on."""

    def __init__(self, traceparent: str | None) -> None:
        super().__init__()
        parsed = parse(traceparent)
        if parsed is None:
            random = random_bytes(24).hex()
            trace_id = random[:32]
            traceparent = f"00-{trace_id}-{random[32:]}-00"
        else:
            trace_id = parsed[0]
        self._traceparent = traceparent
        self._bound = logs.bound(trace_id=trace_id)

    def __enter__(self) -> Exchange:
        self._token = _current.set(self._traceparent)
        self._bound.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._bound.__exit__()
        _current.reset(self._token)


def server_span(method: str, traceparent: str | None) -> AbstractContextManager[Exchange]:
    """An HTTP request, in the trace that its client began or in one of its own."""
    return _UntracedExchange(traceparent) if _tracing is None else _server_span(method, traceparent)


@contextmanager
def _server_span(method: str, traceparent: str | None) -> Iterator[Exchange]:
    assert _tracing is not None
    parent = traceparent if parse(traceparent) else None
    with _span(f"HTTP {method}", _tracing.trace.SpanKind.SERVER, parent, {"http.request.method": method}) as span:
        yield Exchange(span)


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


def sql(operation: str) -> Any:
    """A transaction, from the wish for it to its commit. `operation` names what it does, never what with."""
    if _tracing is None:
        return _UNTRACED
    return _span(operation, _tracing.trace.SpanKind.CLIENT, None, {"db.operation.name": operation})


def publish(subject: str, messages: int = 1) -> Any:
    """The sending of messages to the bus, until it has stored them."""
    if _tracing is None:
        return _UNTRACED
    attributes = {
        "messaging.system": "nats",
        "messaging.operation.name": "publish",
        "messaging.destination.name": subject,
        "messaging.batch.message_count": messages,
    }
    return _span(f"publish {subject}", _tracing.trace.SpanKind.PRODUCER, None, attributes)


def process(subject: str, traceparent: str | None = None) -> Any:
    """The handling of a message from the bus, in the trace of the work that it tells of."""
    if _tracing is None:
        return _UNTRACED
    attributes = {
        "messaging.system": "nats",
        "messaging.operation.name": "process",
        "messaging.destination.name": subject,
    }
    return _span(f"process {subject}", _tracing.trace.SpanKind.CONSUMER, traceparent, attributes)
