"""Agents, sessions and runs: what they are made of. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

RunMode = Literal["wait", "stream", "background"]
RunStatus = Literal["queued", "running", "completed", "failed", "cancelled"]
RunKind = Literal["run", "chat.completion", "response"]

HIDDEN = "***"  # what is shown of a tool's secrets
FINISHED: frozenset[str] = frozenset({"completed", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use at most."""

    max_steps: int = 10
    max_output_tokens: int = 4096
    timeout_seconds: int = 120


@dataclass(frozen=True, slots=True)
class AgentDefinition:
    """What an agent is. A run keeps the version that it started with."""

    model: str
    instructions: str = ""
    description: str = ""
    tools: tuple[dict[str, Any], ...] = ()
    output_schema: dict[str, Any] | None = None
    temperature: float | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent at its latest version (or, from the versions route, at the one asked for)."""

    agent_id: str
    tenant_id: str
    name: str
    version: int
    definition: AgentDefinition
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class Session:
    """A conversation with an agent; its runs see the messages of the runs before them."""

    session_id: str
    tenant_id: str
    agent_id: str
    metadata: dict[str, str]
    created_at: int
    updated_at: int


class Overrides(NamedTuple):
    """What one run asks for differently from its agent's definition. `tools` are the caller's own functions;
    without `store` what was said can't be followed on from.
    """

    instructions: str | None = None
    store: bool = True
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    output_schema: dict[str, Any] | None = None
    output_name: str | None = None
    json_object: bool = False
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: str | None = None
    parallel_tool_calls: bool | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asks the caller to make."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Output:
    """What a run answered: text, or calls of the caller's tools, and why the model stopped."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str = "stop"


@dataclass(frozen=True, slots=True)
class CutOff:
    """What a run's step had used, of each meter, when its process gave the run back in the middle of it. The tenant
    pays for that only where nobody makes the step again.
    """

    step: int
    model: str
    used: tuple[int, int, int, int]
    estimated: bool


class Run(NamedTuple):
    """A run as it is recorded. Token counts grow as its steps are recorded."""

    run_id: str
    tenant_id: str
    agent_id: str
    agent_version: int
    session_id: str | None
    previous_run_id: str | None
    kind: RunKind
    mode: RunMode
    status: RunStatus
    input: dict[str, Any]
    output: Output | None
    error: dict[str, Any] | None
    attempt: int
    owner: str | None
    cancel_requested_at: int | None
    period: str
    reserved: tuple[int, int, int, int]
    input_tokens: int
    output_tokens: int
    tool_calls: int
    last_event: int | None
    request_id: str
    traceparent: str | None
    created_at: int
    started_at: int | None
    finished_at: int | None
    cut_off: CutOff | None = None

    @property
    def finished(self) -> bool:
        """Whether the run has reached its last status."""
        return self.status in FINISHED

    @property
    def erased(self) -> bool:
        """Whether what it was asked and what it said were deleted; its usage stays."""
        return "messages" not in self.input


def without_secrets(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool as its owner may see it: the values of headers are never shown."""
    return {**tool, "headers": dict.fromkeys(tool["headers"], HIDDEN)} if tool.get("headers") else dict(tool)
