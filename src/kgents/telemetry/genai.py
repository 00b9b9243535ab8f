"""Spans of runs, model calls and tools, by OpenTelemetry's conventions for GenAI as of semantic conventions 1.44.

They are still in development, so their names stand only here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from kgents.telemetry import traces
from kgents.telemetry.traces import UNTRACED


class Call(Protocol):
    """A model call that is being traced."""

    def answered(
        self, *, input_tokens: int, output_tokens: int, model: str | None, response_id: str | None, finish: str | None
    ) -> None:
        """Say what the model answered with: its own names for itself and for the answer, and why that ended."""
        ...


class Carried(Protocol):
    """A run that is being traced."""

    def ended(self, status: str, code: str | None) -> None:
        """Say how it ended, and with which error's code."""
        ...


def run_span(
    context: str | None, *, run_id: str, tenant_id: str, agent_id: str, model: str, session_id: str | None
) -> AbstractContextManager[Carried]:
    """A run being carried out, in the trace of the request that asked for it."""
    if not traces.is_on():
        return UNTRACED
    provider, _, name = model.partition(":")
    attributes = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": name,
        "gen_ai.agent.id": agent_id,
        "gen_ai.conversation.id": session_id,
        "kgents.run.id": run_id,
        "kgents.tenant.id": tenant_id,
    }
    parent = None if traces.in_a_span() else context
    return _run_span(parent, attributes)


@contextmanager
def _run_span(parent: str | None, attributes: dict[str, Any]) -> Iterator[Carried]:
    with traces.span("invoke_agent", "INTERNAL", parent, attributes) as span:
        yield _TracedRun(span)


class _TracedRun:
    def __init__(self, span: Any) -> None:
        self._span = span

    def ended(self, status: str, code: str | None) -> None:
        self._span.set_attribute("kgents.run.status", status)
        if status == "failed":
            traces.fail(self._span, code or status)


def model_call(
    model: str,
    *,
    stream: bool = False,
    session_id: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
) -> AbstractContextManager[Call]:
    """A call of a model; tell it what was answered."""
    if not traces.is_on():
        return UNTRACED
    provider, _, name = model.partition(":")
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": name,
        "gen_ai.request.stream": stream or None,
        "gen_ai.request.max_tokens": max_tokens,
        "gen_ai.request.temperature": temperature,
        "gen_ai.request.top_p": top_p,
        "gen_ai.conversation.id": session_id,
    }
    return _model_call(name, attributes)


@contextmanager
def _model_call(name: str, attributes: dict[str, Any]) -> Iterator[Call]:
    with traces.span(f"chat {name}", "CLIENT", None, attributes) as span:
        yield _TracedCall(span)


class _TracedCall:
    def __init__(self, span: Any) -> None:
        self._span = span

    def answered(
        self, *, input_tokens: int, output_tokens: int, model: str | None, response_id: str | None, finish: str | None
    ) -> None:
        found = {
            "gen_ai.usage.input_tokens": input_tokens,
            "gen_ai.usage.output_tokens": output_tokens,
            "gen_ai.response.model": model,
            "gen_ai.response.id": response_id,
            "gen_ai.response.finish_reasons": [finish] if finish else None,
        }
        self._span.set_attributes({name: value for name, value in found.items() if value is not None})


def tool_call(name: str, call_id: str, kind: str) -> AbstractContextManager[object]:
    """A call of a tool of a `kind` (`builtin`, `mcp`). A name of no tool is a model's own words, and not told."""
    if not traces.is_on():
        return UNTRACED
    known = name if kind != "unknown" else "unknown"
    attributes = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": known,
        "gen_ai.tool.type": "extension" if kind == "mcp" else "function",
        "gen_ai.tool.call.id": call_id,
    }
    return traces.span(f"execute_tool {known}", "INTERNAL", None, attributes)
