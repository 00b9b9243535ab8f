"""Traces: W3C trace context always; spans by OpenTelemetry only where an OTLP endpoint is set.

Without an endpoint the SDK is not even imported: a request's trace context is kept, logged and passed on, nothing more.
Names follow OpenTelemetry's semantic conventions 1.44. A span holds names and ids that are ours, kinds of errors and
counts, never a text, a key, a URL or a message of an error. Spans of models and tools are in genai.py, those of the bus
in messaging.py.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from kgents import __version__
from kgents.errors import KgentsError
from kgents.ids import random_bytes
from kgents.telemetry import logs
from kgents.telemetry.metrics import METHODS
from kgents.telemetry.trace_context import headers, is_sampled, join, parse

Kind = Literal["SERVER", "CLIENT", "INTERNAL", "PRODUCER", "CONSUMER"]
_current: ContextVar[str | None] = ContextVar("trace context", default=None)


class Untraced:
    """Stands for every span while tracing is off."""

    def __enter__(self) -> Untraced:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def answered(self, **_: object) -> None:
        """Nothing to say."""

    def ended(self, _status: str, _code: str | None) -> None:
        """Nothing to say."""


UNTRACED = Untraced()


class _Tracing:
    """The SDK, set up. Which traces are recorded is for OTEL_TRACES_SAMPLER to say, which the SDK reads."""

    def __init__(self, service: str, instance: str, database: str) -> None:
        from opentelemetry import context, propagate, trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.semconv.schemas import Schemas

        about = {"service.name": service, "service.version": __version__, "service.instance.id": instance}
        self.provider = TracerProvider(resource=Resource.create(about))
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer = self.provider.get_tracer("kgents", __version__, schema_url=Schemas.V1_44_0.value)
        self.context = context
        self.trace = trace
        self.propagate = propagate
        self.database = database


_tracing: _Tracing | None = None


def configure(service: str, instance: str, database: str) -> None:
    """Trace this process when OTEL_EXPORTER_OTLP_ENDPOINT (or its _TRACES_ form) is set. `database` is the system that
    its transactions are spoken of as: `sqlite` or `postgresql`.
    """
    global _tracing
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        _tracing = _Tracing(os.environ.get("OTEL_SERVICE_NAME", service), instance, database)


def shutdown() -> None:
    """Send what is left."""
    if _tracing:
        _tracing.provider.force_flush(3000)
        _tracing.provider.shutdown()


def is_on() -> bool:
    """Whether this process records traces."""
    return _tracing is not None


def current() -> str | None:
    """The trace context to keep or to pass on (see trace_context.py), with the current span as the parent."""
    if _tracing is None:
        return _current.get()
    carrier: dict[str, str] = {}
    _tracing.propagate.inject(carrier)
    return join(carrier.get("traceparent"), carrier.get("tracestate"))


def outgoing() -> dict[str, str]:
    """The headers by which another server goes on with the trace."""
    return headers(current())


def recorded(context: str | None) -> str | None:
    """A trace context, if this process records traces and that trace is recorded: what messages carry."""
    return context if _tracing and context and is_sampled(context) else None


def in_a_span() -> bool:
    """Whether the current span is one of this process or of one before it."""
    return _tracing is not None and bool(_tracing.trace.get_current_span().get_span_context().is_valid)


def recorded_now() -> str | None:
    """`recorded` of the current trace context."""
    return recorded(current()) if _tracing else None


@contextmanager
def within(context: str | None) -> Iterator[None]:
    """Go on with a trace context in another task."""
    if _tracing is None:
        token = _current.set(context)
        try:
            yield
        finally:
            _current.reset(token)
        return
    attached = _tracing.context.attach(_tracing.propagate.extract(headers(context)))
    try:
        yield
    finally:
        _tracing.context.detach(attached)


class Exchange:
    """An HTTP request."""

    __slots__ = ("_span",)

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def answered(self, method: str, route: str, status: int) -> None:
        """Say which route answered, and how."""
        if self._span is None:
            return
        self._span.update_name(f"{_method(method)} {route}")
        self._span.set_attribute("http.route", route)
        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            fail(self._span, str(status))


class _UntracedExchange(Exchange):
    """A request while tracing is off: its trace's id is kept all the same, for the logs and to pass on."""

    __slots__ = ("_bound", "_context", "_token")

    def __init__(self, traceparent: str | None, tracestate: str | None) -> None:
        self._span = None
        parsed = parse(traceparent) if traceparent else None
        if parsed is None:
            random = random_bytes(24).hex()
            trace_id = random[:32]
            self._context: str | None = f"00-{trace_id}-{random[32:]}-00"
        else:
            trace_id = parsed[0]
            self._context = join(traceparent, tracestate) if tracestate else traceparent
        self._bound = logs.bound(trace_id=trace_id)

    def __enter__(self) -> Exchange:
        self._token = _current.set(self._context)
        self._bound.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._bound.__exit__()
        _current.reset(self._token)


def server_span(
    method: str, traceparent: str | None, tracestate: str | None = None
) -> AbstractContextManager[Exchange]:
    """An HTTP request, in the trace that its client began or in one of its own."""
    if _tracing is None:
        return _UntracedExchange(traceparent, tracestate)
    return _server_span(_method(method), join(traceparent, tracestate))


@contextmanager
def _server_span(method: str, context: str | None) -> Iterator[Exchange]:
    with span(f"HTTP {method}", "SERVER", context, {"http.request.method": method}) as found:
        yield Exchange(found)


def _method(method: str) -> str:
    return method if method in METHODS else "_OTHER"


@contextmanager
def span(
    name: str, kind: Kind, context: str | None, attributes: Mapping[str, Any], links: Iterable[str] = ()
) -> Iterator[Any]:
    """A span, as the current one within, while this process records traces. Its parent is in another process where a
    trace context is given, or else the current span. An attribute of None is left out.
    """
    assert _tracing is not None
    started = begin(name, kind, context, attributes, links)
    place = started.get_span_context()
    with (
        ending(started),
        _tracing.trace.use_span(started, record_exception=False, set_status_on_exception=False),
        logs.bound(trace_id=f"{place.trace_id:032x}", span_id=f"{place.span_id:016x}"),
    ):
        yield started


def begin(name: str, kind: Kind, context: str | None, attributes: Mapping[str, Any], links: Iterable[str] = ()) -> Any:
    """As `span`, but not the current one; end it with `ending`."""
    assert _tracing is not None
    return _tracing.tracer.start_span(
        name,
        context=_tracing.propagate.extract(headers(context)) if context else None,
        kind=_tracing.trace.SpanKind[kind],
        attributes={key: value for key, value in attributes.items() if value is not None},
        links=[_tracing.trace.Link(_place(link)) for link in links],
    )


@contextmanager
def ending(started: Any) -> Iterator[None]:
    """End a span with the block, as failed where that raises."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, asyncio.CancelledError | GeneratorExit):
            fail(started, _kind(error))
        raise
    finally:
        started.end()


def _place(context: str) -> Any:
    assert _tracing is not None
    extracted = _tracing.propagate.extract(headers(context))
    return _tracing.trace.get_current_span(extracted).get_span_context()


def fail(span: Any, kind: str) -> None:
    """Say that what a span tells of failed, with the kind of error."""
    assert _tracing is not None
    span.set_attribute("error.type", kind)
    span.set_status(_tracing.trace.StatusCode.ERROR)


def _kind(error: BaseException) -> str:
    """What kind of error it is. Never its message: that may quote what a tenant sent."""
    return error.code if isinstance(error, KgentsError) else type(error).__qualname__


def failed(error: BaseException) -> None:
    """Say that what the current span tells of failed, where that is answered and not raised."""
    if _tracing:
        fail(_tracing.trace.get_current_span(), _kind(error))


def sql(operation: str) -> AbstractContextManager[object]:
    """A transaction, from the wish for it to its commit. `operation` names what it does, never what with."""
    if _tracing is None:
        return UNTRACED
    attributes = {"db.operation.name": operation, "db.system.name": _tracing.database}
    return span(operation, "CLIENT", None, attributes)
