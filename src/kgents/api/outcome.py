"""How a finished run answers an HTTP request that waited for it."""

from __future__ import annotations

from typing import Any

from kgents.agents.model import Run
from kgents.errors import Conflict, KgentsError


def failure_of(run: Run) -> KgentsError | None:
    """The error of a run that did not complete, with the status that it was recorded with; None when it completed."""
    if run.status == "completed":
        return None
    return failure_from_event({"status": run.status, "error": run.error})


def failure_from_event(data: dict[str, Any]) -> KgentsError:
    """The error that the data of a run's last event tells of."""
    error = data["error"]
    if data["status"] == "cancelled" or error is None:
        return Conflict("The run was cancelled.", code="run-cancelled")
    extra = {key: value for key, value in error.items() if key not in ("code", "title", "detail", "status")}
    headers = {"Retry-After": str(error["retry_after"])} if "retry_after" in error else None
    failure = KgentsError(error["detail"], code=error["code"], headers=headers, **extra)
    failure.status, failure.title = error["status"], error["title"]
    return failure
