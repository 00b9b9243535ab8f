"""What each tenant must see: a model of kgents in plain Python, for the stateful test."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]


@dataclass
class Model:
    """One tenant. Its objects are kept by id in the order of their making; `gone` are those that were deleted."""

    id: str
    owner: str = field(repr=False)
    """The owner's key, which the tenant acts with."""
    agents: dict[str, Row] = field(default_factory=dict)
    sessions: dict[str, Row] = field(default_factory=dict)
    runs: dict[str, Row] = field(default_factory=dict)
    messages: dict[str, list[Row]] = field(default_factory=dict)
    keys: dict[str, Row] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict, repr=False)
    idempotent: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The text and the run of each Idempotency-Key."""
    gone: dict[str, list[str]] = field(default_factory=lambda: {"agents": [], "sessions": []})
    used: dict[str, int] = field(default_factory=lambda: {"runs": 0, "input_tokens": 0, "output_tokens": 0})
    limit: int | None = None
    """How many runs the month may have."""

    def queued(self) -> list[str]:
        """The runs that wait in the queue, each with its reservation."""
        return [run_id for run_id, run in self.runs.items() if run["status"] == "queued"]

    def may_run(self) -> bool:
        """Whether the quota lets one more run start."""
        return self.limit is None or self.used["runs"] + len(self.queued()) < self.limit

    def ids(self, kind: str) -> list[str]:
        """The ids of a kind, deleted ones included."""
        return [*getattr(self, kind), *self.gone.get(kind, [])]

    def agent(self, reference: str) -> Row | None:
        """The agent of an id or a name."""
        named = (agent for agent in self.agents.values() if agent["name"] == reference)
        return self.agents.get(reference) or next(named, None)

    def id_of_agent(self, name: str) -> str | None:
        """The id of the agent of a name."""
        return next((agent_id for agent_id, agent in self.agents.items() if agent["name"] == name), None)

    def metered(self) -> set[str]:
        """The runs that have used something: those that have been carried out."""
        return {run_id for run_id, run in self.runs.items() if run["status"] == "completed"}

    def ran(self, run_id: str, agent_id: str, session_id: str | None, text: str, usage: Row) -> None:
        """A run has answered with the text that it was asked."""
        self.runs[run_id] = {
            "agent_id": agent_id,
            "session_id": session_id,
            "status": "completed",
            "text": text,
            **usage,
        }
        for meter, quantity in {"runs": 1, **usage}.items():
            self.used[meter] += quantity
        if session_id:
            self.messages[session_id] += [
                {"run_id": run_id, "role": role, "content": text} for role in ("user", "assistant")
            ]

    def was_queued(self, run_id: str, agent_id: str) -> None:
        """A run waits in the queue, and nothing takes it from there."""
        nothing = {"session_id": None, "text": None, "input_tokens": 0, "output_tokens": 0}
        self.runs[run_id] = {"agent_id": agent_id, "status": "queued", **nothing}

    def delete_session(self, session_id: str) -> None:
        """The session and what was said in it are gone; its runs are still counted."""
        del self.sessions[session_id], self.messages[session_id]
        self.gone["sessions"].append(session_id)
        for run in self.runs.values():
            if run["session_id"] == session_id:
                run["text"] = None
