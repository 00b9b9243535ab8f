"""Runs as they are recorded, for tests that put them into a database themselves."""

from __future__ import annotations

from typing import Any

from kgents.agents.model import Run
from kgents.ids import new_id


def a_run(tenant_id: str = "ten_1", **fields: Any) -> Run:
    """A run that a process carries out, with these fields of its own."""
    run = Run(
        run_id=new_id("run"),
        tenant_id=tenant_id,
        agent_id="agt_1",
        agent_version=1,
        session_id=None,
        previous_run_id=None,
        kind="run",
        mode="wait",
        status="running",
        input={},
        output=None,
        error=None,
        attempt=1,
        owner="proc_1",
        cancel_requested_at=None,
        period="2026-01",
        reserved=(0, 0, 0, 0),
        input_tokens=0,
        output_tokens=0,
        tool_calls=0,
        last_event=None,
        request_id="req_1",
        traceparent=None,
        created_at=1,
        started_at=1,
        finished_at=None,
    )
    return run._replace(**fields)
